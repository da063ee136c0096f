//! `ctl fork`: forks of a running VM that goes on.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::boot_sector::Guest;
use crate::support::chance::{Chance, repetitions};
use crate::support::orphan::kill;
use crate::support::processes::{eventually, send};
use crate::support::sandbox::{Done, Sandbox, linux_guest};

/// A guest of a boot sector that runs and can be forked, called `base`.
fn small() -> Sandbox {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Counts);
    sandbox.detached(["--name", "base", "--mem", "64", "--ephemeral", "--forkable", image.to_str().unwrap()]);
    sandbox.booted("base");
    sandbox
}

/// A Linux guest that can be forked, called `base`.
fn linux(options: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let guest = linux_guest();
    let words = ["--name", "base", "--mem", "256", "--ephemeral", "--forkable", "--wait", "agent"];
    sandbox.detached(words.iter().chain(options).copied().chain([guest.to_str().unwrap()]));
    sandbox
}

#[track_caller]
fn exec(sandbox: &Sandbox, vm: &str, script: &str) -> String {
    sandbox.ctl(["--vm", vm, "exec", "--", "sh", "-c", script]).line()
}

#[track_caller]
fn end(sandbox: &Sandbox, vm: &str) {
    sandbox.ctl(["--vm", vm, "shutdown", "--force"]).ok();
}

/// Kills the supervisor and QEMU.
fn kill_all_of(sandbox: &Sandbox, vm: &str) {
    let status = sandbox.ctl_json(["--vm", vm, "status"]);
    for pid in ["supervisor_pid", "qemu_pid"] {
        kill(i32::try_from(status[pid].as_i64().unwrap()).unwrap());
    }
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    let listed = sandbox.run(["ls", "--json"]).json();
    let listed = listed.as_array().unwrap().iter();
    listed.map(|vm| vm["name"].as_str().unwrap().to_owned()).collect()
}

/// How many VMs use each template in the cache.
fn templates(sandbox: &Sandbox) -> Vec<u64> {
    let found = sandbox.run(["templates", "--json"]).json();
    let mut forks: Vec<u64> =
        found.as_array().unwrap().iter().map(|template| template["forks"].as_u64().unwrap()).collect();
    forks.sort_unstable();
    forks
}

#[test]
fn a_vm_goes_on_beside_its_forks() {
    let sandbox = linux(&["--publish", "0:80"]);
    exec(&sandbox, "base", "echo before > /tmp/mark");
    let forked = ["--vm", "base", "fork", "--count", "3", "--publish", "0:80", "--wait", "agent"];
    let made = sandbox.ctl(forked).ok();
    let forks: Vec<&str> = made.stdout.lines().collect();
    assert_eq!(forks, ["base-1", "base-2", "base-3"]);
    exec(&sandbox, "base", "echo base > /tmp/mark");
    let mut ports = Vec::new();
    for vm in &forks {
        assert_eq!(exec(&sandbox, vm, "cat /tmp/mark"), "before");
        exec(&sandbox, vm, &format!("echo {vm} > /tmp/mark"));
        ports.push(sandbox.ctl_json(["--vm", vm, "port-list"])[0]["host_port"].as_u64().unwrap());
    }
    for vm in forks.iter().chain(&["base"]) {
        assert_eq!(exec(&sandbox, vm, "cat /tmp/mark"), *vm);
    }
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 3);
    // names that are taken are passed over, and the JSON has all of each
    end(&sandbox, "base-2");
    let more = sandbox.ctl_json(["--vm", "base", "fork", "--count", "2", "--paused"]);
    assert!(more["paused_ms"].as_u64().is_some_and(|paused| paused < 60_000), "{more}");
    let more: Vec<&Value> = more["forks"].as_array().unwrap().iter().collect();
    assert_eq!([&more[0]["name"], &more[1]["name"]], ["base-2", "base-4"]);
    assert_eq!(more[0]["state"], "paused", "{:?}", more[0]);
    assert_eq!(templates(&sandbox), [2, 2]);
    for vm in ["base-2", "base-4", "base-1", "base-3", "base"] {
        end(&sandbox, vm);
    }
    assert!(templates(&sandbox).is_empty(), "each template goes with its last fork");
    sandbox.is_clean();
}

#[test]
fn what_fails_leaves_no_fork_and_no_template() {
    let sandbox = small();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("{}:80", taken.local_addr().unwrap().port());
    for (code, flags, told) in [
        (2, &["--count", "0"][..], "--count"),
        (2, &["--count", "x"], "--count"),
        (2, &["--name", "a/b"], "--name"),
        (2, &["--mem", "1G"], "--mem"),
        (1, &["--count", "1", "--publish", &port], "is in use"),
        (2, &["--count", "2", "--publish", &port], "cannot share"),
        (5, &["--count", "2", "--wait", "console=never", "--wait-timeout", "500ms"], "never"),
    ] {
        let words = ["--vm", "base", "fork"].iter().chain(flags);
        let done = sandbox.ctl(words);
        assert_eq!(done.code, code, "{flags:?}: {done:?}");
        assert!(done.stderr.contains(told) && done.stdout.is_empty(), "{done:?}");
        // it has no such flag
        assert!(!done.stderr.contains("--keep"), "{done:?}");
        assert_eq!(names(&sandbox), ["base"], "{flags:?}");
        assert!(templates(&sandbox).is_empty(), "{flags:?}");
    }
    drop(taken);
    end(&sandbox, "base");
    let image = sandbox.file("guest.img");
    sandbox.detached(["--name", "base", "--mem", "64", image.to_str().unwrap()]);
    sandbox.ctl(["fork"]).fails(4, &["--forkable"]);
    assert!(templates(&sandbox).is_empty());
    end(&sandbox, "base");
    sandbox.is_clean();
}

