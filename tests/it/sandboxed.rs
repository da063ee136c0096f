//! QEMU and its helpers can do no more, and know no more, than they need.

use std::collections::BTreeSet;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::boot_sector::Guest;
use crate::support::processes::{eventually, of, qemu_of};
use crate::support::sandbox::Sandbox;

/// What makes QEMU run a program: the monitor's way of migration, and a network device's script.
fn attempts(sandbox: &Sandbox) -> Vec<String> {
    let program = sandbox.file("program");
    std::fs::write(&program, format!("#!/bin/sh\ntouch '{}'\n", sandbox.file("it-ran").display())).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let qmp = |execute: &str, arguments: serde_json::Value| {
        json!({ "execute": execute, "arguments": arguments }).to_string()
    };
    vec![
        qmp("migrate", json!({ "uri": format!("exec:{}", program.display()) })),
        qmp("netdev_add", json!({ "type": "tap", "id": "t", "ifname": "vmruntest0", "script": program })),
        qmp("netdev_add", json!({ "type": "bridge", "id": "b", "br": "nobr0", "helper": program })),
    ]
}

#[test]
fn qemu_runs_no_program() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let count = attempts(&sandbox).len();
    for (number, attempt) in attempts(&sandbox).into_iter().enumerate() {
        let vm = sandbox.foreground([&image]);
        eventually("it is there", || sandbox.ctl(["status"]).code == 0);
        assert_eq!(sandbox.ctl_json(["status"])["sandbox"], true);
        // QEMU dies of it, refuses, or does nothing
        let asked = sandbox.ctl(["qmp", &attempt]);
        if asked.code == 3 {
            let ended = vm.end();
            assert_eq!(ended.code(), 11, "{attempt}: {ended:#?}");
            assert!(ended.stderr.contains("SIGSYS"), "{attempt}: {ended:#?}");
            assert_eq!(sandbox.outcome()["ending"], "crashed", "{attempt}");
        } else {
            println!("attempt {number} of {count}: {} {}", asked.code, asked.stderr);
            sandbox.ctl(["shutdown", "--force"]);
            vm.end();
        }
        assert!(!sandbox.file("it-ran").exists(), "{attempt}");
        sandbox.is_clean();
    }
}

#[test]
fn without_the_sandbox_a_program_runs_and_status_says_so() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    sandbox.detached(["--no-sandbox".as_ref(), image.as_os_str()]);
    assert_eq!(sandbox.ctl_json(["status"])["sandbox"], false);
    assert!(sandbox.ctl(["status"]).ok().stdout.contains("off (--no-sandbox)"));
    // this is what the test above would see if the sandbox did nothing
    sandbox.ctl(["qmp", &attempts(&sandbox)[0]]);
    eventually("the program has run", || sandbox.file("it-ran").exists());
    sandbox.ctl(["shutdown", "--force"]);
}

/// What `/proc/PID/fd` leads to.
fn descriptors(pid: i32) -> Vec<String> {
    let folder = format!("/proc/{pid}/fd");
    let links = std::fs::read_dir(folder).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        Some(std::fs::read_link(path).ok()?.to_string_lossy().into_owned())
    });
    links.collect()
}

fn is_meant(link: &str, allowed: &[&Path]) -> bool {
    ["socket:", "pipe:", "anon_inode:", "/memfd:", "/dev/null", "/dev/kvm", "/dev/urandom"]
        .iter()
        .any(|kind| link.starts_with(kind))
        || allowed.iter().any(|path| Path::new(link) == *path)
}

#[test]
fn qemu_and_helpers_hold_only_what_is_meant_and_see_no_secrets() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let shared = sandbox.file("shared");
    std::fs::create_dir(&shared).unwrap();
    // things that a careless parent leaves open
    let leak = std::fs::File::create(sandbox.file("leak")).unwrap();
    let (end, _other_end) = std::io::pipe().unwrap();
    let mut command = sandbox.vmrun();
    command
        .args(["qemu", "--detached", "--virtiofs", "shared"])
        .arg(&image)
        .env("NOTIFY_SOCKET", "/nowhere")
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1")
        .env("AWS_SECRET_ACCESS_KEY", "s3cret")
        .env("GITHUB_TOKEN", "s3cret")
        .env("XDG_SESSION_TOKEN", "s3cret")
        .env("LD_PRELOAD", "");
    for descriptor in [std::os::fd::AsFd::as_fd(&leak), std::os::fd::AsFd::as_fd(&end)] {
        nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    }
    let started = command.output().unwrap();
    assert!(started.status.success(), "{started:?}");

    let helpers: Vec<_> = of(sandbox.path())
        .into_iter()
        .filter(|process| process.is_qemu() || process.command.contains("virtiofsd"))
        .collect();
    assert!(helpers.len() >= 2, "{helpers:#?}");
    for helper in &helpers {
        let environment = std::fs::read(format!("/proc/{}/environ", helper.pid)).unwrap();
        let environment = String::from_utf8_lossy(&environment);
        let names: BTreeSet<&str> =
            environment.split('\0').filter_map(|entry| entry.split('=').next()).collect();
        for secret in
            ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LD_PRELOAD", "GITHUB_TOKEN", "XDG_SESSION_TOKEN"]
        {
            assert!(!names.contains(secret), "{}: {names:?}", helper.command);
        }
        assert!(!environment.contains("s3cret"), "{}: {names:?}", helper.command);
    }
    let qemu = qemu_of(sandbox.path());
    // its standard streams
    let [input, output] = ["serial.in", "serial.out"].map(|pipe| sandbox.runtime().join("guest").join(pipe));
    for link in descriptors(qemu) {
        assert!(is_meant(&link, &[&image, &input, &output]), "QEMU holds {link}");
        assert!(!link.ends_with("/leak"));
    }
    for helper in helpers.iter().filter(|process| !process.is_qemu()) {
        for link in descriptors(helper.pid) {
            assert!(!link.ends_with("/leak") && !link.ends_with("guest.img"), "virtiofsd holds {link}");
        }
    }
    // the count is fixed, so that a new one is noticed
    println!("QEMU holds {} descriptors", descriptors(qemu).len());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(qemu), Signal::SIGKILL).unwrap();
    eventually("it is over", || sandbox.ctl(["status"]).code == 3);
}
