//! What goes wrong on the host, with the real QEMU: no room, no writing, no descriptors, a QEMU that stands still.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::boot_sector::Guest;
use crate::support::cd;
use crate::support::mounted::Mounted;
use crate::support::processes::{eventually, qemu_of, send};
use crate::support::sandbox::{Done, Sandbox};

/// Files in a folder, but for those that tell of a run.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
#[cfg_attr(lacks = "mount", ignore = "needs mount")]
fn a_full_disk_refuses_changes_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    for (number, options) in ["size=256k", "size=64m,nr_inodes=4"].into_iter().enumerate() {
        let place = sandbox.file(format!("small{number}"));
        let mounted = Mounted::tmpfs(&place, options);
        let fill = place.join("fill");
        match number {
            0 => drop(std::fs::write(&fill, vec![1; 256 << 10])),
            _ => (0..4).for_each(|name| drop(std::fs::write(place.join(format!("f{name}")), ""))),
        }
        let before = names(&place);
        // a state directory cannot be made or written
        let start = ["qemu", "--detached", "--state", &format!("{}/state", place.display()), "guest.img"];
        sandbox.run(start).fails(1, &["No space left on device"]);
        sandbox.is_clean();
        // a disk cannot be made
        sandbox.detached(["guest.img"]);
        let devices = sandbox.ctl_json(["status"])["devices"].clone();
        for image in ["new.qcow2", "other.qcow2"] {
            let disk = format!("{}/{image},size=1G", place.display());
            let refused = sandbox.ctl(["disk-add", &disk]);
            refused.fails(1, &["No space left on device"]);
        }
        let status = sandbox.ctl_json(["status"]);
        assert_eq!((&status["devices"], &status["slots_used"]), (&devices, &0.into()));
        // there is no room for the file's name, or for what QEMU writes into it: the host is at fault either way
        let file = format!("{}/saved", place.display());
        sandbox.ctl(["save", &file]).fails(1, &[&format!("{file}: No space left on device"), "hint: "]);
        let told = sandbox.vmrun().args(["ctl", "--json", "save", &file]).output().unwrap();
        let told: serde_json::Value = serde_json::from_slice(&told.stderr).unwrap();
        assert_eq!(told["error"]["code"], "host-problem", "{told}");
        assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
        assert_eq!(names(&place), before);
        sandbox.ctl(["shutdown", "--force"]);
        drop(mounted);
    }
}

/// A change that is not written down could not be taken back after the supervisor's death: QEMU hears nothing of it.
#[test]
#[cfg_attr(lacks = "mount", ignore = "needs mount")]
fn a_full_run_directory_refuses_changes() {
    let sandbox = Sandbox::new();
    cd::write(Guest::Halted, &sandbox.file("guest.iso"));
    let place = sandbox.file("small");
    let _mounted = Mounted::tmpfs(&place, "size=512k,mode=700");
    let vmrun = |arguments: &[&str]| {
        let mut command = sandbox.vmrun();
        Done::of(command.args(arguments).env("VMRUN_RUNTIME_DIR", &place).output().unwrap())
    };
    vmrun(&[
        "qemu",
        "--detached",
        "--mem",
        "64",
        "--usb",
        "--disk",
        "disk.qcow2,size=1M,id=data",
        "guest.iso",
    ])
    .ok();
    vmrun(&["ctl", "disk-add", "there.qcow2,size=1M,id=there"]).ok();
    std::fs::write(sandbox.file("stick.img"), vec![0; 1 << 20]).unwrap();
    let fill = place.join("fill");
    let mut file = std::fs::File::create(&fill).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let seen = || {
        ["info block", "info network", "info usb", "info status", "info snapshots"]
            .map(|line| vmrun(&["ctl", "hmp", line]).ok().stdout)
            // that is the guest's firmware's to choose
            .map(|told| told.lines().filter(|line| !line.contains("Cache mode")).collect::<String>())
    };
    let before = seen();
    for change in [
        &["disk-add", "new.img,size=1M"][..],
        &["disk-remove", "there"],
        &["usb-add", "file=stick.img"],
        &["nic-add", "user"],
        &["link", "down"],
        &["snapshot-save", "one"],
        &["save", "saved"],
    ] {
        let refused = vmrun(&[&["ctl"], change].concat());
        let folder = place.join("vmrun/guest").display().to_string();
        refused.fails(1, &["nothing was changed", &folder, "No space left on device", "hint: "]);
        assert_eq!(seen(), before, "{change:?}");
    }
    assert!(!sandbox.file("new.img").exists() && !sandbox.file("saved").exists());
    std::fs::remove_file(&fill).unwrap();
    vmrun(&["ctl", "link", "down"]).ok();
    vmrun(&["ctl", "disk-add", "new.img,size=1M"]).ok();
    vmrun(&["ctl", "shutdown", "--force"]).ok();
}

#[test]
#[cfg_attr(lacks = "mount", ignore = "needs mount")]
fn a_read_only_file_system_refuses_what_must_be_written() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    let place = sandbox.file("fixed");
    let mounted = Mounted::tmpfs(&place, "size=4m");
    std::fs::copy(sandbox.file("guest.img"), place.join("guest.img")).unwrap();
    mounted.read_only();
    let image = place.join("guest.img").display().to_string();
    sandbox.run(["qemu", "--detached", &image]).fails(1, &[]);
    sandbox
        .run(["qemu", "--detached", "--state", "state", &image])
        .fails(1, &["no permission to write", "readonly"]);
    sandbox.detached(["guest.img"]);
    sandbox.ctl(["disk-add", &image]).fails(1, &["no permission to write", "readonly=on"]);
    sandbox.ctl(["disk-add", &format!("{}/new.img,size=1M", place.display())]).fails(1, &["Read-only"]);
    sandbox.ctl(["disk-add", &format!("{image},readonly=on,id=fixed")]).ok();
    sandbox.ctl(["shutdown", "--force"]);
}

