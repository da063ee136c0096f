//! What is said of a disk besides its image: found in QEMU, in the kernel's list of open files, in the guest, and in the blocks that
//! the file has.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::boot_sector::{self, Guest};
use crate::support::linux::Linux;
use crate::support::orphan::kill_supervisor;
use crate::support::processes::{eventually, qemu_of};
use crate::support::sandbox::Sandbox;

fn qmp(sandbox: &Sandbox, command: &str) -> Value {
    serde_json::from_str(&sandbox.ctl(["qmp", command]).ok().stdout).unwrap()
}

/// A drive, by the name of its first node.
fn drive(sandbox: &Sandbox, node: &str) -> Value {
    let blocks = qmp(sandbox, "query-block");
    let is_it = |block: &&Value| block["inserted"]["node-name"] == node;
    blocks.as_array().unwrap().iter().find(is_it).unwrap_or_else(|| panic!("{node}: {blocks}")).clone()
}

fn property(sandbox: &Sandbox, device: &str, name: &str) -> Value {
    let arguments = json!({ "path": format!("/machine/peripheral/{device}"), "property": name });
    qmp(sandbox, &json!({ "execute": "qom-get", "arguments": arguments }).to_string())
}

fn threads(sandbox: &Sandbox) -> Vec<String> {
    let threads = qmp(sandbox, "query-iothreads");
    let ids = threads.as_array().unwrap().iter().map(|thread| thread["id"].as_str().unwrap().to_owned());
    let mut ids: Vec<String> = ids.collect();
    ids.sort();
    ids
}

/// Whether QEMU has opened a file past the page cache, as the kernel tells it.
fn is_direct(sandbox: &Sandbox, file: &Path) -> bool {
    let pid = qemu_of(sandbox.path());
    let of_file = |entry: &std::fs::DirEntry| std::fs::read_link(entry.path()).is_ok_and(|path| path == file);
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(Result::unwrap).find(of_file);
    let number = open.unwrap_or_else(|| panic!("{} is not open", file.display())).file_name();
    let facts = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", number.display())).unwrap();
    let flags = facts.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    i32::from_str_radix(flags, 8).unwrap() & nix::libc::O_DIRECT != 0
}

fn disk(sandbox: &Sandbox, id: &str) -> Value {
    let disks = sandbox.ctl_json(["disk-list"]);
    disks.as_array().unwrap().iter().find(|disk| disk["id"] == id).unwrap().clone()
}

/// Cold and hot, each cache mode is what QEMU makes of the word.
#[test]
fn the_cache_is_what_was_said_cold_and_hot() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let modes = [
        ("none", [true, true, false]),
        ("writeback", [true, false, false]),
        ("writethrough", [false, false, false]),
        ("directsync", [false, true, false]),
        ("unsafe", [true, false, true]),
    ];
    let spec = |way: &str, mode: &str| format!("{way}-{mode}.qcow2,size=1M,id={way}-{mode},cache={mode}");
    let mut arguments = vec![format!("{},cache=none,aio=native", image.display())];
    for (mode, _) in modes {
        arguments.extend(["--disk".to_owned(), spec("cold", mode)]);
    }
    arguments.extend(["--name", "vm"].map(str::to_owned));
    sandbox.detached(&arguments);
    sandbox.booted("vm");
    for (mode, _) in modes {
        sandbox.ctl(["disk-add", &spec("hot", mode)]).ok();
    }
    for (mode, [writeback, direct, no_flush]) in modes {
        for way in ["cold", "hot"] {
            let id = format!("{way}-{mode}");
            // whether the guest's driver takes the write cache is its own affair (`writeback`)
            let cache = &drive(&sandbox, &id)["inserted"]["cache"];
            assert_eq!([&cache["direct"], &cache["no-flush"]], [direct, no_flush], "{id}");
            let write_cache = if writeback { "on" } else { "off" };
            assert_eq!(property(&sandbox, &id, "write-cache"), write_cache, "{id}");
            assert_eq!(is_direct(&sandbox, &sandbox.file(format!("{id}.qcow2"))), direct, "{id}");
            assert_eq!(disk(&sandbox, &id)["cache"], mode);
        }
    }
    assert!(is_direct(&sandbox, &image));
    assert!(sandbox.ctl(["disk-list"]).ok().stdout.contains(" cache=none,aio=native "));
    // of one of which nothing is said, nothing is told
    sandbox.ctl(["disk-add", "plain.img,size=1M,id=plain,bus=scsi"]).ok();
    let plain = disk(&sandbox, "plain");
    for name in ["cache", "aio", "discard", "detect_zeroes", "logical_block_size", "iothread", "boot"] {
        assert_eq!(plain.get(name), None, "{name}");
    }
    sandbox.ctl(["shutdown"]).ok();
}

