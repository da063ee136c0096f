//! What users of docker type: commands with the VM's name in front, short flags, `$VMRUN_VM`.

use serde_json::{Value, json};

use crate::guest_exec::with_agent;
use crate::support::boot_sector::Guest;
use crate::support::processes::qemu_of;
use crate::support::sandbox::{Done, Sandbox};

/// A VM that does nothing, under a name.
fn idle(sandbox: &Sandbox, name: &str) {
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    sandbox.detached([image.to_str().unwrap(), "--ephemeral", "--name", name]);
}

fn names(sandbox: &Sandbox) -> String {
    sandbox.run(["ps", "--quiet"]).ok().stdout
}

#[test]
fn vms_are_listed_stopped_and_killed_by_their_names() {
    let sandbox = Sandbox::new();
    for name in ["a", "b", "c", "d"] {
        idle(&sandbox, name);
    }
    assert_eq!(names(&sandbox), "a\nb\nc\nd\n");
    sandbox.ctl(["--vm", "a", "wait", &format!("console={}", Guest::ReactsToButton.greeting())]).ok();
    let stopped = sandbox.run(["stop", "a", "--timeout", "60s"]).ok();
    assert!(stopped.stdout.contains("the guest followed the power button"), "{stopped:#?}");
    // forced off as wanted is a success
    let killed = sandbox.run(["kill", "b"]).ok();
    assert!(killed.stdout.contains("QEMU was told to quit"), "{killed:#?}");
    sandbox.run(["kill", "b", "--json", "nobody"]).fails(3, &["nobody"]);
    sandbox.run(["shutdown", "b", "--if-running"]).ok();
    sandbox.run(["kill", "--if-running", "nobody", "b"]).ok();
    sandbox.run(["shutdown", "--all", "a"]).fails(2, &["--all"]);
    let all = sandbox.run(["shutdown", "--all", "--force", "--json"]).json();
    assert_eq!((&all[0]["name"], &all[1]["name"]), (&json!("c"), &json!("d")), "{all}");
    assert_eq!(all[0]["outcome"]["ending"], "quit", "{all}");
    assert_eq!(names(&sandbox), "");
    // nothing to shut down is as it should be
    let none = sandbox.run(["shutdown", "--all"]).ok();
    assert!(none.stderr.contains("no VM is running"), "{none:#?}");
    assert_eq!(sandbox.run(["kill", "--all", "--json"]).json(), json!([]));
    sandbox.run(["rm", "a"]).ok();
    sandbox.is_clean();
}

#[test]
fn a_forced_shutdown_and_one_of_a_vm_that_is_off_succeed() {
    let sandbox = Sandbox::new();
    sandbox.ctl(["shutdown"]).fails(3, &["no VM is running"]);
    sandbox.ctl(["shutdown", "--if-running"]).ok();
    sandbox.ctl(["--vm", "x", "shutdown", "--if-running"]).ok();
    idle(&sandbox, "x");
    let outcome = sandbox.ctl_json(["shutdown", "--force", "--if-running"]);
    // the VM's own outcome is what it is
    assert_eq!((&outcome["ending"], &outcome["exit_code"]), (&json!("quit"), &json!(12)));
    // one that was forced off a moment ago is off, whoever did it
    assert_eq!(sandbox.ctl(["--vm", "x", "shutdown"]).code, 12);
    assert_eq!(sandbox.ctl_json(["--vm", "x", "shutdown", "--if-running"]), Value::Null);
    // having to be forced is another end
    let image = sandbox.boot_sector(Guest::IgnoresButton);
    sandbox.detached([image.to_str().unwrap(), "--ephemeral"]);
    sandbox.booted("guest");
    assert_eq!(sandbox.ctl(["shutdown", "-t", "1"]).code, 12);
}

#[test]
fn short_flags_are_those_of_docker_and_qemu() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let started =
        sandbox.run(["qemu", "-d", "-n", "web", "-m", "64", "-c2", "-p", "0:80", image.to_str().unwrap()]);
    assert_eq!(started.line(), "web");
    let status = &sandbox.run(["inspect", "web"]).json()[0];
    assert_eq!(
        (&status["name"], &status["cpus"], &status["memory_bytes"]),
        (&json!("web"), &json!(2), &json!(64 << 20))
    );
    let qemu = std::fs::read(format!("/proc/{}/cmdline", qemu_of(sandbox.path()))).unwrap();
    let qemu = String::from_utf8_lossy(&qemu).replace('\0', " ");
    assert!(qemu.contains("-smp 2") || qemu.contains("-smp cpus=2"), "{qemu}");
    assert_eq!(status["forwards"][0]["guest_port"], 80, "{status}");
    sandbox.run(["inspect", "web", "nobody"]).fails(3, &["nobody"]);
    // what QEMU's own program would understand is never taken for a bundle of short flags
    for flags in [&["-name", "x"][..], &["-nographic"], &["-vnc", ":1"], &["-hda"], &["-netdev", "user,id=n"]]
    {
        let words = ["qemu", "--dry-run"].iter().chain(flags).copied().chain([image.to_str().unwrap()]);
        let refused =
            sandbox.run(words).fails(2, &[flags[0], "a flag of QEMU's own program", "hint: here it is"]);
        assert_eq!(refused.stdout, "");
    }
    sandbox.run(["kill"]).ok();
}

