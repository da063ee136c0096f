//! Templates and forks: a booted VM that is frozen once, and started from there any number of times.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::boot_sector::Guest;
use crate::support::chance::{Chance, repetitions};
use crate::support::orphan::{kill, kill_supervisor};
use crate::support::processes::{eventually, send};
use crate::support::sandbox::{Done, Sandbox, linux_guest};

/// A Linux guest that has booted and can be frozen, called `base`.
fn base(options: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let guest = linux_guest();
    let words = ["--name", "base", "--mem", "256", "--ephemeral", "--forkable", "--wait", "agent"];
    sandbox.detached(words.iter().chain(options).copied().chain([guest.to_str().unwrap()]));
    sandbox
}

/// A command in a guest.
#[track_caller]
fn exec(sandbox: &Sandbox, vm: &str, script: &str) -> String {
    sandbox.ctl(["--vm", vm, "exec", "--", "sh", "-c", script]).line()
}

#[track_caller]
fn fork(sandbox: &Sandbox, name: &str) {
    assert_eq!(sandbox.detached(["--from", "template", "--name", name]), name);
}

#[track_caller]
fn end(sandbox: &Sandbox, vm: &str) {
    sandbox.ctl(["--vm", vm, "shutdown", "--force"]).ok();
}

/// All bytes of a folder's files.
fn bytes_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// A boot-sector guest that runs and can be frozen, called `base`.
fn small(options: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Counts);
    let words = ["--name", "base", "--mem", "64"];
    sandbox.detached(words.iter().chain(options).copied().chain([image.to_str().unwrap()]));
    sandbox.booted("base");
    sandbox
}

