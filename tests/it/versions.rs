//! A client and a supervisor of different versions: what both know works, and what only one knows is named.
//!
//! Between the program under test and its own supervisor stands one that knows less, or more.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use serde_json::{Map, Value, json};

use crate::support::boot_sector::Guest;
use crate::support::sandbox::Sandbox;
use crate::support::varlink::Raw;

const INTERFACE: &str = "io.vmrun.Machine.";

/// Makes a reply.
type Reply = fn() -> Value;

/// How the supervisor differs.
#[derive(Default)]
struct Version {
    number: &'static str,
    /// Methods that it does not have.
    without: &'static [&'static str],
    /// Parameters that it does not take.
    without_parameters: &'static [(&'static str, &'static str)],
    /// Fields that its replies do not have, wherever they are.
    without_fields: &'static [&'static str],
    /// Whether everything that it says has more than this version knows.
    says_more: bool,
    /// A reply in the place of a method's own.
    instead: &'static [(&'static str, Reply)],
}

impl Version {
    fn answer(&self, call: &Value) -> Option<Value> {
        let method = call["method"].as_str().unwrap();
        if method == "org.varlink.service.GetInfo" {
            let info = json!({ "vendor": "vmrun", "product": "vmrun", "version": self.number, "url": "", "interfaces": [] });
            return Some(json!({ "parameters": info }));
        }
        let name = method.strip_prefix(INTERFACE)?;
        if let Some((_, reply)) = self.instead.iter().find(|(instead, _)| *instead == name) {
            return Some(reply());
        }
        if self.without.contains(&name) {
            return Some(
                json!({ "error": "org.varlink.service.MethodNotFound", "parameters": { "method": method } }),
            );
        }
        let given = call["parameters"].as_object().cloned().unwrap_or_default();
        let refuse = |parameter: &str| json!({ "error": "org.varlink.service.InvalidParameter", "parameters": { "parameter": parameter } });
        let later = |parameter: &str| self.without_parameters.contains(&(name, parameter));
        // one that is as it would be without it can be of any later version; `up` is no optional one
        let idle =
            |parameter: &str, value: &Value| *value == json!(false) && !["up", "follow"].contains(&parameter);
        let mut unknown =
            given.iter().filter(|(parameter, value)| later(parameter) || idle(parameter, value));
        unknown.next().map(|(parameter, _)| refuse(parameter))
    }

    fn changed(&self, value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let kept =
                    fields.into_iter().filter(|(name, _)| !self.without_fields.contains(&name.as_str()));
                let mut kept: Map<String, Value> =
                    kept.map(|(name, value)| (name, self.changed(value))).collect();
                if self.says_more {
                    kept.insert("of_a_later_version".to_owned(), json!([{ "what": 1 }]));
                }
                Value::Object(kept)
            }
            Value::Array(all) => all.into_iter().map(|one| self.changed(one)).collect(),
            other => other,
        }
    }

    /// One client; its calls are one after the other.
    fn serve(&self, client: UnixStream, supervisor: &Path) {
        let mut replies = client.try_clone().unwrap();
        let mut client = Raw::over(client);
        while let Some(call) = client.receive() {
            let mut own: Vec<Value> = self.answer(&call).into_iter().collect();
            if own.is_empty() {
                let mut real = Raw::connect(supervisor);
                real.send(call.to_string().as_bytes());
                while let Some(reply) = real.receive() {
                    let more = reply["continues"] == true;
                    own.push(self.changed(reply));
                    if !more {
                        break;
                    }
                }
            }
            for reply in own {
                if replies.write_all(format!("{reply}\0").as_bytes()).is_err() {
                    return;
                }
            }
        }
    }
}

/// A VM with a disk `scratch`, whose supervisor seems to be of another version.
fn vm_of(version: Version) -> Sandbox {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    sandbox.detached(["--ephemeral", "--disk", "d.qcow2,size=1M,id=scratch", image.to_str().unwrap()]);
    let (socket, real): (PathBuf, PathBuf) = (sandbox.runtime().join("guest/control"), sandbox.file("real"));
    std::fs::rename(&socket, &real).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let version = Arc::new(version);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (version, real) = (Arc::clone(&version), real.clone());
            thread::spawn(move || version.serve(client, &real));
        }
    });
    sandbox
}

