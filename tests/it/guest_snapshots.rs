//! Snapshots of a real guest: what is in its memory and on its disks comes back.

use serde_json::{Value, json};

use crate::support::linux::Linux;
use crate::support::sandbox::Sandbox;

/// A guest with a qcow2 disk, on which something is written.
fn guest(options: &[&str]) -> Linux {
    let mut all = vec!["--disk", "disk.qcow2,size=1G,serial=KEPT,id=kept"];
    all.extend(options);
    let vm = Linux::boot(all);
    vm.sees_disk("KEPT");
    vm
}

/// What the guest has in its memory, and at the beginning of its disk.
fn marks(vm: &Linux) -> (String, String) {
    // past the guest's cache, which belongs to its memory
    let disk = "dd if=/dev/vda bs=512 count=1 iflag=direct 2>/dev/null | head -c 3";
    (vm.run("cat /tmp/mark"), vm.run(disk))
}

fn mark(vm: &Linux, word: &str) {
    vm.run(&format!(
        "mkdir -p /tmp; echo -n {word} > /tmp/mark; dd if=/dev/zero of=/dev/vda bs=512 count=1 conv=notrunc,fsync; \
         printf {word} | dd of=/dev/vda conv=notrunc,fsync"
    ));
}

fn both(word: &str) -> (String, String) {
    (word.to_owned(), word.to_owned())
}

#[test]
fn memory_and_disks_come_back() {
    let vm = guest(&[]);
    mark(&vm, "one");
    assert_eq!(vm.ctl(["snapshot-save", "first"]), "first");
    assert_eq!(vm.status()["state"], "running");
    mark(&vm, "two");
    assert_eq!(marks(&vm), both("two"));
    // a paused VM stays paused
    vm.ctl(["pause"]);
    vm.ctl(["snapshot-save", "second"]);
    assert_eq!(vm.status()["state"], "paused");

    let list = vm.list("snapshot-list");
    let names: Vec<&Value> = list.iter().map(|snapshot| &snapshot["name"]).collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!((&list[0]["disks"], &list[0]["loadable"]), (&json!(["kept"]), &json!(true)));
    assert!(list[0]["state_bytes"].as_u64().unwrap() > 1 << 20, "{list:?}");
    let table = vm.ctl(["snapshot-list"]);
    assert!(table.starts_with("NAME ") && table.contains(" MiB  kept   yes"), "{table}");

    vm.ctl(["snapshot-load", "first"]);
    assert_eq!(vm.status()["state"], "paused");
    vm.ctl(["resume"]);
    assert_eq!(marks(&vm), both("one"));
    vm.ctl(["snapshot-load", "second"]);
    assert_eq!(vm.status()["state"], "running");
    assert_eq!(marks(&vm), both("two"));
    // the agent, and what is plugged later, go on
    vm.ctl(["wait", "agent", "--timeout", "60s"]);
    vm.ctl(["exec", "--", "true"]);
    vm.ctl(["disk-add", "later.qcow2,size=64M,serial=LATER,id=later"]);
    vm.sees_disk("LATER");

    // now there is a disk that the snapshots do not have
    let missing = vm.list("snapshot-list");
    assert_eq!((&missing[0]["missing"], &missing[0]["loadable"]), (&json!(["later"]), &json!(false)));
    vm.try_ctl(["snapshot-load", "first"]).fails(4, &["not on all disks", "later", "hint"]);
    vm.ctl(["disk-remove", "later"]);

    vm.try_ctl(["snapshot-save", "first"]).fails(4, &["already", "--overwrite"]);
    mark(&vm, "six");
    vm.ctl(["snapshot-save", "first", "--overwrite"]);
    mark(&vm, "two");
    vm.ctl(["snapshot-load", "first"]);
    assert_eq!(marks(&vm), both("six"));
    for method in ["snapshot-load", "snapshot-delete"] {
        vm.try_ctl([method, "frist"]).fails(4, &["no snapshot 'frist'", "did you mean 'first'?"]);
    }
    assert_eq!(vm.ctl(["snapshot-delete", "second"]), "deleted second");
    assert_eq!(vm.list("snapshot-list").len(), 1);
    assert_eq!(vm.status()["state"], "running");
    assert_eq!(vm.sandbox.ctl_json(["qmp", "query-jobs"]), json!([]));
    vm.ctl(["shutdown", "--timeout", "60s"]);
    vm.end().1.is_clean();
}

#[test]
fn other_devices_are_told_before_anything_is_loaded() {
    let vm = guest(&["--usb"]);
    vm.ctl(["usb-add", "usb-kbd", "--id", "keys"]);
    mark(&vm, "one");
    vm.ctl(["snapshot-save", "keyboard"]);
    vm.ctl(["usb-remove", "keys"]);
    mark(&vm, "two");
    vm.try_ctl(["snapshot-load", "keyboard"])
        .fails(4, &["other devices", "it has 'keys' (usb-kbd at USB port 1)", "hint"]);
    vm.ctl(["usb-add", "usb-tablet", "--id", "pen"]);
    vm.try_ctl(["snapshot-load", "keyboard"])
        .fails(4, &["'keys' (usb-kbd at USB port 1)", "'pen' (usb-tablet at USB port 2)"]);
    assert_eq!((vm.status()["state"].as_str(), marks(&vm)), (Some("running"), both("two")));
    // the same device at another port is another to QEMU
    vm.ctl(["usb-remove", "pen"]);
    vm.ctl(["usb-add", "usb-kbd", "--id", "keys"]);
    vm.try_ctl(["snapshot-load", "keyboard"]).fails(4, &["USB port 1", "USB port 3"]);
    vm.ctl(["usb-remove", "keys"]);
    // QEMU's own error, where it is unknown what the snapshot was made with
    std::fs::remove_file(vm.file("state/snapshots.json")).unwrap();
    vm.try_ctl(["snapshot-load", "keyboard"])
        .fails(4, &["QEMU refused snapshot-load: ", "memory is inconsistent", "reset"]);
    let status = vm.status();
    assert_eq!(status["state"], "paused");
    assert!(status["reason"].as_str().unwrap().contains("inconsistent"), "{status}");
    vm.ctl(["usb-add", "usb-kbd,port=1", "--id", "keys"]);
    vm.ctl(["snapshot-load", "keyboard"]);
    vm.ctl(["resume"]);
    assert_eq!(marks(&vm), both("one"));
    vm.quit();
}

