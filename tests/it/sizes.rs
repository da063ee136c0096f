//! Existing images with a given size; and images that another process has.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::boot_sector::{self, Guest};
use crate::support::processes::qemu_of;
use crate::support::sandbox::Sandbox;

const MIB: u64 = 1 << 20;

/// How large QEMU's disk with this id is, and the file in it.
fn disk(sandbox: &Sandbox, id: &str) -> (u64, String) {
    let reply = sandbox.ctl(["qmp", r#"{"execute":"query-named-block-nodes"}"#]).json();
    let node = reply.as_array().unwrap().iter().find(|node| node["node-name"] == id);
    let image = &node.unwrap_or_else(|| panic!("no {id} in {reply}"))["image"];
    (image["virtual-size"].as_u64().unwrap(), image["filename"].as_str().unwrap().to_owned())
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[test]
fn an_image_that_is_there_keeps_its_size_unless_it_is_to_grow() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::IgnoresButton);
    let qemu_img = |words: &[&str]| {
        assert!(Command::new("qemu-img").args(words).current_dir(sandbox.path()).status().unwrap().success());
    };
    qemu_img(&["create", "-q", "-f", "qcow2", "b.qcow2", "1M"]);
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "top.qcow2"]);
    for (boot, told, bytes) in [
        ("guest.img,size=2M", "guest.img is smaller than `size=2M`", MIB),
        ("guest.img,size=2M", "hint: `grow=on` makes it larger", MIB),
        ("guest.img,size=512K", "guest.img is larger than `size=512K`", MIB),
        ("guest.img,size=3M,grow=on", "", 3 * MIB),
        ("guest.img,size=3M", "", 3 * MIB),
    ] {
        let vm = sandbox.foreground([boot, "--disk", "top.qcow2,size=4M,grow=on,id=top"]);
        vm.wait_for(Guest::IgnoresButton.greeting());
        assert_eq!((disk(&sandbox, "disk0").0, size(&image)), (bytes, bytes), "{boot}");
        assert_eq!(disk(&sandbox, "top").0, 4 * MIB);
        sandbox.ctl(["shutdown", "--force"]).ok();
        let ended = vm.end();
        assert!(ended.stderr.contains(told), "{boot}: {ended:#?}");
        assert_eq!(told.is_empty(), !ended.stderr.contains("size="), "{boot}: {ended:#?}");
    }
    // thrown away at the end, and so is what it has grown
    let vm = sandbox.foreground(["--ephemeral", "guest.img,size=5M,grow=on"]);
    vm.wait_for(Guest::IgnoresButton.greeting());
    assert_eq!((disk(&sandbox, "disk0").0, size(&image)), (5 * MIB, 3 * MIB));
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn a_disk_that_is_plugged_grows_as_well() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::IgnoresButton);
    std::fs::write(sandbox.file("a.img"), vec![7; MIB as usize]).unwrap();
    sandbox.detached(["guest.img"]);
    let added = sandbox.ctl(["disk-add", "a.img,size=2M,id=a"]).ok();
    assert!(added.stderr.contains("a.img was there, and is smaller than `size=`"), "{added:#?}");
    assert_eq!(disk(&sandbox, "a").0, MIB);
    let args = ["disk-add", "b.img,size=2M,id=b"];
    assert_eq!(sandbox.ctl(args).ok().stderr, "");
    let image = sandbox.file("c.img");
    std::fs::write(&image, vec![7; MIB as usize]).unwrap();
    let added = sandbox.ctl_json(["disk-add", "c.img,size=2M,grow=on,id=c"]);
    assert_eq!(added["size_bytes"], 2 * MIB);
    assert_eq!((disk(&sandbox, "c").0, size(&image)), (2 * MIB, 2 * MIB));
    assert!(std::fs::read(&image).unwrap().starts_with(&[7; MIB as usize]));
    sandbox.ctl(["disk-add", "c2.img,grow=on"]).fails(2, &["grow=on needs a size"]);
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn who_has_an_image_is_named_whatever_wants_it() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::IgnoresButton);
    boot_sector::write(Guest::IgnoresButton, &sandbox.file("other.img"));
    sandbox.detached(["--name", "owner", "guest.img"]);
    sandbox.detached(["--name", "other", "--usb", "other.img"]);
    let add = |words: &[&str]| sandbox.ctl([&["--vm", "other"], words].concat());
    let guest = sandbox.file("guest.img");
    let file = guest.to_str().unwrap();
    let named = ["guest.img is in use by VM 'owner'", "hint: end that first"];
    add(&["disk-add", "guest.img"]).fails(4, &named);
    add(&["usb-add", &format!("file={file}")]).fails(4, &named);
    add(&["disk-add", "guest.img,size=9M,grow=on"]).fails(1, &[named[0], "cannot make"]);
    sandbox.run(["qemu", "--state", "s", "guest.img,size=9M,grow=on"]).fails(1, &named[..1]);
    assert_eq!(size(&guest), MIB);
    // what it does with the image is what the kernel says: an ephemeral VM writes to a disk that is added to it
    boot_sector::write(Guest::IgnoresButton, &sandbox.file("third.img"));
    sandbox.detached(["--name", "third", "--ephemeral", "third.img"]);
    sandbox.ctl(["--vm", "third", "disk-add", "own.img,size=1M"]).ok();
    let refused = add(&["disk-add", "own.img"]);
    assert!(!refused.stderr.contains("--ephemeral") && !refused.stderr.contains("Failed to"), "{refused:?}");
    refused.fails(4, &["own.img is in use by VM 'third', which writes to it", "hint: end that first"]);
    let reads = ["third.img is in use by VM 'third', which only reads it", "readonly=on"];
    add(&["disk-add", "third.img"]).fails(4, &reads);
    sandbox.ctl(["--vm", "third", "shutdown", "--force"]).ok();
    // nothing of it is left
    let disks: Vec<Value> = serde_json::from_value(add(&["--json", "disk-list"]).json()).unwrap();
    assert_eq!(disks.len(), 1, "{disks:?}");
    let qemu = qemu_of_vm(&sandbox, "owner");
    // a user without a VM here
    let elsewhere = Sandbox::new();
    elsewhere.boot_sector(Guest::IgnoresButton);
    elsewhere.detached(["guest.img"]);
    // as the kernel calls it: a QEMU that brings its own libraries is started by its own loader
    let comm = std::fs::read_to_string(format!("/proc/{qemu}/comm")).unwrap();
    let by = format!("is in use by process {qemu} ({})", comm.trim_end());
    elsewhere.ctl(["disk-add", file]).fails(4, &[&by]);
    assert_ne!(i64::from(qemu_of(elsewhere.path())), qemu);
}

fn qemu_of_vm(sandbox: &Sandbox, name: &str) -> i64 {
    sandbox.ctl_json(["--vm", name, "status"])["qemu_pid"].as_i64().unwrap()
}
