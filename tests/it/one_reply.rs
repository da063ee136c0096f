//! Clients that know Varlink and nothing of vmrun: they find VMs by the documented files, and call streams without `more`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::guest_exec::with_agent;
use crate::support::boot_sector::Guest;
use crate::support::linux::Linux;
use crate::support::sandbox::Sandbox;
use crate::support::varlink::Raw;

fn connect(vm: &Linux) -> Raw {
    let status = vm.sandbox.ctl_json(["status"]);
    Raw::connect(&vm.sandbox.runtime().join(status["name"].as_str().unwrap()).join("control"))
}

#[track_caller]
fn good(raw: &mut Raw, method: &str, parameters: Value) -> Value {
    let answer = raw.call(&format!("io.vmrun.Machine.{method}"), parameters);
    assert!(answer.get("error").is_none() && answer.get("continues").is_none(), "{answer}");
    answer["parameters"].clone()
}

#[test]
fn exec_without_more_is_one_reply() {
    let vm = with_agent(&[]);
    let mut raw = connect(&vm);
    let exec = |raw: &mut Raw, script: &str| good(raw, "Exec", json!({ "command": ["sh", "-c", script] }));

    let done = exec(&mut raw, "echo gr\u{fc}n; echo err >&2; exit 3");
    assert_eq!(
        (&done["stdout_text"], &done["stderr_text"]),
        (&json!("gr\u{fc}n\n"), &json!("err\n")),
        "{done}"
    );
    assert_eq!((&done["stdout"], &done["stderr"]), (&json!("Z3LDvG4K"), &json!("ZXJyCg==")), "{done}");
    assert_eq!((&done["exit_code"], done.get("truncated")), (&json!(3), None), "{done}");

    // what is not text is there as bytes alone
    let done = exec(&mut raw, r"printf '\377\n'");
    assert_eq!((&done["stdout"], done.get("stdout_text")), (&json!("/wo="), None), "{done}");
    let done = exec(&mut raw, "kill -15 $$");
    assert_eq!((&done["signal"], done.get("exit_code")), (&json!(15), None), "{done}");

    // the beginning of what is more, and the end of the command itself
    let done = exec(&mut raw, "seq 1 200000; echo done > /tmp/done; exit 4");
    let text = done["stdout_text"].as_str().unwrap();
    assert!(text.starts_with("1\n2\n") && text.len() == 64 << 10, "{} bytes", text.len());
    assert_eq!((&done["truncated"], &done["exit_code"]), (&json!(true), &json!(4)));
    assert_eq!(vm.run("cat /tmp/done").trim(), "done");

    // nobody could learn the handle of its input
    let input = json!({ "command": ["cat"], "input": true });
    let answer = raw.call("io.vmrun.Machine.Exec", input);
    assert_eq!(answer["error"], "org.varlink.service.ExpectedMore", "{answer}");
    let answer = raw.call("io.vmrun.Machine.Exec", json!({ "command": ["no-such-command"] }));
    assert_eq!(answer["error"], "io.vmrun.Machine.NoSuchThing", "{answer}");

    // files of the guest
    let file = good(&mut raw, "ReadGuestFile", json!({ "path": "/tmp/done" }));
    assert_eq!(
        (&file["data"], &file["text"], &file["size_bytes"]),
        (&json!("ZG9uZQo="), &json!("done\n"), &json!(5))
    );
    let sum = vm.run("sha256sum /tmp/done");
    assert_eq!(file["sha256"], sum.split(' ').next().unwrap());
    vm.run("head -c 65536 /dev/zero > /tmp/fits; head -c 65537 /dev/zero > /tmp/large");
    let file = good(&mut raw, "ReadGuestFile", json!({ "path": "/tmp/fits" }));
    assert_eq!(file["text"].as_str().unwrap().len(), 65536);
    let answer = raw.call("io.vmrun.Machine.ReadGuestFile", json!({ "path": "/tmp/large" }));
    assert_eq!(answer["error"], "io.vmrun.Machine.NotSupported", "{answer}");
    assert!(answer["parameters"]["hint"].as_str().unwrap().contains("`more`"), "{answer}");
}

/// A client that hangs up gets no reply, so its command ends.
#[test]
fn a_command_of_a_client_that_has_gone_is_killed() {
    let vm = with_agent(&[]);
    let mut raw = connect(&vm);
    let call = json!({ "method": "io.vmrun.Machine.Exec",
        "parameters": { "command": ["sh", "-c", "echo > /tmp/begun; exec sleep 4242"] } });
    raw.send(call.to_string().as_bytes());
    vm.run("until [ -e /tmp/begun ]; do sleep 0.1; done");
    drop(raw);
    vm.run("while pgrep -f 'sleep 424[2]'; do sleep 0.1; done");
}

#[test]
fn the_console_without_more_is_what_is_there() {
    let sandbox = Sandbox::new();
    let guest = Guest::ReactsToButton;
    let name = sandbox.detached([sandbox.boot_sector(guest)]);
    sandbox.ctl(["wait", &format!("console={}", guest.greeting())]).ok();
    let mut raw = Raw::connect(&sandbox.runtime().join(name).join("control"));
    let console = good(&mut raw, "ReadConsole", json!({}));
    assert!(console["text"].as_str().unwrap().contains(guest.greeting()), "{console}");
    assert_eq!(console["skipped"], 0);
    let nothing = good(&mut raw, "ReadConsole", json!({ "from": "now" }));
    assert_eq!((&nothing["data"], &nothing["text"]), (&json!(""), &json!("")));
    let answer = raw.call("io.vmrun.Machine.ReadConsole", json!({ "follow": true }));
    assert_eq!(answer["error"], "org.varlink.service.ExpectedMore", "{answer}");
    let answer = raw.call("io.vmrun.Machine.ReadConsole", json!({ "from": "then" }));
    assert_eq!(answer["error"], "io.vmrun.Machine.InvalidArgument", "{answer}");
    sandbox.ctl(["shutdown"]).ok();
}

/// As docs/protocol.md says, with nothing but folders and sockets.
#[test]
fn the_running_vms_are_the_sockets_that_accept() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    for name in ["one", "two", "ended"] {
        sandbox.detached(["--ephemeral".as_ref(), "--name".as_ref(), name.as_ref(), image.as_os_str()]);
    }
    sandbox.ctl(["--vm", "ended", "shutdown", "--force"]).ok();
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(sandbox.runtime()).unwrap() {
        let folder = entry.unwrap();
        let Some(mut raw) = Raw::try_connect(&folder.path().join("control")) else { continue };
        let status = good(&mut raw, "GetStatus", json!({}))["status"].clone();
        assert_eq!(status["name"], *folder.file_name().to_str().unwrap());
        assert_eq!(status["state"], "running");
        found.insert(status["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(found, ["one", "two"].map(str::to_owned).into());
    let listed = sandbox.run(["ls", "--json"]).json();
    let listed: BTreeSet<String> =
        listed.as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, listed);
    for name in ["one", "two"] {
        sandbox.ctl(["--vm", name, "shutdown"]).ok();
    }
}