#[test]
fn what_cannot_be_is_refused_before_anything_changes() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let start = |disk: &str| sandbox.run(["qemu", "--detached", image.to_str().unwrap(), "--disk", disk]);
    let of_bus = [
        ("bus=sata,logical-block-size=4096", "512 bytes"),
        ("bus=usb,logical-block-size=4096", "512 bytes"),
        ("bus=usb,cache=writethrough", "USB disks"),
        ("bus=usb,cache=directsync", "USB disks"),
        ("bus=scsi,iothread=on", "controller's"),
        ("bus=nvme,iothread=on", "no I/O threads for nvme"),
    ];
    let of_words = [
        ("aio=native", "aio=native needs cache=none or cache=directsync"),
        ("cache=writethrough,aio=native", "aio=native needs cache=none or cache=directsync"),
        ("discard=ignore,detect-zeroes=unmap", "discard=ignore forbids"),
        ("boot=0", "1 to 999"),
    ];
    for (options, why) in of_bus.into_iter().chain(of_words) {
        start(&format!("new.img,size=1M,{options}")).fails(2, &[why]);
    }
    start("new.img,size=1M,boot=3,id=a").ok();
    std::fs::remove_file(sandbox.file("new.img")).unwrap();
    for (options, why) in of_bus.into_iter().filter(|(options, _)| !options.contains("sata")) {
        sandbox.ctl(["disk-add", &format!("hot.img,size=1M,{options}")]).fails(4, &[why]);
    }
    for (options, why) in of_words {
        sandbox.ctl(["disk-add", &format!("hot.img,size=1M,{options}")]).fails(2, &[why]);
    }
    for (number, holder) in [(3, "a"), (4, "disk0")] {
        let spec = format!("hot.img,size=1M,boot={number}");
        let words = [&format!("boot={number} is the place of '{holder}'"), "hint: "];
        sandbox.ctl(["disk-add", &spec]).fails(4, &words);
    }
    assert!(!sandbox.file("hot.img").exists());
    assert_eq!(sandbox.ctl_json(["status"])["slots_used"], 0);
    // and one whose number is free is there, for the next reset
    sandbox.ctl(["disk-add", "hot.img,size=1M,boot=5,id=b"]).ok();
    assert_eq!(property(&sandbox, "b", "bootindex"), 5);
    assert_eq!(disk(&sandbox, "b")["boot"], 5);
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn a_file_system_without_direct_io_is_named() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    // sysfs has never had it; QEMU is not even started
    let sysfs_file = "/sys/kernel/uevent_seqnum,format=raw,readonly=on,cache=none";
    let started = sandbox.run(["qemu", "--detached", image.to_str().unwrap(), "--disk", sysfs_file]);
    started.fails(1, &["/sys/kernel/uevent_seqnum", "O_DIRECT", "hint: ", "cache=writeback"]);
    sandbox.is_clean();
}

/// Two disks with boot sectors that print different words.
#[test]
fn the_lowest_number_boots() {
    for (first, second, boots) in [
        ("", "", Guest::ReactsToButton),
        ("", ",boot=1", Guest::EchoesConsole),
        (",boot=2", ",boot=1", Guest::EchoesConsole),
        (",boot=1", ",boot=2", Guest::ReactsToButton),
    ] {
        let sandbox = Sandbox::new();
        let image = sandbox.boot_sector(Guest::ReactsToButton);
        let other = sandbox.file("other.img");
        boot_sector::write(Guest::EchoesConsole, &other);
        let (first, second) = (format!("{}{first}", image.display()), format!("{}{second}", other.display()));
        sandbox.detached([first.as_str(), "--disk", &second]);
        sandbox.ctl(["wait", &format!("console={}", boots.greeting()), "--timeout", "100s"]).ok();
        sandbox.ctl(["shutdown", "--force"]).ok();
    }
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let twice = ["qemu", &format!("{},boot=1", image.display()), "--disk", "b.img,size=1M,boot=1,id=b"];
    sandbox.run(twice).fails(2, &["disks 'disk0' and 'b' both have boot=1"]);
    assert!(!sandbox.file("b.img").exists());
}

fn blocks(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().blocks()
}

#[test]
fn discarded_blocks_and_zeroes_are_freed_in_the_file_or_not() {
    const BLOCKS: u64 = (4 << 20) / 512;
    let vm = Linux::boot([
        "--disk",
        "unmap.img,size=8M,serial=UNMAP,discard=unmap",
        "--disk",
        "ignore.img,size=8M,serial=IGNORE,discard=ignore",
    ]);
    vm.ctl(["disk-add", "hot.img,size=8M,serial=HOT,discard=unmap"]);
    let write = |from: &str, disk: &str| {
        vm.run(&format!("dd if=/dev/{from} of=/dev/{disk} bs=1M count=4 conv=notrunc,fsync oflag=direct"));
    };
    for (serial, file, frees) in
        [("UNMAP", "unmap.img", true), ("IGNORE", "ignore.img", false), ("HOT", "hot.img", true)]
    {
        let (disk, _) = vm.sees_disk(serial);
        let file = vm.file(file);
        let is = |freed: bool| if freed { blocks(&file) < BLOCKS / 8 } else { blocks(&file) >= BLOCKS };
        write("urandom", &disk);
        assert!(is(false), "{serial}: {}", blocks(&file));
        vm.run(&format!("blkdiscard -o 0 -l 4194304 /dev/{disk}"));
        assert!(is(frees), "{serial}, discarded: {}", blocks(&file));
        write("urandom", &disk);
        assert!(is(false), "{serial}: {}", blocks(&file));
        write("zero", &disk);
        assert!(is(frees), "{serial}, zeroes: {}", blocks(&file));
    }
    vm.quit();
}