#[test]
fn forks_share_a_template_and_nothing_else() {
    let sandbox = base(&["--disk", "data.img,size=8M", "--publish", "0:80"]);
    let image = fs::read(sandbox.file("data.img")).unwrap();
    exec(&sandbox, "base", "mkdir -p /tmp; echo template > /tmp/mark; printf template > /dev/vda; sync");
    let frozen = sandbox.ctl(["--vm", "base", "freeze", "template", "--keep-running"]).ok();
    assert!(frozen.stdout.contains("template"), "{frozen:?}");
    // it goes on, and what it does does not reach the template
    exec(&sandbox, "base", "echo base > /tmp/mark; printf base_____ > /dev/vda; sync");
    let template = bytes_of(&sandbox.file("template"));
    assert!(["machine", "memory", "overlay-disk0.qcow2"].iter().all(|name| template.contains_key(*name)));
    for file in template.keys() {
        let mode = fs::metadata(sandbox.file("template").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let names = ["a", "b", "c"];
    let mut random = Vec::new();
    for name in names {
        fork(&sandbox, name);
        assert_eq!(exec(&sandbox, name, "cat /tmp/mark; head -c 8 /dev/vda"), "template\ntemplate");
        random.push(exec(&sandbox, name, "head -c 16 /dev/urandom | od -An -tx1"));
        exec(&sandbox, name, &format!("echo {name} > /tmp/mark; printf fork-{name} > /dev/vda; sync"));
    }
    for name in names {
        let seen = exec(&sandbox, name, "cat /tmp/mark; head -c 6 /dev/vda");
        assert_eq!(seen, format!("{name}\nfork-{name}"));
        // the guest knows, and makes its random numbers anew
        assert!(exec(&sandbox, name, "dmesg").contains("reseeded due to virtual machine fork"));
        // its memory is the template's, copied on write
        let pid = sandbox.ctl_json(["--vm", name, "status"])["qemu_pid"].as_i64().unwrap();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let memory = sandbox.file("template/memory");
        let mapped: Vec<&str> =
            maps.lines().filter(|line| line.ends_with(memory.to_str().unwrap())).collect();
        assert!(!mapped.is_empty() && mapped.iter().all(|line| line.contains(" rw-p ")), "{mapped:?}");
    }
    random.sort();
    random.dedup();
    assert_eq!(random.len(), names.len(), "forks with the same random numbers");
    // forks are changed, taken over and shut down as others
    sandbox.ctl(["--vm", "a", "disk-add", "hot.img,size=8M,serial=HOT,id=hot"]).ok();
    exec(&sandbox, "a", "until grep -q HOT /sys/block/*/serial; do usleep 20000; done");
    sandbox.ctl(["--vm", "a", "disk-remove", "hot"]).ok();
    let port = sandbox.ctl(["--vm", "b", "port-add", "0:80"]).ok();
    assert!(port.stdout.trim().parse::<u16>().is_ok(), "{port:?}");
    let status = sandbox.ctl_json(["--vm", "c", "status"]);
    kill(i32::try_from(status["supervisor_pid"].as_i64().unwrap()).unwrap());
    assert_eq!(exec(&sandbox, "c", "cat /tmp/mark"), "c");
    for name in ["base", "a", "b", "c"] {
        sandbox.ctl(["--vm", name, "shutdown"]).ok();
    }
    sandbox.is_clean();
    assert!(bytes_of(&sandbox.file("template")) == template, "the template has changed");
    assert!(fs::read(sandbox.file("data.img")).unwrap() == image, "the image has changed");
    // a template that was moved is as good
    fs::rename(sandbox.file("template"), sandbox.file("elsewhere")).unwrap();
    assert_eq!(sandbox.detached(["--from", "elsewhere"]), "base");
    assert_eq!(exec(&sandbox, "base", "cat /tmp/mark; head -c 8 /dev/vda"), "template\ntemplate");
    end(&sandbox, "base");
    sandbox.is_clean();
}

#[test]
fn a_fork_can_be_frozen_and_forked_again() {
    let sandbox = base(&["--disk", "data.img,size=8M"]);
    exec(&sandbox, "base", "mkdir -p /tmp; echo 1 > /tmp/mark; printf first > /dev/vda; sync");
    let frozen = sandbox.ctl(["--vm", "base", "--json", "freeze", "template"]).json();
    assert_eq!(frozen["ending"], "saved", "{frozen}");
    sandbox.is_clean();
    let mut from = "template".to_owned();
    for generation in 2..4 {
        assert_eq!(sandbox.detached(["--from", &from, "--name", "fork"]), "fork");
        assert_eq!(exec(&sandbox, "fork", "cat /tmp/mark"), (generation - 1).to_string());
        exec(
            &sandbox,
            "fork",
            &format!("echo {generation} > /tmp/mark; printf {generation} > /dev/vda; sync"),
        );
        from = format!("template{generation}");
        sandbox.ctl(["--vm", "fork", "freeze", &from]).ok();
        sandbox.is_clean();
    }
    // its disks lie over those of the template that it comes from
    fs::rename(sandbox.file("template"), sandbox.file("moved")).unwrap();
    sandbox.run(["qemu", "--from", &from]).fails(1, &["template/overlay-disk0.qcow2"]);
    fs::rename(sandbox.file("moved"), sandbox.file("template")).unwrap();
    for (from, mark, disk) in
        [("template3", "3", "3irst"), ("template2", "2", "2irst"), ("template", "1", "first")]
    {
        assert_eq!(sandbox.detached(["--from", from, "--name", "fork"]), "fork");
        assert_eq!(exec(&sandbox, "fork", "cat /tmp/mark; head -c 5 /dev/vda"), format!("{mark}\n{disk}"));
        end(&sandbox, "fork");
    }
    sandbox.is_clean();
}

#[test]
fn a_hundred_tests_each_in_a_pristine_fork() {
    let sandbox = small(&["--ephemeral", "--forkable"]);
    sandbox.ctl(["freeze", "template"]).ok();
    let began = Instant::now();
    for number in 0..100 {
        let name = format!("case{number}");
        fork(&sandbox, &name);
        // it goes on from where it was
        assert!(sandbox.counter() > 0);
        end(&sandbox, &name);
    }
    println!("100 forks in {:?}", began.elapsed());
    sandbox.is_clean();
}

#[test]
fn what_cannot_be_frozen_or_forked_is_refused_before_anything_happens() {
    let sandbox = small(&[]);
    let status = sandbox.ctl_json(["status"]);
    sandbox.ctl(["freeze", "template"]).fails(4, &["its memory is no file", "--forkable"]);
    assert_eq!(sandbox.ctl_json(["status"])["state"], status["state"]);
    assert!(!sandbox.file("template").exists());
    sandbox.ctl(["save", "vm.saved"]).ok();
    sandbox.is_clean();
    let from = |words: &[&str]| sandbox.run(["qemu", "--from"].iter().chain(words));
    from(&["vm.saved"]).fails(1, &["vm.saved"]);
    from(&["nowhere"]).fails(1, &["nowhere"]);
    from(&["template", "--mem", "1G"]).fails(2, &["--mem"]);
    from(&["template", "--ephemeral"]).fails(2, &["--ephemeral"]);
    from(&["template", "--state", "s"]).fails(2, &["--state"]);
    let image = sandbox.file("guest.img");
    let start =
        |words: &[&str]| sandbox.run(["qemu", "--forkable", image.to_str().unwrap()].iter().chain(words));
    start(&["--machine", "microvm"]).fails(2, &["microvm", "random numbers"]);
    let shared = sandbox.path().to_str().unwrap();
    start(&["--virtiofs", &format!("{shared},tag=t")]).fails(2, &["frozen", "shared folder"]);
    sandbox.is_clean();

    // a VM that keeps its disk: only as a whole
    sandbox.detached(["--name", "base", "--mem", "64", "--forkable", image.to_str().unwrap()]);
    sandbox.booted("base");
    sandbox.ctl(["freeze", "template", "--keep-running"]).fails(4, &["--ephemeral"]);
    fs::create_dir(sandbox.file("taken")).unwrap();
    fs::write(sandbox.file("taken/thesis"), "x").unwrap();
    sandbox.ctl(["freeze", "taken"]).fails(4, &["taken", "exists"]);
    assert_eq!(fs::read(sandbox.file("taken/thesis")).unwrap(), b"x");
    sandbox.ctl(["freeze", "nowhere/template"]).fails(1, &["nowhere/template"]);
    sandbox.ctl(["freeze", "template"]).ok();
    sandbox.is_clean();
    sandbox.run(["qemu", "--restore", "template/machine"]).fails(1, &["part of a template", "--from"]);
    fork(&sandbox, "good");
    end(&sandbox, "good");

    // what the fork needs is not as it was
    let refused = |what: &str, words: &[&str]| {
        let done = from(&["template"]).fails(1, words);
        assert!(!done.stderr.contains("panicked"), "{what}: {done:?}");
        sandbox.is_clean();
    };
    let memory = sandbox.file("template/memory");
    let bytes = fs::read(&memory).unwrap();
    fs::write(&memory, &bytes[..bytes.len() - 1]).unwrap();
    refused("memory that is cut off", &["memory", "bytes instead of"]);
    fs::write(&memory, &bytes).unwrap();
    fs::set_permissions(&memory, Permissions::from_mode(0o622)).unwrap();
    refused("memory that others can write to", &["memory", "others"]);
    fs::set_permissions(&memory, Permissions::from_mode(0o600)).unwrap();
    fs::rename(&memory, sandbox.file("memory")).unwrap();
    refused("no memory", &["memory"]);
    fs::rename(sandbox.file("memory"), &memory).unwrap();
    let machine = sandbox.file("template/machine");
    let state = fs::read(&machine).unwrap();
    fs::write(&machine, &state[..state.len() / 2]).unwrap();
    refused("a state that is cut off", &["machine"]);
    let mut damaged = state.clone();
    damaged.iter_mut().skip(256 << 10).step_by(3).for_each(|byte| *byte ^= 0x55);
    fs::write(&machine, &damaged).unwrap();
    refused("a state that is damaged", &["QEMU"]);
    fs::write(&machine, &state).unwrap();
    fork(&sandbox, "good");
    end(&sandbox, "good");
    let old = fs::read(&image).unwrap();
    fs::write(&image, &old).unwrap();
    refused("an image that was written", &["guest.img", "changed"]);
    fs::remove_file(&image).unwrap();
    refused("an image that is gone", &["guest.img"]);
}

#[test]
fn at_any_moment_of_a_freeze_the_supervisor_can_be_killed() {
    let chance = &mut Chance::new();
    for round in 0..repetitions(6) {
        let sandbox = small(&["--ephemeral", "--forkable"]);
        let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
        let supervisor = i32::try_from(supervisor).unwrap();
        let delay = chance.delay(std::time::Duration::from_millis(60));
        println!("round {round}: killed after {delay:?}");
        let mut freezing = sandbox.vmrun();
        let freezing = freezing.args(["ctl", "freeze", "template", "--keep-running"]).spawn().unwrap();
        std::thread::sleep(delay);
        kill(supervisor);
        let code = Done::of(freezing.wait_with_output().unwrap()).code;
        // a new supervisor, and the guest runs
        assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
        let before = sandbox.counter();
        eventually("the guest counts", || sandbox.counter() != before);
        // either it is whole, or it is not there
        let template = sandbox.file("template");
        match template.join("machine").exists() {
            true => {
                fork(&sandbox, "fork");
                end(&sandbox, "fork");
            }
            false => assert!(code != 0 && !template.exists(), "{code}: {:?}", bytes_of(&template).keys()),
        }
        end(&sandbox, "base");
        sandbox.is_clean();
    }
}

#[test]
fn a_fork_whose_supervisor_or_qemu_is_killed_leaves_nothing() {
    let sandbox = small(&["--ephemeral", "--forkable"]);
    sandbox.ctl(["freeze", "template"]).ok();
    let template = bytes_of(&sandbox.file("template"));
    fork(&sandbox, "fork");
    let qemu = |status: &Value| i32::try_from(status["qemu_pid"].as_i64().unwrap()).unwrap();
    let pid = qemu(&sandbox.ctl_json(["status"]));
    kill_supervisor(&sandbox);
    let again = sandbox.ctl_json(["status"]);
    assert_eq!(qemu(&again), pid);
    send(pid, Signal::SIGKILL);
    sandbox.ctl(["wait", "exit"]);
    sandbox.is_clean();
    let vm = sandbox.foreground(["--from", "template"]);
    eventually("the fork runs", || sandbox.ctl(["status"]).code == 0);
    vm.signal(Signal::SIGKILL);
    vm.end();
    sandbox.run(["ls"]).ok();
    sandbox.is_clean();
    assert!(bytes_of(&sandbox.file("template")) == template);
}

#[test]
fn snapshots_of_a_vm_that_was_frozen_and_goes_on_are_good() {
    let sandbox = small(&["--ephemeral", "--forkable", "--disk", "data.qcow2,size=8M"]);
    sandbox.ctl(["snapshot-save", "before"]).ok();
    sandbox.ctl(["freeze", "template", "--keep-running"]).ok();
    sandbox.ctl(["snapshot-save", "after"]).ok();
    for name in ["before", "after"] {
        sandbox.ctl(["snapshot-load", name]).ok();
        let counted = sandbox.counter();
        eventually("the guest counts", || sandbox.counter() != counted);
    }
    end(&sandbox, "base");
    // and of a fork, which began without its memory in the stream
    fork(&sandbox, "fork");
    sandbox.ctl(["snapshot-save", "mine"]).ok();
    sandbox.ctl(["freeze", "again", "--keep-running"]).ok();
    sandbox.ctl(["snapshot-load", "mine"]).ok();
    end(&sandbox, "fork");
    sandbox.is_clean();
}