#[test]
#[cfg_attr(lacks = "mount", ignore = "needs mount")]
fn a_snapshot_is_lost_for_no_other_that_fails() {
    let sandbox = Sandbox::new();
    cd::write(Guest::Halted, &sandbox.file("guest.iso"));
    let place = sandbox.file("small");
    let _mounted = Mounted::tmpfs(&place, "size=16m");
    sandbox.detached(["--mem", "64", "--disk", "small/disk.qcow2,size=1G,id=data", "guest.iso"]);
    sandbox.ctl(["snapshot-save", "first"]).ok();
    let before = sandbox.ctl_json(["snapshot-list"]);
    let mut filler = std::fs::File::create(place.join("filler")).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
    drop(filler);
    let refused = sandbox.ctl(["snapshot-save", "first", "--overwrite"]);
    // QEMU's words for what is wrong differ between its versions
    refused.fails(4, &["QEMU refused snapshot-save: ", "hint: the old snapshot 'first' is still there"]);
    assert_eq!(sandbox.ctl_json(["snapshot-list"]), before);
    sandbox.ctl(["snapshot-load", "first"]).ok();
    // with room again it is replaced, however often
    std::fs::remove_file(place.join("filler")).unwrap();
    for round in 0..3 {
        sandbox.ctl(["snapshot-save", "first", "--overwrite"]).ok();
        let now = sandbox.ctl_json(["snapshot-list"]);
        assert_eq!((now.as_array().unwrap().len(), &now[0]["name"]), (1, &"first".into()), "{round}: {now}");
        assert!(now[0]["created_unix_ms"].as_i64() > before[0]["created_unix_ms"].as_i64(), "{now}");
        let mut info = sandbox.program("qemu-img");
        let info = info.args(["snapshot", "-U", "-l"]).arg(place.join("disk.qcow2")).output().unwrap();
        let info = String::from_utf8(info.stdout).unwrap();
        assert_eq!(info.matches("first").count(), 1, "{info}");
        sandbox.ctl(["snapshot-load", "first"]).ok();
    }
    sandbox.ctl(["snapshot-delete", "first"]).ok();
    assert_eq!(sandbox.ctl_json(["snapshot-list"]), json!([]));
    sandbox.ctl(["shutdown", "--force"]);
}

#[test]
fn too_few_descriptors_or_too_little_memory_end_in_words() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    let limited = |limit: &str| {
        let mut command = sandbox.program("prlimit");
        command.arg(limit).arg("--").arg(env!("CARGO_BIN_EXE_vmrun"));
        command.args(["qemu", "--detached", "--name", "guest", "guest.img"]);
        Done::of(command.output().unwrap())
    };
    let mut codes = Vec::new();
    let descriptors = (4..40).chain([64, 80]).map(|limit| format!("--nofile={limit}"));
    // below that the standard library cannot even begin
    let memory = [40, 48, 96, 256, 1024, 1536].map(|mib: u64| format!("--as={}", mib << 20));
    for limit in descriptors.chain(memory) {
        let done = limited(&limit);
        codes.push(done.code);
        if done.code == 0 {
            sandbox.ctl(["shutdown", "--force"]);
        } else {
            assert!(!done.stderr.contains("panicked"), "{limit}: {done:#?}");
            assert!(!done.stderr.is_empty(), "{limit}: {done:#?}");
        }
        sandbox.is_clean();
    }
    println!("exit codes: {codes:?}");
    assert!(codes.contains(&0) && codes.contains(&1), "{codes:?}");
}

/// The long form (30 s, the deadline of a command) is for `make soak`.
fn stands_still(time: Duration) {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    sandbox.detached(["guest.img"]);
    let qemu = qemu_of(sandbox.path());
    send(qemu, Signal::SIGSTOP);
    let began = Instant::now();
    let waiting =
        sandbox.vmrun().args(["ctl", "pause"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // what needs no QEMU is answered meanwhile
    let asked = Instant::now();
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    std::thread::sleep(time.saturating_sub(began.elapsed()));
    let late = time > Duration::from_secs(30);
    send(qemu, Signal::SIGCONT);
    let output = waiting.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    match late {
        true => {
            assert_eq!((output.status.code(), told.contains("did not answer")), (Some(5), true), "{told}")
        }
        false => assert_eq!(output.status.code(), Some(0), "{told}"),
    }
    eventually("what was asked comes true", || sandbox.ctl_json(["status"])["state"] == "paused");
    sandbox.ctl(["resume"]).ok();
    sandbox.ctl(["usb-add", "usb-kbd"]).ok();
    sandbox.ctl(["shutdown", "--force"]);
}

#[test]
fn a_qemu_that_stands_still_for_a_moment_is_waited_for() {
    stands_still(Duration::from_secs(3));
}

#[test]
#[ignore = "takes 40 s; `make soak` runs it"]
fn a_qemu_that_stands_still_is_told_of_and_loses_nothing() {
    stands_still(Duration::from_secs(35));
}
