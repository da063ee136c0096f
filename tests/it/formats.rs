//! What is once opened as raw stays raw for every VM; what is no disk is refused by its name; and no file's name makes vmrun wait.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use nix::sys::stat::Mode;

use crate::support::boot_sector::Guest;
use crate::support::cd;
use crate::support::processes::qemu_of;
use crate::support::sandbox::{Done, Sandbox};

/// A sandbox whose `data.img` was a raw disk of a VM, whose guest has then written a qcow2 header to it that leads to `secret`.
struct Written {
    sandbox: Sandbox,
}

impl Written {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.boot_sector(Guest::Halted);
        std::fs::write(sandbox.file("data.img"), vec![0; 1 << 20]).unwrap();
        std::fs::write(sandbox.file("secret"), vec![b's'; 1 << 20]).unwrap();
        sandbox.detached(["--disk", "data.img", "guest.img"]);
        sandbox.ctl(["shutdown", "--force"]);
        let written = Self { sandbox };
        written.guest_writes();
        // other VMs are others' state directories
        std::fs::copy(written.sandbox.file("guest.img"), written.sandbox.file("other.img")).unwrap();
        written
    }

    /// As the guest would: in place.
    fn guest_writes(&self) {
        let option = format!("data_file={},data_file_raw=on", self.sandbox.file("secret").display());
        let made = self.sandbox.file("header");
        let output = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-o", &option])
            .arg(&made)
            .arg("1M")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        std::fs::write(self.sandbox.file("secret"), vec![b's'; 1 << 20]).unwrap();
        let header = std::fs::read(made).unwrap();
        let file = std::fs::File::options().write(true).open(self.sandbox.file("data.img")).unwrap();
        file.write_all_at(&header, 0).unwrap();
    }

    /// That QEMU has it as raw, and not the file that it leads to.
    #[track_caller]
    fn is_raw(&self, how: &str) {
        let nodes = self
            .sandbox
            .ctl_json(["qmp", r#"{"execute":"query-named-block-nodes","arguments":{"flat":true}}"#]);
        let image = self.sandbox.file("data.img").display().to_string();
        let formats: Vec<&str> = nodes
            .as_array()
            .unwrap()
            .iter()
            .filter(|node| node["file"] == image.as_str() && node["drv"] != "file")
            .map(|node| node["drv"].as_str().unwrap())
            .collect();
        assert_eq!(formats, ["raw"], "{how}: {nodes:#}");
        let secret = self.sandbox.file("secret");
        let open = std::fs::read_dir(format!("/proc/{}/fd", qemu_of(self.sandbox.path()))).unwrap().flatten();
        let leads: Vec<PathBuf> = open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
        assert!(leads.contains(&self.sandbox.file("data.img")), "{how}: {leads:?}");
        assert!(!leads.contains(&secret), "{how}: {leads:?}");
        self.sandbox.ctl(["shutdown", "--force"]);
    }

    fn forget_store(&self) {
        std::fs::remove_dir_all(self.sandbox.state_home().join("vmrun")).unwrap();
    }

    fn forget_mark(&self) {
        xattr::remove(self.sandbox.file("data.img"), "user.vmrun.format").unwrap();
    }
}

/// All the ways in which another VM can get the image, each with what says what it is.
fn every_way(written: &Written) {
    let sandbox = &written.sandbox;
    let start = |arguments: &[&str], how: &str| {
        let started = sandbox.run([&["qemu", "--detached"], arguments].concat()).ok();
        assert!(started.stderr.contains("stays raw"), "{how}: {started:?}");
        written.is_raw(how);
    };
    start(&["--disk", "data.img", "--state", "elsewhere", "guest.img"], "another state directory");
    start(&["--disk", "data.img", "other.img"], "another VM");
    start(&["data.img"], "as the image itself");
    // the overlay is qcow2, what is under it is raw
    let ephemeral =
        sandbox.run(["qemu", "--detached", "--ephemeral", "--disk", "data.img", "guest.img"]).ok();
    assert!(ephemeral.stderr.contains("stays raw"), "{ephemeral:?}");
    written.is_raw("ephemeral");
    sandbox.detached(["--ephemeral", "other.img"]);
    assert_eq!(sandbox.ctl_json(["disk-add", "data.img"])["format"], "raw");
    written.is_raw("disk-add");
    sandbox.detached(["--usb", "other.img"]);
    sandbox.ctl(["usb-add", "file=data.img"]).ok();
    written.is_raw("usb-add");
    let plan = sandbox.run(["qemu", "--dry-run", "--disk", "data.img", "other.img"]).ok();
    assert!(!plan.stdout.contains("qcow2"), "{plan:?}");
}

#[test]
fn a_raw_image_stays_raw_in_every_vm() {
    every_way(&Written::new());
}

#[test]
fn the_image_alone_knows_that_it_is_raw() {
    let written = Written::new();
    written.forget_store();
    every_way(&written);
}

#[test]
fn the_users_store_alone_knows_that_an_image_is_raw() {
    let written = Written::new();
    written.forget_mark();
    written.sandbox.detached(["--ephemeral", "--disk", "data.img", "guest.img"]);
    written.is_raw("ephemeral");
    // a mark that says anything else says nothing
    xattr::set(written.sandbox.file("data.img"), "user.vmrun.format", b"qcow2").unwrap();
    written.sandbox.detached(["--ephemeral", "--disk", "data.img", "guest.img"]);
    written.is_raw("with a mark that lies");
}

#[test]
fn what_older_versions_remembered_counts() {
    let written = Written::new();
    written.forget_store();
    written.forget_mark();
    let facts = std::fs::metadata(written.sandbox.file("data.img")).unwrap();
    let born = facts.created().unwrap().duration_since(UNIX_EPOCH).unwrap();
    let key = format!("inode {} born {}.{:09}", facts.ino(), born.as_secs(), born.subsec_nanos());
    std::fs::write(written.sandbox.file("guest-state/formats.json"), format!("{{\"{key}\":\"raw\"}}"))
        .unwrap();
    written.sandbox.detached(["--disk", "data.img", "guest.img"]);
    written.is_raw("by the list in the state directory");
    // and from then on for every VM
    every_way(&written);
}

#[test]
fn a_format_is_said_anew() {
    let written = Written::new();
    let sandbox = &written.sandbox;
    let allow = ["--allow-backing", "."];
    for arguments in [
        vec!["--disk", "data.img,format=qcow2,readonly=on", "guest.img"],
        vec!["--disk", "data.img,readonly=on", "other.img"],
    ] {
        sandbox.detached([&allow[..], &arguments].concat());
        assert_eq!(sandbox.ctl_json(["disk-list"])[1]["format"], "qcow2", "{arguments:?}");
        sandbox.ctl(["shutdown", "--force"]);
    }
    // and of the image itself
    sandbox.detached(["other.img,format=raw,bus=sata"]);
    let disk = &sandbox.ctl_json(["disk-list"])[0];
    assert_eq!((disk["format"].as_str(), disk["bus"].as_str()), (Some("raw"), Some("sata")));
    sandbox.ctl(["shutdown", "--force"]);
}

#[test]
fn a_store_that_others_could_have_written_to_is_not_believed() {
    let written = Written::new();
    written.forget_mark();
    let store = written.sandbox.state_home().join("vmrun");
    std::fs::set_permissions(&store, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let start = ["qemu", "--ephemeral", "--disk", "data.img", "other.img"];
    written.sandbox.run(start).fails(1, &["cannot be looked up", "hint: "]);
    // what is raw to look at needs no memory
    written.sandbox.detached(["other.img"]);
    written.sandbox.ctl(["shutdown", "--force"]);
}

#[test]
fn a_wrapped_vms_raw_disk_is_remembered() {
    let written = Written::new();
    written.forget_mark();
    written.forget_store();
    let sandbox = &written.sandbox;
    let drive = format!("if=virtio,format=raw,file={}", sandbox.file("data.img").display());
    let mut wrapped = sandbox.vmrun();
    wrapped.args([
        "wrap",
        "--name",
        "w",
        "--",
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-display",
        "none",
        "-drive",
        &drive,
    ]);
    let mut child = wrapped.spawn().unwrap();
    crate::support::processes::eventually("the wrapped VM is there", || {
        sandbox.ctl(["--vm", "w", "status"]).code == 0
    });
    sandbox.ctl(["--vm", "w", "shutdown", "--force"]);
    child.wait().unwrap();
    sandbox.detached(["--ephemeral", "--disk", "data.img", "guest.img"]);
    written.is_raw("after it was a disk of a wrapped VM");
}

/// Files that are no disks, with what they are called.
fn no_disks(sandbox: &Sandbox) -> Vec<(PathBuf, &'static str)> {
    let write = |name: &str, offset: usize, mark: &[u8]| {
        let mut bytes = vec![0; 64 << 10];
        bytes[offset..offset + mark.len()].copy_from_slice(mark);
        let path = sandbox.file(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    vec![
        (write("a.xz", 0, b"\xfd7zXZ\0"), "xz -dk"),
        (write("a.gz", 0, b"\x1f\x8b\x08"), "gunzip -k"),
        (write("a.zst", 0, b"\x28\xb5\x2f\xfd"), "zstd -d"),
        (write("a.bz2", 0, b"BZh91AY&SY"), "bunzip2 -k"),
        (write("a.zip", 0, b"PK\x03\x04"), "unzip"),
        (write("a.tar", 257, b"ustar"), "tar -xf"),
        (write("vmlinuz", 0x202, b"HdrS"), "a Linux kernel"),
        (write("page.img", 0, b"<!DOCTYPE html>"), "a web page"),
        (write("p.hdd", 0, b"WithoutFreeSpace"), "qemu-img convert -f parallels"),
        (write("b.img", 0, b"Bochs Virtual HD Image"), "qemu-img convert -f bochs"),
        (write("q.img", 0, b"QFI\xfb\0\0\0\x01"), "qemu-img convert -f qcow"),
        (write("a.dmg", 0, b""), "qemu-img convert -f dmg"),
    ]
}

#[test]
fn what_is_no_disk_is_refused_by_its_name() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    cd::write(Guest::Halted, &sandbox.file("first.iso"));
    sandbox.detached(["--usb", "--name", "vm", "first.iso"]);
    for (path, help) in no_disks(&sandbox) {
        let name = path.display().to_string();
        let words = [help, "hint: ", "format=raw"];
        let before = std::fs::read(&path).unwrap();
        // a kernel as IMAGE boots
        let is_at = |at: usize, mark: &[u8]| before.get(at..).is_some_and(|rest| rest.starts_with(mark));
        if !is_at(0x202, b"HdrS") && !is_at(0x38, b"ARM\x64") && !is_at(0x38, b"RSC\x05") {
            sandbox.run(["qemu", &name]).fails(1, &words);
        }
        sandbox.run(["qemu", "--disk", &name, "guest.img"]).fails(1, &words);
        sandbox.run(["qemu", "--ephemeral", "--disk", &name, "guest.img"]).fails(1, &words);
        sandbox.run(["qemu", "--iso", &name]).fails(1, &[help, "hint: "]);
        sandbox.ctl(["--vm", "vm", "disk-add", &name]).fails(1, &words);
        sandbox.ctl(["--vm", "vm", "media-change", "cd0", &name]).fails(1, &words);
        sandbox.ctl(["--vm", "vm", "usb-add", &format!("file={name}")]).fails(1, &words);
        // unless it is meant so
        sandbox.run(["qemu", "--dry-run", &format!("{name},format=raw")]).ok();
        let added =
            sandbox.ctl_json(["--vm", "vm", "disk-add", &format!("{name},format=raw,id=d,readonly=on")]);
        assert_eq!(added["format"], "raw");
        sandbox.ctl(["--vm", "vm", "disk-remove", "d", "--timeout", "0s"]);
        assert_eq!(std::fs::read(&path).unwrap(), before, "{name}");
        break_off_if_removed_late(&sandbox);
    }
    sandbox.ctl(["--vm", "vm", "shutdown", "--force"]);
}

/// The halted guest never lets a disk go: the VM is started anew for the next.
fn break_off_if_removed_late(sandbox: &Sandbox) {
    sandbox.ctl(["--vm", "vm", "shutdown", "--force"]);
    sandbox.detached(["--usb", "--name", "vm", "first.iso"]);
}

#[test]
fn a_vhd_of_fixed_size_is_not_a_raw_disk_with_a_footer() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    let path = sandbox.file("fixed.img");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "vpc", "-o", "subformat=fixed"])
        .arg(&path)
        .arg("8M")
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    sandbox.detached(["--disk", "fixed.img", "guest.img"]);
    let nodes = sandbox.ctl(["qmp", "query-named-block-nodes"]).ok().stdout;
    assert!(nodes.contains("\"vpc\""), "{nodes}");
    sandbox.ctl(["shutdown", "--force"]);
}