#[test]
fn a_variable_names_the_vm() {
    let sandbox = Sandbox::new();
    idle(&sandbox, "one");
    idle(&sandbox, "two");
    let with = |value: &str, words: &[&str]| {
        Done::of(sandbox.vmrun().env("VMRUN_VM", value).args(words).output().unwrap())
    };
    let name = |done: Done| done.json()["name"].clone();
    assert_eq!(name(with("two", &["ctl", "--json", "status"])), "two");
    // the command's own word counts, and an empty variable does not
    assert_eq!(name(with("two", &["ctl", "--json", "--vm", "one", "status"])), "one");
    with("", &["ctl", "status"]).fails(2, &["several VMs are running: one, two", "VMRUN_VM=one"]);
    with("three", &["ctl", "status"]).fails(3, &["no VM 'three' is running", "$VMRUN_VM"]);
    with("../x", &["ctl", "status"]).fails(2, &["$VMRUN_VM", "'../x'"]);
    with("one", &["logs"]).ok();
    // by flag or by place
    sandbox.run(["logs", "--vm", "one"]).ok();
    sandbox.run(["logs", "--vm", "one", "two"]).fails(2, &["--vm"]);
    sandbox.run(["console", "--vm", "three"]).fails(3, &["no VM 'three'"]);
    sandbox.ctl(["--vm", "", "status"]).fails(2, &["--vm: the name is empty", "variable"]);
    sandbox.run(["logs", ""]).fails(2, &["the name is empty", "variable"]);
    with("two", &["shutdown", "--force"]).ok();
    assert_eq!(names(&sandbox), "one\n");
    // a VM's name in a command's place
    sandbox.ctl(["one", "status"]).fails(2, &["hint: `vmrun ctl --vm one status`"]);
    sandbox.run(["one"]).fails(2, &["hint: `vmrun ctl --vm one status`"]);
    sandbox.run(["kill", "--all"]).ok();
}

#[test]
fn where_no_vm_was_found_is_told() {
    let sandbox = Sandbox::new();
    let list = sandbox.run(["ls"]).ok();
    assert_eq!(list.stdout, "");
    assert!(
        list.stderr.contains(&format!("no VM is running in {}", sandbox.runtime().display())),
        "{list:#?}"
    );
    assert_eq!(sandbox.run(["ls", "--json"]).json(), json!([]));
    sandbox
        .run(["qemu", "https://example.org/x.qcow2"])
        .fails(2, &["does not download", "curl -LO https://"]);
    sandbox.run(["qemu", "--cpus", "two", "x"]).fails(2, &["--cpus: 'two' is not a number"]);
}

#[test]
fn commands_and_files_go_into_a_guest_by_its_name() {
    let vm = with_agent(&["--name", "web"]);
    let run = |words: &[&str]| vm.sandbox.run(words);
    assert_eq!(run(&["exec", "web", "echo", "-n", "--json"]).ok().stdout, "--json");
    assert_eq!(run(&["exec", "-e", "A=b", "web", "sh", "-c", "echo $A; exit 3"]).code, 3);
    assert_eq!(run(&["exec", "--json", "web", "echo", "x"]).json()["stdout"], "x\n");
    let mut typed = vm.sandbox.vmrun();
    std::fs::write(vm.sandbox.file("typed"), "typed").unwrap();
    let file = std::fs::File::open(vm.sandbox.file("typed")).unwrap();
    typed.args(["exec", "--stdin", "web", "cat"]).stdin(file);
    assert_eq!(Done::of(typed.output().unwrap()).ok().stdout, "typed");
    run(&["exec", "nobody", "true"]).fails(3, &["nobody"]);
    run(&["cp", "typed", "web:/tmp/there"]).ok();
    assert_eq!(vm.run("cat /tmp/there"), "typed");
    let json = run(&["cp", "--json", "web:/tmp/there", "back"]).json();
    assert_eq!(json["size_bytes"], 5, "{json}");
    assert_eq!(std::fs::read_to_string(vm.sandbox.file("back")).unwrap(), "typed");
    assert_eq!(run(&["cp", "--agent-timeout", "5s", "web:/tmp/there", "-"]).ok().stdout, "typed");
    // what a command has written until its time was over is not lost
    let late = run(&["exec", "--json", "--timeout", "1s", "web", "sh", "-c", "echo early; exec sleep 100"]);
    late.fails(5, &["did not end within 1s"]);
    let late = run(&["exec", "--json", "--timeout", "1s", "web", "sh", "-c", "echo early; exec sleep 100"]);
    let facts: Value = serde_json::from_str(&late.stdout).unwrap();
    assert_eq!((&facts["stdout"], &facts["exit_code"]), (&json!("early\n"), &Value::Null));
    run(&["cp", "typed", "back"]).fails(2, &["neither side", "NAME:PATH"]);
    run(&["cp", "web:/a", "web:/b"]).fails(2, &["both sides"]);
    run(&["cp", ":/a", "b"]).fails(2, &["the name is empty", "./:/a"]);
    // the guest may go down while a command runs, because of it for example
    let down = run(&["exec", "web", "sh", "-c", "poweroff -f; sleep 100"]);
    down.fails(3, &["the guest went down while 'sh' ran", "hint: `vmrun ctl shutdown`"]);
}