/// Two commands that want the same names at the same time.
#[test]
fn a_name_that_is_taken_meanwhile_is_passed_over() {
    let sandbox = small();
    let image = sandbox.file("guest.img");
    let words = ["--name", "other", "--mem", "64", "--ephemeral", "--forkable", image.to_str().unwrap()];
    sandbox.detached(words);
    for round in 0..repetitions(2) {
        let prefix = format!("x{round}");
        let fork = |vm: &str| {
            let mut command = sandbox.vmrun();
            command.args(["ctl", "--vm", vm, "fork", "--count", "4", "--name", &prefix]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let forks = ["base", "other"].map(fork).map(|child| Done::of(child.wait_with_output().unwrap()).ok());
        let mut made: Vec<&str> = forks.iter().flat_map(|done| done.stdout.lines()).collect();
        made.sort_unstable();
        made.dedup();
        assert_eq!(made.len(), 8, "{forks:?}");
        for vm in made {
            end(&sandbox, vm);
        }
    }
    end(&sandbox, "other");
    end(&sandbox, "base");
    sandbox.is_clean();
}

/// Disks of a fork of a fork lie over those of two templates, which both stay as long as it does.
#[test]
fn forks_of_forks_keep_what_they_lie_over() {
    let sandbox = linux(&["--disk", "data.img,size=8M"]);
    let write = |vm: &str, at: u32| {
        exec(&sandbox, vm, &format!("printf {vm} | dd of=/dev/vda bs=64k seek={at} conv=notrunc 2>&1; sync"));
    };
    let read = |vm: &str, at: u32| {
        exec(
            &sandbox,
            vm,
            &format!(
                "echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/vda bs=64k skip={at} count=1 2>/dev/null | head -c 8 | tr -d '\\0'"
            ),
        )
    };
    write("base", 1);
    sandbox.ctl(["--vm", "base", "fork", "--name", "one"]).ok();
    end(&sandbox, "base");
    write("one-1", 2);
    sandbox.ctl(["--vm", "one-1", "fork", "--name", "two", "--count", "2"]).ok();
    end(&sandbox, "one-1");
    assert_eq!(templates(&sandbox), [2, 2], "both are in use by both");
    end(&sandbox, "two-2");
    write("two-1", 3);
    for (at, text) in [(1, "base"), (2, "one-1"), (3, "two-1")] {
        assert_eq!(read("two-1", at), text);
    }
    // what is frozen to stay has all of it, also when its VM has ended
    sandbox.ctl(["--vm", "two-1", "freeze", "lasting"]).ok();
    sandbox.run(["templates", "prune", "--older-than", "1h"]).ok();
    sandbox.detached(["--from", "lasting", "--name", "again"]);
    for (at, text) in [(1, "base"), (2, "one-1"), (3, "two-1")] {
        assert_eq!(read("again", at), text);
    }
    end(&sandbox, "again");
    // without a lasting one none is left
    sandbox.is_clean();
}

#[test]
fn killed_forks_take_their_template_along() {
    let sandbox = small();
    sandbox.ctl(["--vm", "base", "fork", "--count", "2"]).ok();
    kill_all_of(&sandbox, "base-1");
    assert_eq!(names(&sandbox).len(), 2);
    assert_eq!(templates(&sandbox), [1]);
    kill_all_of(&sandbox, "base-2");
    assert_eq!(names(&sandbox), ["base"]);
    assert!(templates(&sandbox).is_empty());
    end(&sandbox, "base");
    sandbox.is_clean();
}

#[test]
fn at_any_moment_the_command_can_be_killed() {
    let sandbox = small();
    let mut chance = Chance::new();
    for _ in 0..repetitions(6) {
        let mut command = sandbox.vmrun();
        command.args(["ctl", "--vm", "base", "fork", "--count", "4", "--name", "x"]);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(chance.below(400)));
        send(child.id().cast_signed(), Signal::SIGKILL);
        let was_killed = !child.wait().unwrap().success();
        if was_killed {
            eventually("its forks have ended", || names(&sandbox) == ["base"]);
        }
        for name in names(&sandbox).iter().filter(|name| *name != "base") {
            end(&sandbox, name);
        }
        // the freeze goes on without who asked for it
        eventually("the VM goes on", || sandbox.ctl_json(["--vm", "base", "status"])["state"] == "running");
        eventually("nothing else is left", || {
            sandbox.run(["templates", "prune", "--older-than", "1h"]).ok();
            templates(&sandbox).is_empty()
        });
    }
    end(&sandbox, "base");
    sandbox.is_clean();
}