#[test]
fn an_older_supervisor_does_what_it_knows() {
    let sandbox = vm_of(Version {
        number: "0.0.9",
        without: &["ThrottleDisk", "Freeze"],
        without_parameters: &[
            ("Wait", "from_now"),
            ("Wait", "all"),
            ("EjectMedia", "force"),
            ("RemoveDisk", "force"),
            ("SaveSnapshot", "overwrite"),
            ("Shutdown", "force"),
            ("Shutdown", "no_repeat"),
            ("AddDisk", "readonly"),
        ],
        // what came later
        without_fields: &["taken", "nics", "shares", "limits", "slot", "siblings", "template", "iothread"],
        ..Version::default()
    });
    // a parameter that says nothing is not sent, and a reply may lack what is optional
    sandbox.ctl(["wait", "running"]).ok();
    assert!(sandbox.ctl(["status"]).ok().stdout.contains("scratch"));
    assert_eq!(sandbox.ctl_json(["disk-list"])[1]["id"], "scratch");
    assert_eq!(sandbox.run(["ls", "--json"]).json()[0]["name"], "guest");
    sandbox.run(["logs"]).ok();
    sandbox.ctl(["disk-add", "e.qcow2,size=1M,id=more"]).ok();
    // the guest has no agent
    sandbox.ctl(["exec", "--agent-timeout", "1s", "true"]).fails(4, &["guest agent"]);
    sandbox.ctl(["reboot", "--agent-timeout", "1s"]).fails(4, &["guest agent"]);
    // what it does not have is named, with both versions
    let own = env!("CARGO_PKG_VERSION");
    let of = format!("the VM's supervisor is vmrun 0.0.9, and this is vmrun {own}: ");
    let hint = "hint: a VM that is started by this vmrun has it";
    sandbox
        .ctl(["disk-throttle", "scratch", "--iops", "10"])
        .fails(1, &[&format!("{of}it has no ThrottleDisk"), hint]);
    // a stream, too
    sandbox.ctl(["freeze", "template"]).fails(1, &[&format!("{of}it has no Freeze")]);
    let parameter = format!("{of}its Wait does not take the parameter 'from_now'");
    sandbox.ctl(["wait", "--from-now", "running"]).fails(1, &[&parameter, hint]);
    let json = sandbox.ctl(["--json", "disk-throttle", "scratch", "--off"]).fails(1, &[]);
    let error: Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!(error["error"]["code"], "method-not-found", "{error}");
    sandbox.ctl(["shutdown"]).ok();
}

#[test]
fn a_newer_supervisor_may_say_more_than_is_known() {
    let sandbox = vm_of(Version {
        number: "9.1.0",
        says_more: true,
        instead: &[
            (
                "Pause",
                || json!({ "error": "io.vmrun.Machine.Hibernating", "parameters": { "message": "it hibernates", "hint": "wake it" } }),
            ),
            ("ListUsb", || json!({ "parameters": { "devices": [] } })),
            (
                "Reset",
                || json!({ "error": "org.varlink.service.MethodNotFound", "parameters": { "method": "io.vmrun.Machine.Reset" } }),
            ),
        ],
        ..Version::default()
    });
    assert!(sandbox.ctl(["status"]).ok().stdout.contains("scratch"));
    assert_eq!(sandbox.run(["ls", "--json"]).json()[0]["state"], "running");
    sandbox.ctl(["disk-add", "e.qcow2,size=1M,id=more"]).ok();
    sandbox.ctl(["wait", "running"]).ok();
    // an error that it has now
    sandbox.ctl(["pause"]).fails(1, &["vmrun: it hibernates", "hint: wake it"]);
    // what was given up, or is another now: who knows more is named
    let of = format!("the VM's supervisor is vmrun 9.1.0, and this is vmrun {}: ", env!("CARGO_PKG_VERSION"));
    sandbox.ctl(["usb-list"]).fails(1, &[&format!("{of}its reply to ListUsb cannot be read")]);
    let program =
        format!("hint: the program that started the VM knows more: {}", env!("CARGO_BIN_EXE_vmrun"));
    sandbox.ctl(["reset"]).fails(1, &[&format!("{of}it has no Reset"), &program]);
    sandbox.ctl(["shutdown"]).ok();
}