/// Runs vmrun, but not for long.
fn at_once(sandbox: &Sandbox, arguments: &[&str]) -> Done {
    let mut command = sandbox.program("timeout");
    Done::of(command.args(["60", env!("CARGO_BIN_EXE_vmrun")]).args(arguments).output().unwrap())
}

#[test]
fn no_files_name_makes_vmrun_wait() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::ReactsToButton);
    for name in ["pipe", "k-kernel", "i-initrd.img", "c-cmdline", "s-squashfs.img", "pipe.iso"] {
        nix::unistd::mkfifo(&sandbox.file(name), Mode::S_IRWXU).unwrap();
    }
    for name in ["i-kernel", "c-kernel", "s-kernel"] {
        std::fs::write(sandbox.file(name), "kernel").unwrap();
    }
    let pipe: &[&str] = &["a pipe"];
    for (arguments, words) in [
        (vec!["k"], pipe),
        (vec!["--kernel", "i"], pipe),
        (vec!["--kernel", "c"], pipe),
        (vec!["--squashfs", "s"], pipe),
        (vec!["pipe.iso"], pipe),
        (vec!["--iso", "pipe"], pipe),
        (vec!["--fw", "pipe", "guest.img"], pipe),
        (vec!["--data-file", "pipe", "guest.img"], pipe),
        (vec!["--qmp-log", "pipe", "guest.img"], &["a pipe", "nobody reads"]),
        (vec!["pipe"], &["neither a file nor a block device"]),
        (vec!["--disk", "pipe", "guest.img"], &["neither a file nor a block device"]),
    ] {
        at_once(&sandbox, &[&["qemu"], &arguments[..]].concat()).fails(1, words);
    }
    sandbox.detached(["--usb", "guest.img"]);
    for arguments in [vec!["disk-add", "pipe"], vec!["usb-add", "file=pipe"]] {
        at_once(&sandbox, &[&["ctl"], &arguments[..]].concat())
            .fails(1, &["neither a file nor a block device"]);
    }
    at_once(&sandbox, &["ctl", "copy-to", "pipe", "/x"]).fails(1, pipe);
    sandbox.ctl(["shutdown", "--force"]);
    // a shell's pipe is input as any other
    let mut shell = sandbox.program("bash");
    let script = "exec timeout 60 \"$0\" qemu --dry-run --data-file <(printf 'a: b') guest.img";
    Done::of(shell.args(["-c", script, env!("CARGO_BIN_EXE_vmrun")]).output().unwrap()).ok();
}

