//! The shared QMP socket: plain QMP for any number of clients at once.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::boot_sector::Guest;
use crate::support::orphan::forget_taken;
use crate::support::sandbox::{PATIENCE, Sandbox, python};

struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    fn connect(sandbox: &Sandbox) -> Self {
        Self::connect_to(&sandbox.runtime().join("guest/qmp-shared"))
    }

    fn connect_to(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self { reader: BufReader::new(stream) };
        let greeting = client.read().unwrap();
        assert!(greeting["QMP"]["version"]["qemu"]["major"].as_u64().unwrap() >= 7, "{greeting}");
        client
    }

    fn ready(sandbox: &Sandbox) -> Self {
        let mut client = Self::connect(sandbox);
        assert_eq!(client.ask("qmp_capabilities"), json!({ "return": {} }));
        client
    }

    fn send(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The next message; none when the connection was closed.
    fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
        }
    }

    /// The answer to a command; events before it are passed over.
    fn ask(&mut self, execute: &str) -> Value {
        self.send(&json!({ "execute": execute }).to_string());
        self.answer()
    }

    fn answer(&mut self) -> Value {
        loop {
            let message = self.read().unwrap();
            if message.get("event").is_none() {
                return message;
            }
        }
    }
}

fn vm() -> Sandbox {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    sandbox.detached([image.as_os_str(), "--name".as_ref(), "guest".as_ref()]);
    sandbox
}

#[test]
fn it_speaks_as_qemu_does() {
    let sandbox = vm();
    let stream = UnixStream::connect(sandbox.runtime().join("guest/qmp-shared")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let greeting = Client { reader: BufReader::new(stream) }.read().unwrap();
    let mut client = Client::connect(&sandbox);
    let early = client.ask("query-status");
    assert_eq!(early["error"]["class"], "CommandNotFound", "{early}");
    client.ask("qmp_capabilities");
    assert_eq!(client.ask("qmp_capabilities")["error"]["class"], "CommandNotFound");
    // with the name that its packagers have given it
    assert_eq!(greeting["QMP"]["version"], client.ask("query-version")["return"]);
    // ids of any kind go back, and two clients may use the same
    let mut other = Client::ready(&sandbox);
    for id in [json!(1), json!("one"), json!({ "a": [null] })] {
        let command = json!({ "execute": "query-status", "id": id }).to_string();
        client.send(&command);
        other.send(&command);
        assert_eq!(client.answer()["id"], id);
        assert_eq!(other.answer()["id"], id);
    }
    let unknown = client.ask("no-such-command");
    assert_eq!(unknown["error"]["desc"], "The command no-such-command has not been found");
    // cut anywhere, and several in one piece
    client.send("{\"execute\":\n \"query-");
    client.send("status\", \"id\": 7}{\"execute\": \"query-uuid\", \"id\": 8}");
    assert_eq!([client.answer()["id"].clone(), client.answer()["id"].clone()], [7, 8]);
}

#[test]
fn what_it_plugs_is_in_the_books() {
    let sandbox = vm();
    let mut client = Client::ready(&sandbox);
    let plug = json!({ "execute": "device_add", "arguments": { "driver": "virtio-rng-pci", "id": "mine", "bus": "slot3" } });
    client.send(&plug.to_string());
    assert_eq!(client.answer(), json!({ "return": {} }));
    let mut status = sandbox.ctl_json(["status"]);
    // the supervisor looks at what the guest has taken by itself, some time after the event
    forget_taken(&mut status);
    assert_eq!(
        status["devices"][0],
        json!({ "id": "mine", "driver": "virtio-rng-pci", "slot": "slot3", "phase": "present" })
    );
    let forward = json!({ "execute": "human-monitor-command", "arguments": { "command-line": "hostfwd_add net0 tcp:127.0.0.1:0-:7" } });
    client.send(&forward.to_string());
    assert_eq!(client.answer()["return"], "");
    assert_eq!(sandbox.ctl_json(["port-list"])[0]["guest_port"], 7);
}

#[test]
fn garbage_harms_nobody() {
    let sandbox = vm();
    let mut good = Client::ready(&sandbox);
    let mut bad = Client::ready(&sandbox);
    bad.send("this is not JSON\n");
    assert_eq!(bad.answer()["error"]["class"], "GenericError");
    bad.send("[1, 2]\n");
    assert_eq!(bad.answer()["error"]["class"], "GenericError");
    // one bad line is one error, whatever ends the lines around it
    bad.send("{\"execute\": \"query-uuid\", \"id\": 1}\r\n\r\nnot JSON either\r\n{\"execute\": \"query-uuid\", \"id\": 2}\r\n");
    let answers = [bad.answer(), bad.answer(), bad.answer()];
    assert_eq!((&answers[0]["id"], &answers[2]["id"]), (&json!(1), &json!(2)), "{answers:#?}");
    assert_eq!(answers[1]["error"]["class"], "GenericError");
    // a line without end is cut off
    let piece = vec![b' '; 64 << 10];
    let sent = (0..64).take_while(|_| bad.reader.get_mut().write_all(&piece).is_ok()).count();
    assert!(sent < 64, "4 MiB of one line were taken");
    drop(Client::connect(&sandbox));
    let mut half = Client::ready(&sandbox);
    half.send("{\"execute\": ");
    assert_eq!(good.ask("query-status")["return"]["running"], true);
}

#[test]
fn quit_is_a_proper_end() {
    let sandbox = vm();
    let mut client = Client::ready(&sandbox);
    let waiting = sandbox
        .vmrun()
        .args(["ctl", "--json", "wait", "exit"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // the wait is under way once the supervisor answers the next call
    sandbox.ctl(["status"]).ok();
    let answer = client.ask("quit");
    if answer == json!({ "return": {} }) {
        let shutdown = client.read().unwrap();
        assert_eq!(
            (&shutdown["event"], &shutdown["data"]["reason"]),
            (&json!("SHUTDOWN"), &json!("host-qmp-quit"))
        );
    } else {
        // QEMU does not promise to answer before it ends (qapi/control.json)
        let why = answer["error"]["desc"].as_str().unwrap();
        assert_eq!(why, "the connection to QEMU's monitor has ended");
    }
    assert_eq!(client.read(), None);
    let told = waiting.wait_with_output().unwrap();
    assert_eq!(told.status.code(), Some(12), "{told:?}");
}

#[test]
fn clients_of_the_pypi_package_work_together() {
    let sandbox = vm();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/python/shared_qmp.py");
    let socket = sandbox.runtime().join("guest/qmp-shared");
    let output = Command::new(python()).arg(script).arg(socket).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "ok\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
