//! What is frozen into a template, and what is not: disks, firmware variables, the metadata CD, memory; refusals and faults.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::boot_sector::Guest;
use crate::support::chance::{Chance, repetitions};
use crate::support::mounted::Mounted;
use crate::support::orphan::{kill, kill_supervisor};
use crate::support::processes::{eventually, send};
use crate::support::sandbox::{Done, Sandbox, linux_guest};

/// A Linux guest that has booted and can be frozen, called `base`.
fn linux(options: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let guest = linux_guest();
    let words = ["--name", "base", "--mem", "256", "--ephemeral", "--forkable", "--wait", "agent"];
    sandbox.detached(words.iter().chain(options).copied().chain([guest.to_str().unwrap()]));
    sandbox
}

/// A boot-sector guest that runs and can be frozen, called `base`.
fn small(options: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Counts);
    let words = ["--name", "base", "--mem", "64", "--forkable"];
    sandbox.detached(words.iter().chain(options).copied().chain([image.to_str().unwrap()]));
    sandbox.booted("base");
    sandbox
}

#[track_caller]
fn exec(sandbox: &Sandbox, vm: &str, script: &str) -> String {
    sandbox.ctl(["--vm", vm, "exec", "--", "sh", "-c", script]).line()
}

#[track_caller]
fn fork(sandbox: &Sandbox, template: &str, name: &str) {
    assert_eq!(sandbox.detached(["--from", template, "--name", name]), name);
}

#[track_caller]
fn end(sandbox: &Sandbox, vm: &str) {
    sandbox.ctl(["--vm", vm, "shutdown", "--force"]).ok();
}

fn qemu_of(sandbox: &Sandbox, vm: &str) -> i32 {
    i32::try_from(sandbox.ctl_json(["--vm", vm, "status"])["qemu_pid"].as_i64().unwrap()).unwrap()
}

/// The VM's memory as the kernel shows it: the lines of its QEMU's mappings that name this file.
fn mappings(sandbox: &Sandbox, vm: &str, file: &str) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", qemu_of(sandbox, vm))).unwrap();
    maps.lines().filter(|line| line.contains(file)).map(str::to_owned).collect()
}