/// Files that a user names are opened in one place, which never waits.
#[test]
fn files_are_opened_in_one_place() {
    let opens = ["File::open(", "fs::read(", "fs::read_to_string(", "OpenOptions::new()", "File::options()"];
    // each with the reason why it may
    let allowed = [
        ("cli/background.rs", "/dev/null"),
        ("cli/flag_list.rs", "the tests' own list of flags"),
        ("vm/console/stdio.rs", "the terminal that it has"),
        ("vm/guest/screen.rs", "a file of its own, made new"),
    ];
    let mut found = Vec::new();
    for layer in ["cli", "control", "machine", "vm", "qmp"] {
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(layer), &mut |path, text| {
            let code = text.split("#[cfg(test)]").next().unwrap();
            if opens.iter().any(|word| code.contains(word)) {
                let path = path.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
                found.push(path.display().to_string());
            }
        });
    }
    found.retain(|path| !path.contains("/tests") && !path.contains("fuzzing"));
    found.sort();
    assert_eq!(found, allowed.map(|(path, _)| path), "use host::files");
}

fn walk(folder: &Path, see: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => walk(&path, see),
            false => see(&path, &std::fs::read_to_string(&path).unwrap()),
        }
    }
}

/// What looks like another format is said to be raw, or the other way round, in each way that an image comes into a running VM.
#[test]
fn a_format_can_be_said_of_media_and_sticks_too() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    let mut qemu_img = sandbox.program("qemu-img");
    assert!(qemu_img.args(["create", "-q", "-f", "qcow2", "a,b.img", "1M"]).status().unwrap().success());
    sandbox.detached(["--data", "x", "--usb", "guest.img"]);
    // as QEMU has it, by its own word
    let opened_as = |file: &str| {
        let nodes =
            sandbox.ctl_json(["qmp", r#"{"execute":"query-named-block-nodes","arguments":{"flat":true}}"#]);
        let node = nodes.as_array().unwrap().iter().find(|node| {
            node["file"].as_str().is_some_and(|name| name.ends_with(file)) && node["drv"] != "file"
        });
        node.unwrap_or_else(|| panic!("{nodes}"))["drv"].as_str().unwrap().to_owned()
    };
    for (medium, driver) in [
        ("a,b.img", "qcow2"),
        ("a,,b.img,format=raw", "raw"),
        // now it is known to be raw
        ("a,b.img", "raw"),
        ("file=a,,b.img,format=qcow2", "qcow2"),
        ("a,b.img", "qcow2"),
    ] {
        sandbox.ctl(["media-change", "metadata", medium]).ok();
        assert_eq!(opened_as("/a,b.img"), driver, "{medium}");
    }
    sandbox.ctl(["media-change", "metadata", "a,,b.img,format=iso"]).fails(2, &["format 'iso'"]);
    sandbox.ctl(["media-eject", "metadata", "--force"]).ok();
    sandbox.ctl(["usb-add", "file=a,,b.img,format=raw", "--id", "stick"]).ok();
    assert_eq!(opened_as("/a,b.img"), "raw");
    sandbox.ctl(["usb-remove", "stick"]).ok();
    sandbox.ctl(["usb-add", "file=a,,b.img,format=vmdk"]).fails(2, &["is qcow2, not vmdk"]);
    sandbox.ctl(["shutdown", "--force"]);
}