#[test]
fn what_cannot_be_in_a_snapshot_is_told_before_it_begins() {
    let vm = Linux::boot::<&str>([]);
    vm.try_ctl(["snapshot-save", "x"]).fails(4, &["no disk", "disk-add"]);
    assert_eq!(vm.sandbox.ctl_json(["snapshot-list"]), json!([]));
    vm.ctl(["disk-add", "q.qcow2,size=1G,id=q"]);
    vm.ctl(["disk-add", "r.img,size=1M,id=r"]);
    vm.try_ctl(["snapshot-save", "x"]).fails(4, &["only qcow2", "'r' (raw", "r.img", "readonly=on"]);
    vm.ctl(["disk-remove", "r"]);
    vm.ctl(["disk-add", "r.img,id=r,readonly=on"]);
    vm.ctl(["snapshot-save", "x"]);
    vm.ctl(["usb-add", "usb-uas,id=uas"]);
    let before = vm.ctl(["status"]);
    vm.try_ctl(["snapshot-save", "y"]).fails(4, &["usb-uas", "unplug it first: uas"]);
    assert!(before.contains("running"));
    vm.ctl(["usb-remove", "uas"]);
    vm.ctl(["snapshot-delete", "x"]);
    vm.quit();
}

#[test]
fn ephemeral_disks_can_be_in_it() {
    let vm = Linux::boot(["--ephemeral", "--disk", "plain.img,size=64M,serial=KEPT,format=raw"]);
    vm.sees_disk("KEPT");
    mark(&vm, "one");
    vm.ctl(["snapshot-save", "first"]);
    mark(&vm, "two");
    vm.ctl(["snapshot-load", "first"]);
    assert_eq!(marks(&vm), both("one"));
    let sandbox = vm.quit();
    assert!(std::fs::read(sandbox.file("plain.img")).unwrap().iter().all(|byte| *byte == 0));
}

/// Their file is raw, and their content part of the machine's state.
#[test]
fn the_firmwares_variables_are_in_it() {
    let sandbox = Sandbox::new();
    let mut make = std::process::Command::new("qemu-img");
    make.args(["create", "-q", "-f", "qcow2"]).arg(sandbox.file("empty.qcow2")).arg("64M");
    assert!(make.status().unwrap().success());
    let vm = sandbox.foreground(["--uefi", "--networking", "none", "empty.qcow2"]);
    vm.wait_for("BdsDxe");
    let vars = || std::fs::read(sandbox.file("empty-state/uefi-vars.fd")).unwrap();
    sandbox.ctl(["snapshot-save", "first"]).ok();
    let before = vars();
    sandbox.ctl(["snapshot-load", "first"]).ok();
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    assert!(vars() == before);
    sandbox.ctl(["shutdown", "--force"]).ok();
    vm.end();
}

/// What QEMU says of it differs between its versions: the guest must not run whatever that is.
#[test]
fn a_snapshot_whose_memory_cannot_be_read_leaves_the_guest_stopped() {
    let sandbox = Sandbox::new();
    let image = sandbox.file("disk.qcow2");
    let mut make = std::process::Command::new("qemu-img");
    make.args(["create", "-q", "-f", "qcow2"]).arg(&image).arg("8M");
    assert!(make.status().unwrap().success());
    let start = || sandbox.detached(["--networking", "none", "--mem", "32", "disk.qcow2"]);
    let qemu = |command: &str| sandbox.ctl_json(["qmp", &format!("{{\"execute\": \"{command}\"}}")]);
    start();
    sandbox.ctl(["snapshot-save", "whole"]).ok();
    sandbox.ctl(["shutdown", "--force"]).ok();

    let good = std::fs::read(&image).unwrap();
    let state = good.windows(4).position(|word| word == b"QEVM").expect("the state of a machine");
    // its beginning, and the guest's memory
    for offset in [0, 0x20000] {
        let mut bad = good.clone();
        bad[state + offset..state + offset + 4096].iter_mut().for_each(|byte| *byte ^= 0xff);
        std::fs::write(&image, bad).unwrap();
        start();
        sandbox.ctl(["snapshot-load", "whole"]).fails(4, &["memory is inconsistent", "hint:", "reset"]);
        assert_eq!(qemu("query-status")["running"], false);
        assert_eq!(qemu("query-jobs"), serde_json::json!([]));
        let status = sandbox.ctl_json(["status"]);
        assert_eq!(status["state"], "paused");
        sandbox.ctl(["shutdown", "--force"]).ok();
    }
    std::fs::write(&image, good).unwrap();
    start();
    sandbox.ctl(["snapshot-load", "whole"]).ok();
    assert_eq!(qemu("query-status")["running"], true);
    sandbox.ctl(["shutdown", "--force"]).ok();
}