/// A migration would leave it in a state in which its images are closed, and QEMU 7.2 aborts if one is resized.
#[test]
fn a_vm_that_stays_paused_is_frozen_as_often_as_one_likes() {
    let sandbox = small(&["--ephemeral", "--disk", "data.qcow2,size=8M"]);
    sandbox.ctl(["pause"]).ok();
    let counted = sandbox.counter();
    for template in ["one", "two"] {
        let frozen = sandbox.ctl_json(["freeze", template, "--keep-running"]);
        assert_eq!(frozen["paused_ms"], 0, "{frozen}");
        let state = sandbox.ctl(["qmp", r#"{"execute":"query-status"}"#]).ok().stdout;
        assert!(state.contains(r#""status": "paused""#), "{state}");
        assert_eq!(sandbox.counter(), counted, "the guest has run");
        assert!(!sandbox.file(template).join("state.qcow2").exists());
        let nodes = sandbox.ctl(["qmp", r#"{"execute":"query-named-block-nodes"}"#]).ok().stdout;
        assert!(!nodes.contains("vmrun-state"), "{nodes}");
    }
    sandbox.ctl(["disk-resize", "disk1", "16M"]).ok();
    sandbox.ctl(["snapshot-save", "a"]).ok();
    kill_supervisor(&sandbox);
    sandbox.ctl(["freeze", "three"]).ok();
    sandbox.is_clean();
    for template in ["one", "two", "three"] {
        fork(&sandbox, template, "fork");
        assert_eq!(sandbox.ctl_json(["status"])["state"], "paused");
        assert_eq!(sandbox.counter(), counted);
        sandbox.ctl(["resume"]).ok();
        eventually("the guest counts", || sandbox.counter() != counted);
        end(&sandbox, "fork");
    }
    // a fork's memory is its own, and comes with its state
    fork(&sandbox, "one", "fork");
    for template in ["four", "five"] {
        sandbox.ctl(["freeze", template, "--keep-running"]).ok();
    }
    end(&sandbox, "fork");
    fork(&sandbox, "five", "fork");
    assert_eq!(sandbox.counter(), counted);
    sandbox.ctl(["resume"]).ok();
    eventually("the guest counts", || sandbox.counter() != counted);
    end(&sandbox, "fork");
    sandbox.is_clean();
}

/// Saving into a file is a migration, after which QEMU ends; but it may fail late, and others can migrate, too.
#[test]
fn a_paused_vm_whose_state_was_written_is_not_lost() {
    let sandbox = small(&["--disk", "data.qcow2,size=8M"]);
    sandbox.ctl(["pause"]).ok();
    let socket = sandbox.file("state.socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let reading =
        std::thread::spawn(move || std::io::copy(&mut listener.accept().unwrap().0, &mut std::io::sink()));
    let uri = format!("unix:{}", socket.display());
    sandbox.ctl(["qmp", &json!({ "execute": "migrate", "arguments": { "uri": uri } }).to_string()]).ok();
    reading.join().unwrap().unwrap();
    let status = || sandbox.ctl(["qmp", r#"{"execute":"query-status"}"#]).ok().stdout;
    eventually("QEMU is done", || status().contains("postmigrate"));
    let pid = qemu_of(&sandbox, "base");
    let refused = || {
        for words in
            [&["save", "vm.saved"][..], &["snapshot-save", "a"], &["disk-resize", "disk1", "16M"], &["reset"]]
        {
            sandbox.ctl(words).fails(4, &["needs the guest to run once", "resume"]);
            assert_eq!(sandbox.ctl_json(["status"])["state"], "paused", "{words:?}");
        }
    };
    refused();
    kill_supervisor(&sandbox);
    refused();
    assert_eq!(qemu_of(&sandbox, "base"), pid);
    // it is what the hint says
    sandbox.ctl(["resume"]).ok();
    sandbox.ctl(["pause"]).ok();
    sandbox.ctl(["disk-resize", "disk1", "16M"]).ok();
    sandbox.ctl(["save", "vm.saved"]).ok();
    sandbox.is_clean();
}

#[test]
fn the_pause_and_the_end_are_told() {
    let sandbox = small(&["--ephemeral"]);
    let frozen = sandbox.ctl_json(["freeze", "first", "--keep-running"]);
    assert!(frozen["paused_ms"].as_u64().is_some_and(|ms| ms > 0 && ms < 60_000), "{frozen}");
    let frozen = sandbox.ctl(["freeze", "second", "--keep-running"]).ok();
    assert!(frozen.stdout.contains("the VM was paused for "), "{frozen:?}");
    let ended = sandbox.ctl(["freeze", "third"]).ok();
    assert!(ended.stdout.contains("the VM was frozen into ") && ended.stdout.contains("third"), "{ended:?}");
    sandbox.is_clean();
}

#[test]
fn what_stands_in_the_way_is_named_with_a_hint_that_can_be_followed() {
    let sandbox = small(&["--ephemeral", "--hotplug-slots", "2"]);
    sandbox.ctl(["disk-add", "data.img,size=1M,id=data"]).ok();
    let refused =
        sandbox.ctl(["freeze", "template", "--keep-running"]).fails(4, &["'data'", "unplug it first: data"]);
    assert!(!refused.stderr.contains("--ephemeral"), "{refused:?}");
    sandbox.ctl(["disk-remove", "data", "--force", "--timeout", "1s"]);
    sandbox.ctl(["reset"]).ok();
    eventually("the disk is gone", || sandbox.ctl_json(["disk-list"]).as_array().unwrap().len() == 1);
    sandbox.ctl(["usb-add", "file=data.img", "--id", "stick"]).ok();
    sandbox.ctl(["freeze", "template", "--keep-running"]).fails(4, &["'stick'", "unplug it first: stick"]);
    sandbox.ctl(["usb-remove", "stick"]).ok();
    sandbox.ctl(["disk-add", "data.img,bus=nvme,id=fast"]).ok();
    let refused = sandbox.ctl(["freeze", "template"]);
    refused.fails(4, &["'fast'", "state of an NVMe disk", "unplug it first: fast"]);
    assert!(!sandbox.file("template").exists());
    end(&sandbox, "base");
    let vm = sandbox.detached(["--mem", "64", "--forkable", "guest.img"]);
    sandbox.ctl(["--vm", &vm, "freeze", "template", "--keep-running"]).fails(4, &["'disk0'", "--ephemeral"]);
    end(&sandbox, &vm);
    sandbox.is_clean();
}

/// Disks on all buses that can be, with a path and without; firmware variables; the metadata CD.
#[test]
fn all_that_belongs_to_the_vm_comes_along() {
    let mut options = vec!["--data".to_owned(), "hello".to_owned(), "--usb".to_owned()];
    let buses = ["virtio", "scsi", "sata", "usb"];
    for bus in buses {
        options.extend(["--disk".to_owned(), format!("{bus}.img,size=1M,bus={bus},serial={bus}")]);
    }
    options.extend(["--disk".to_owned(), "size=2M,serial=own".to_owned()]);
    let sandbox = linux(&options.iter().map(String::as_str).collect::<Vec<_>>());
    // by size and content, whatever their names in the guest are
    let write = "for disk in /sys/block/[sv]d*; do name=/dev/${disk##*/}; \
        printf \"written to ${disk##*/}\" | dd of=$name bs=512 seek=7 conv=notrunc 2>/dev/null; done; sync";
    let read = "for disk in /sys/block/[sv]d*; do dd if=/dev/${disk##*/} bs=512 skip=7 count=1 2>/dev/null | tr -d '\\0'; echo; done; \
        cat /sys/block/[sv]d*/size";
    let count = "set -- /sys/block/[sv]d*; echo $#";
    eventually("all disks are there", || exec(&sandbox, "base", count) == "5");
    exec(&sandbox, "base", write);
    let written = exec(&sandbox, "base", read);
    assert_eq!(written.matches("written to").count(), 5, "{written}");
    sandbox.ctl(["freeze", "one"]).ok();
    sandbox.is_clean();
    // nothing is outside but the files that were named, which are as they were
    for bus in buses {
        assert!(fs::read(sandbox.file(format!("{bus}.img"))).unwrap().iter().all(|byte| *byte == 0), "{bus}");
    }
    assert!(sandbox.file("one/metadata.iso").exists());
    fs::rename(sandbox.file("one"), sandbox.file("moved")).unwrap();
    for name in ["a", "b"] {
        fork(&sandbox, "moved", name);
        // not from its memory
        exec(&sandbox, name, "echo 3 > /proc/sys/vm/drop_caches");
        assert_eq!(exec(&sandbox, name, read), written, "{name}");
        exec(&sandbox, name, "for disk in /sys/block/[sv]d*; do echo else > /dev/${disk##*/}; done; sync");
    }
    end(&sandbox, "a");
    end(&sandbox, "b");
    fork(&sandbox, "moved", "c");
    assert_eq!(exec(&sandbox, "c", read), written);
    end(&sandbox, "c");
    sandbox.is_clean();
}

#[test]
fn the_metadata_cd_of_a_fork_of_a_fork_is_its_own() {
    let sandbox = linux(&["--data", "hello"]);
    let read = "cat /metadata/config";
    let is_mounted = || sandbox.ctl(["exec", "--", "sh", "-c", read]).stdout == "hello";
    eventually("the CD is mounted", is_mounted);
    sandbox.ctl(["freeze", "one"]).ok();
    fork(&sandbox, "one", "fork");
    sandbox.ctl(["freeze", "two"]).ok();
    fs::remove_dir_all(sandbox.file("one")).unwrap();
    fork(&sandbox, "two", "fork");
    exec(&sandbox, "fork", "echo 3 > /proc/sys/vm/drop_caches");
    assert_eq!(exec(&sandbox, "fork", read), "hello");
    end(&sandbox, "fork");
    sandbox.is_clean();
}

#[test]
fn each_fork_has_firmware_variables_of_its_own() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Counts);
    let words = ["--name", "base", "--mem", "128", "--uefi", "--ephemeral", "--forkable"];
    sandbox.detached(words.into_iter().chain([image.to_str().unwrap()]));
    // the firmware writes its variables when it looks for something to boot
    let vars = |vm: &str| {
        let state = sandbox.ctl_json(["--vm", vm, "status"])["state_directory"].as_str().unwrap().to_owned();
        fs::read(Path::new(&state).join("uefi-vars.fd")).unwrap()
    };
    sandbox.ctl(["wait", "console=.", "--timeout", "60s"]).ok();
    sandbox.ctl(["freeze", "template"]).ok();
    let frozen = fs::read(sandbox.file("template/uefi-vars.fd")).unwrap();
    for name in ["a", "b"] {
        assert_eq!(sandbox.detached(["--from", "template", "--name", name, "--paused"]), name);
        assert!(vars(name) == frozen, "{name}");
        let open = format!("/proc/{}/fd", qemu_of(&sandbox, name));
        let links =
            fs::read_dir(open).unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        let vars: Vec<_> = links.filter(|link| link.ends_with("uefi-vars.fd")).collect();
        assert!(
            !vars.is_empty() && vars.iter().all(|link| link.starts_with(sandbox.temporary())),
            "{vars:?}"
        );
    }
    end(&sandbox, "a");
    end(&sandbox, "b");
    assert!(fs::read(sandbox.file("template/uefi-vars.fd")).unwrap() == frozen);
    sandbox.is_clean();
}

#[test]
fn a_saved_vm_that_is_restored_can_be_forked_again() {
    let sandbox = small(&[]);
    sandbox.ctl(["save", "vm.saved"]).ok();
    let vm = sandbox.detached(["--restore", "vm.saved"]);
    let mapped = mappings(&sandbox, &vm, "vmrun-guest-memory");
    assert!(!mapped.is_empty() && mapped.iter().all(|line| line.contains(" rw-s ")), "{mapped:?}");
    // zeroes take no memory
    let file = mapped[0].split_whitespace().nth(4).unwrap().to_owned();
    let fds = fs::read_dir(format!("/proc/{}/fd", qemu_of(&sandbox, &vm))).unwrap().flatten();
    let memory =
        fds.filter_map(|entry| fs::metadata(entry.path()).ok()).find(|facts| facts.ino().to_string() == file);
    assert!(memory.unwrap().blocks() * 512 < 32 << 20);
    sandbox.ctl(["freeze", "template"]).ok();
    assert_eq!(fs::metadata(sandbox.file("template/memory")).unwrap().len(), 64 << 20);
    fork(&sandbox, "template", "fork");
    assert!(!mappings(&sandbox, "fork", "template/memory").is_empty());
    let counted = sandbox.counter();
    eventually("the guest counts", || sandbox.counter() != counted);
    end(&sandbox, "fork");
    sandbox.is_clean();
}

#[test]
fn what_is_no_template_is_told() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.file("empty")).unwrap();
    fs::create_dir(sandbox.file("garbage")).unwrap();
    fs::write(sandbox.file("garbage/machine"), "not what it should be, but long enough").unwrap();
    fs::write(sandbox.file("file"), "x").unwrap();
    for (folder, why) in [
        ("nowhere", "there is no such folder"),
        ("empty", "it has no file `machine`"),
        ("garbage", "its file `machine` is none that vmrun has made"),
        ("file", "it is no folder"),
    ] {
        let refused =
            sandbox.run(["qemu", "--from", folder]).fails(1, &[folder, why, "vmrun ctl freeze DIR"]);
        assert!(!refused.stderr.contains("ctl save"), "{refused:?}");
    }
    sandbox.is_clean();
}

#[test]
fn flags_that_shape_the_machine_are_the_templates() {
    let sandbox = small(&["--ephemeral"]);
    sandbox.ctl(["freeze", "template"]).ok();
    for words in
        [["--mem", "64"], ["--cpus", "2"], ["--machine", "q35"], ["--cpu", "max"], ["--disk", "size=1M"]]
    {
        sandbox.run(["qemu", "--from", "template"].iter().chain(&words)).fails(2, &[words[0]]);
    }
    sandbox.is_clean();
}

#[test]
#[cfg_attr(lacks = "mount", ignore = "needs mount")]
fn a_template_that_does_not_fit_on_its_disk_leaves_nothing() {
    let sandbox = small(&["--ephemeral"]);
    let mounted = Mounted::tmpfs(&sandbox.file("full"), "size=512k,mode=700");
    let counted = sandbox.counter();
    for words in [&["freeze", "full/template"][..], &["freeze", "full/template", "--keep-running"]] {
        sandbox.ctl(words).fails(1, &["No space left on device", "the VM keeps running"]);
        assert_eq!(fs::read_dir(sandbox.file("full")).unwrap().count(), 0, "{words:?}");
        assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
        eventually("the guest counts", || sandbox.counter() != counted);
    }
    // it is as good as before
    sandbox.ctl(["freeze", "template"]).ok();
    drop(mounted);
    fork(&sandbox, "template", "fork");
    end(&sandbox, "fork");
    sandbox.is_clean();
}

/// QEMU dies while it is frozen: no template, or a whole one.
#[test]
fn a_qemu_that_is_killed_while_it_is_frozen_leaves_no_half_template() {
    for millis in [0, 5, 15, 40] {
        let sandbox = small(&["--ephemeral"]);
        let pid = qemu_of(&sandbox, "base");
        let freezing = sandbox.vmrun().args(["ctl", "freeze", "template", "--keep-running"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(millis));
        send(pid, Signal::SIGKILL);
        let done = Done::of(freezing.wait_with_output().unwrap());
        sandbox.is_clean();
        let template = sandbox.file("template");
        match template.exists() {
            true => {
                fork(&sandbox, "template", "fork");
                end(&sandbox, "fork");
            }
            false => assert_ne!(done.code, 0, "{millis}"),
        }
        let left: Vec<_> =
            fs::read_dir(sandbox.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().contains(".part")), "{left:?}");
    }
}

#[test]
fn a_fork_knows_its_template_and_what_it_shares_with_it() {
    let sandbox = small(&["--ephemeral"]);
    assert_eq!(sandbox.ctl_json(["status"]).get("template"), None);
    sandbox.ctl(["freeze", "template"]).ok();
    let folder = sandbox.file("template");
    fork(&sandbox, "template", "a");
    let status = |vm: &str| sandbox.ctl_json(["--vm", vm, "status"]);
    assert_eq!(
        (&status("a")["template"], &status("a")["siblings"]),
        (&folder.to_str().unwrap().into(), &0.into())
    );
    fork(&sandbox, "template", "b");
    kill_of(&sandbox, "a");
    assert_eq!(
        (&status("a")["template"], &status("a")["siblings"]),
        (&folder.to_str().unwrap().into(), &1.into())
    );
    let shown = sandbox.ctl(["--vm", "b", "status"]).ok();
    assert!(shown.stdout.contains("1 other fork"), "{shown:?}");
    let listed = sandbox.run(["ls", "--json"]).json();
    assert!(
        listed.as_array().unwrap().iter().all(|vm| vm["template"] == folder.to_str().unwrap()),
        "{listed}"
    );
    // as the kernel says it
    sandbox.ctl(["--vm", "a", "pause"]).ok();
    let stats = sandbox.ctl_json(["--vm", "a", "stats"]);
    let bytes = |name: &str| stats[name].as_u64().unwrap();
    assert_eq!(bytes("shared_bytes") + bytes("own_bytes"), bytes("resident_bytes"), "{stats}");
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", qemu_of(&sandbox, "a"))).unwrap();
    let mapping = smaps.split("VmFlags:").find(|mapping| mapping.contains("template/memory")).unwrap();
    let kib = |field: &str| {
        let line = mapping.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let shared = (kib("Rss:") - kib("Anonymous:")) << 10;
    assert!(shared > 0 && bytes("shared_bytes") == shared, "{shared}: {stats}");
    end(&sandbox, "b");
    assert_eq!(status("a")["siblings"], 0);
    end(&sandbox, "a");
    sandbox.is_clean();
}

fn kill_of(sandbox: &Sandbox, vm: &str) {
    let pid = sandbox.ctl_json(["--vm", vm, "status"])["supervisor_pid"].as_i64().unwrap();
    kill(i32::try_from(pid).unwrap());
}

#[test]
fn a_forks_console_begins_with_its_templates() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let words = ["--name", "base", "--mem", "64", "--ephemeral", "--forkable", image.to_str().unwrap()];
    sandbox.detached(words);
    let greeting = Guest::ReactsToButton.greeting();
    let waits = format!("console={greeting}");
    sandbox.ctl(["wait", &waits]).ok();
    sandbox.ctl(["freeze", "template"]).ok();
    for log_size in ["128K", "16M"] {
        let vm = sandbox.detached(["--from", "template", "--log-size", log_size]);
        let printed = sandbox.ctl(["--vm", &vm, "wait", &waits, "--timeout", "5s"]).ok();
        assert!(printed.stdout.contains(greeting), "{printed:?}");
        assert!(sandbox.run(["logs", &vm]).ok().stdout.contains(greeting));
        // but not as what it prints now
        sandbox.ctl(["--vm", &vm, "wait", "--from-now", &waits, "--timeout", "200ms"]).fails(5, &[]);
        // and after a takeover
        kill_of(&sandbox, &vm);
        sandbox.ctl(["--vm", &vm, "wait", &waits, "--timeout", "5s"]).ok();
        end(&sandbox, &vm);
    }
    // what was printed since comes behind it, also in a template of the fork
    sandbox.detached(["--from", "template", "--name", "fork"]);
    sandbox.ctl(["--vm", "fork", "powerdown"]).ok();
    // by its name: it may have ended by now, as others have
    sandbox.ctl(["--vm", "fork", "wait", "exit"]).ok();
    sandbox.is_clean();
}

/// The image that the state is written to, its block node and QEMU's job go with the supervisor.
#[test]
fn at_any_moment_of_a_paused_vms_freeze_the_supervisor_can_be_killed() {
    let chance = &mut Chance::new();
    let sandbox = small(&["--ephemeral"]);
    sandbox.ctl(["pause"]).ok();
    let counted = sandbox.counter();
    for round in 0..repetitions(8) {
        let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
        let delay = chance.delay(std::time::Duration::from_millis(80));
        println!("round {round}: killed after {delay:?}");
        let template = format!("template{round}");
        let freezing = sandbox.vmrun().args(["ctl", "freeze", &template, "--keep-running"]).spawn().unwrap();
        std::thread::sleep(delay);
        kill(i32::try_from(supervisor).unwrap());
        let code = Done::of(freezing.wait_with_output().unwrap()).code;
        assert_eq!(sandbox.ctl_json(["status"])["state"], "paused");
        let nodes = sandbox.ctl(["qmp", r#"{"execute":"query-named-block-nodes"}"#]).ok().stdout;
        let jobs = sandbox.ctl(["qmp", r#"{"execute":"query-jobs"}"#]).ok().stdout;
        assert!(!nodes.contains("vmrun-state") && jobs.trim() == "[]", "{jobs} {nodes}");
        assert!(code != 0 || sandbox.file(&template).join("machine").exists());
        let names = fs::read_dir(sandbox.path()).unwrap().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().contains(".part")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    sandbox.ctl(["freeze", "last"]).ok();
    fork(&sandbox, "last", "fork");
    assert_eq!(sandbox.counter(), counted);
    end(&sandbox, "fork");
    sandbox.is_clean();
}

/// Under `--ephemeral` a packed image is unpacked into the folder that goes with the VM.
#[test]
fn an_image_that_was_unpacked_for_the_vm_comes_along() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Counts);
    assert!(std::process::Command::new("gzip").arg(&image).status().unwrap().success());
    let words = ["--name", "base", "--mem", "64", "--ephemeral", "--forkable", "--unpack", "guest.img.gz"];
    sandbox.detached(words);
    sandbox.booted("base");
    sandbox.ctl(["freeze", "template"]).ok();
    sandbox.is_clean();
    fs::rename(sandbox.file("template"), sandbox.file("moved")).unwrap();
    fork(&sandbox, "moved", "fork");
    // the disk, not the memory: it boots from it again
    sandbox.ctl(["reset"]).ok();
    sandbox.booted("fork");
    end(&sandbox, "fork");
    sandbox.is_clean();
}