#[test]
fn the_guest_sees_its_blocks_and_cache_and_a_thread_goes_with_its_disk() {
    let said = "logical-block-size=4096,cache=writethrough";
    let vm = Linux::boot([
        "--disk",
        &format!("v.img,size=8M,serial=V,id=v,iothread=on,{said}"),
        "--disk",
        &format!("s.img,size=8M,serial=S,bus=scsi,{said}"),
        "--disk",
        &format!("n.img,size=8M,serial=N,bus=nvme,{said}"),
        "--disk",
        "u.img,size=8M,serial=U,bus=usb",
    ]);
    assert_eq!(threads(&vm.sandbox), ["vmrun-iothread-v"]);
    vm.ctl(["disk-add", &format!("h.img,size=8M,serial=H,id=h,iothread=on,{said}")]);
    assert_eq!(threads(&vm.sandbox), ["vmrun-iothread-h", "vmrun-iothread-v"]);
    assert_eq!(property(&vm.sandbox, "h", "iothread"), "/objects/vmrun-iothread-h");
    for (serial, size) in [("V", "4096"), ("S", "4096"), ("N", "4096"), ("U", "512"), ("H", "4096")] {
        let (disk, _) = vm.sees_disk(serial);
        let queue = |name: &str| vm.run(&format!("cat /sys/block/{disk}/queue/{name}"));
        assert_eq!((queue("logical_block_size"), queue("physical_block_size")), (size.into(), size.into()));
        // QEMU's NVMe disks claim a write cache whatever they have; of the USB disk nothing was said
        let cache = if matches!(serial, "N" | "U") { "write back" } else { "write through" };
        assert_eq!(queue("write_cache"), cache, "{serial}");
        // it works with them, too
        vm.run(&format!("dd if=/dev/urandom of=/dev/{disk} bs=4096 count=8 conv=fsync"));
    }
    let before = disk(&vm.sandbox, "h");
    assert_eq!((&before["iothread"], &before["logical_block_size"]), (&json!(true), &json!(4096)));

    // another supervisor knows as much
    vm.ctl(["disk-add", "g.img,size=8M,serial=G,id=g,iothread=on,aio=io_uring,discard=ignore"]);
    vm.sees_disk("G");
    vm.ctl(["disk-remove", "h"]);
    assert_eq!(threads(&vm.sandbox), ["vmrun-iothread-g", "vmrun-iothread-v"]);
    vm.quit();
}

#[test]
fn a_takeover_and_a_restore_keep_the_options() {
    let sandbox = Sandbox::new();
    let guest = crate::support::sandbox::linux_guest();
    let cold = "c.qcow2,size=8M,serial=C,id=c,cache=none,aio=native,discard=unmap,iothread=on";
    let hot = "h.qcow2,size=8M,serial=H,id=h,cache=directsync,aio=io_uring,discard=ignore,logical-block-size=4096,iothread=on";
    sandbox.detached([
        "--mem",
        "256",
        "--state",
        "state",
        "--name",
        "vm",
        "--wait",
        "agent",
        "--disk",
        cold,
        guest.to_str().unwrap(),
    ]);
    sandbox.ctl(["disk-add", hot]).ok();
    sandbox.ctl(["wait", r"console=serial=H ", "--timeout", "100s"]).ok();
    let options = |sandbox: &Sandbox| {
        let of = |id: &str| {
            let mut disk = disk(sandbox, id);
            disk.as_object_mut().unwrap().remove("taken");
            disk
        };
        [of("c"), of("h")]
    };
    let in_qemu = |sandbox: &Sandbox| {
        let of = |id: &str| {
            let inserted = drive(sandbox, id)["inserted"].clone();
            [inserted["cache"].clone(), inserted["detect_zeroes"].clone()]
        };
        (of("c"), of("h"), property(sandbox, "h", "logical_block_size"), threads(sandbox))
    };
    let (before, really) = (options(&sandbox), in_qemu(&sandbox));
    kill_supervisor(&sandbox);
    assert_eq!(options(&sandbox), before);

    // an I/O thread whose disk never came is deleted by the takeover
    qmp(
        &sandbox,
        r#"{"execute":"object-add","arguments":{"qom-type":"iothread","id":"vmrun-iothread-lost"}}"#,
    );
    kill_supervisor(&sandbox);
    assert_eq!(options(&sandbox), before);
    assert_eq!(in_qemu(&sandbox), really);

    sandbox.ctl(["save", "vm.saved"]).ok();
    sandbox.detached(["--restore", "vm.saved", "--state", "state"]);
    assert_eq!(options(&sandbox), before);
    assert_eq!(in_qemu(&sandbox), really);
    sandbox.ctl(["disk-remove", "h"]).ok();
    eventually("its thread is gone", || threads(&sandbox) == ["vmrun-iothread-c"]);
    sandbox.ctl(["shutdown", "--force"]).ok();
}
