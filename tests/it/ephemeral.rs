//! `--ephemeral`: the image stays as it was, and nothing is left.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::boot_sector::{self, Guest};
use crate::support::cd;
use crate::support::processes::{eventually, has_ended, of, qemu_of, send};
use crate::support::sandbox::{Foreground, Sandbox};

/// An image that writes to itself would need another guest: this one writes to its second disk.
fn writer(sandbox: &Sandbox) -> [String; 2] {
    let image = sandbox.boot_sector(Guest::WritesDisk);
    let data = sandbox.file("data.img");
    std::fs::write(&data, vec![0; 1 << 20]).unwrap();
    [image.to_str().unwrap().to_owned(), format!("{},format=raw", data.display())]
}

#[test]
fn writes_do_not_reach_any_image() {
    let sandbox = Sandbox::new();
    let [image, data] = writer(&sandbox);
    let before = std::fs::read(&image).unwrap();
    let vm = sandbox.foreground(["--ephemeral", &image, "--disk", &data]);
    vm.wait_for("wrote 00000128");
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    assert_eq!(vm.end().code(), 0);
    assert!(std::fs::read(sandbox.file("data.img")).unwrap().iter().all(|byte| *byte == 0));
    assert_eq!(std::fs::read(&image).unwrap(), before);
    assert!(!sandbox.file("guest-state").exists());
    sandbox.is_clean();
    // and without it they do
    let vm = sandbox.foreground([&image, "--disk", &data]);
    vm.wait_for("wrote 00000128");
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    assert_eq!(vm.end().code(), 0);
    assert_eq!(std::fs::read(sandbox.file("data.img")).unwrap()[..4], 1_u32.to_le_bytes());
}

#[test]
fn five_share_an_image() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let vms: Vec<Foreground> = (0..5)
        .map(|_| {
            sandbox
                .foreground(["--ephemeral"].map(Into::into).iter().chain([&image.clone().into_os_string()]))
        })
        .collect();
    for vm in &vms {
        vm.wait_for(Guest::ReactsToButton.greeting());
    }
    let names: Vec<String> = sandbox
        .run(["ls", "--json"])
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|vm| vm["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 5, "{names:?}");
    for vm in &vms {
        vm.signal(Signal::SIGTERM);
    }
    for vm in vms {
        assert_eq!(vm.end().code(), 0);
    }
    assert!(!sandbox.file("guest-state").exists());
    sandbox.is_clean();
}

#[test]
fn what_a_kill_leaves_goes_with_the_next_start() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let vm = sandbox.foreground(["--ephemeral".as_ref(), image.as_os_str()]);
    vm.wait_for(Guest::ReactsToButton.greeting());
    let qemu = qemu_of(sandbox.path());
    send(vm.pid(), Signal::SIGKILL);
    vm.end();
    eventually("QEMU has died with it", || has_ended(qemu));
    let left = sandbox.ephemeral_states();
    assert_eq!(left.len(), 1, "{left:?}");
    // under another name, too
    let vm =
        sandbox.foreground(["--ephemeral".as_ref(), "--name".as_ref(), "next".as_ref(), image.as_os_str()]);
    vm.wait_for(Guest::ReactsToButton.greeting());
    assert!(!left[0].exists() && sandbox.ephemeral_states().len() == 1);
    vm.signal(Signal::SIGTERM);
    assert_eq!(vm.end().code(), 0);
    assert!(!sandbox.file("guest-state").exists());
    assert_eq!(sandbox.run(["ls"]).line(), "");
    sandbox.is_clean();
}

#[test]
fn a_crash_leaves_no_overlay() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::IgnoresButton);
    let vm = sandbox.foreground(["--ephemeral".as_ref(), image.as_os_str()]);
    vm.wait_for(Guest::IgnoresButton.greeting());
    send(qemu_of(sandbox.path()), Signal::SIGSEGV);
    assert_eq!(vm.end().code(), 11);
    assert!(!sandbox.file("guest-state").exists());
    sandbox.is_clean();
}

#[test]
fn a_machine_stays_the_same_machine() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let image = image.to_str().unwrap();
    // as QEMU has it
    let uuid_of = |options: &[&str]| {
        sandbox.detached([options, &[image]].concat());
        let uuid = sandbox.ctl(["--json", "qmp", r#"{"execute":"query-uuid"}"#]).json()["UUID"].clone();
        sandbox.ctl(["shutdown", "--force"]);
        uuid
    };
    let throwaway = uuid_of(&["--ephemeral"]);
    assert_ne!(uuid_of(&["--ephemeral"]), throwaway, "nothing was kept of the first");
    let kept = uuid_of(&[]);
    assert_eq!(uuid_of(&[]), kept);
    assert_eq!(uuid_of(&["--ephemeral"]), kept, "a run of that machine");
    let asked = "0b5a2f0e-6f0c-4a55-9c3c-0d1e2f3a4b5c";
    assert_eq!(uuid_of(&["--ephemeral", "--uuid", asked]), asked);
    assert_eq!(uuid_of(&[]), kept);
    assert_eq!(uuid_of(&["--uuid", asked]), asked);
    assert_eq!(uuid_of(&[]), asked);
    sandbox.is_clean();
}

/// Every path under a folder.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            all.extend(tree(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}

#[test]
fn nothing_is_put_beside_the_image() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.file("images")).unwrap();
    let image = sandbox.file("images/guest.img");
    boot_sector::write(Guest::ReactsToButton, &image);
    // what it has kept of an ordinary run is the machine's, and found again
    sandbox.detached([image.to_str().unwrap()]);
    let told = sandbox.ctl_json(["status"]);
    sandbox.ctl(["shutdown", "--force"]);
    let before = tree(&sandbox.file("images"));
    let vms: Vec<Foreground> = (0..2)
        .map(|_| {
            sandbox.foreground(["--ephemeral".as_ref(), "--data".as_ref(), "x".as_ref(), image.as_os_str()])
        })
        .collect();
    for vm in &vms {
        vm.wait_for(Guest::ReactsToButton.greeting());
    }
    assert_eq!(tree(&sandbox.file("images")), before);
    let states = sandbox.ephemeral_states();
    assert_eq!(states.len(), 2, "{states:?}");
    // as QEMU has it: its overlays are there
    for process in of(sandbox.path()).iter().filter(|process| process.is_qemu()) {
        let open = std::fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap().flatten();
        let files: Vec<PathBuf> = open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
        assert!(files.contains(&image), "{files:?}");
        assert!(states.iter().any(|state| files.contains(&state.join("overlay-disk0.qcow2"))), "{files:?}");
    }
    let macs = |status: &serde_json::Value| status["mac"].clone();
    let one = sandbox.ctl_json(["--vm", "guest", "status"]);
    assert_eq!(macs(&one), macs(&told), "{one}");
    for vm in &vms {
        vm.signal(Signal::SIGTERM);
    }
    for vm in vms {
        assert_eq!(vm.end().code(), 0);
    }
    assert_eq!(tree(&sandbox.file("images")), before);
    sandbox.is_clean();
}

#[test]
fn what_is_only_read_runs_many_times_at_once() {
    let sandbox = Sandbox::new();
    cd::write(Guest::ReactsToButton, &sandbox.file("guest.iso"));
    let names: Vec<String> = (0..3).map(|_| sandbox.detached(["guest.iso"])).collect();
    let states: Vec<_> = names
        .iter()
        .map(|name| {
            sandbox.ctl_json(["--vm", name, "status"])["state_directory"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(states[0], sandbox.file("guest-state").to_str().unwrap());
    assert!(states[1] != states[0] && states[2] != states[0] && states[1] != states[2], "{states:?}");
    // what would be put into the state directory must not be thrown away unasked
    let disk = ["qemu", "--detached", "--disk", "size=1M", "guest.iso"];
    sandbox.run(disk).fails(1, &["guest-state is in use by VM 'guest'", "vmrun ctl --vm guest shutdown"]);
    sandbox.run(["qemu", "--detached", "--state", "guest-state", "guest.iso"]).fails(1, &["is in use"]);
    for name in names {
        sandbox.ctl(["--vm", &name, "shutdown", "--force"]);
    }
    sandbox.is_clean();
    assert!(sandbox.file("guest-state").exists());
}

#[test]
fn a_start_that_fails_removes_what_it_has_made_and_nothing_else() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    for (round, options) in [&[][..], &["--ephemeral"]].into_iter().enumerate() {
        if round == 0 {
            std::fs::create_dir(sandbox.file("guest-state")).unwrap();
            std::fs::write(sandbox.file("guest-state/notes.txt"), "x").unwrap();
        }
        let before = tree(sandbox.path());
        let bad = ["qemu", "--detached", "--name", "vm", "--disk", "new.img,size=1M", "--data", "x"];
        let bad = [&bad[..], options, &["guest.img", "--", "-device", "no-such-device"]].concat();
        sandbox.run(bad).fails(1, &["no-such-device"]);
        let left = tree(sandbox.path());
        // the folders of all VMs, made once, stay
        let lasting = |path: &Path| path.ends_with("run/vmrun") || path.starts_with(sandbox.state_home());
        let more: Vec<_> = left.iter().filter(|path| !before.contains(path) && !lasting(path)).collect();
        assert!(more.is_empty(), "{more:#?}");
        assert!(before.iter().all(|path| left.contains(path)));
    }
}

#[test]
fn whose_lock_it_is_is_told() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let image = image.to_str().unwrap();
    sandbox.detached(["--ephemeral", "--name", "throwaway", image]);
    let refused = sandbox.run(["qemu", "--detached", "--name", "other", image]);
    refused.fails(1, &["guest.img is in use by VM 'throwaway'", "--ephemeral", "hint: "]);
    sandbox.ctl(["shutdown", "--force"]);
    // the other way round: the image is what lies under the overlay
    sandbox.detached(["--name", "own", image]);
    let refused = sandbox.run(["qemu", "--detached", "--ephemeral", "--name", "other", image]);
    refused.fails(1, &["guest.img is in use by VM 'own'"]);
    sandbox.ctl(["shutdown", "--force"]);
    sandbox.is_clean();
}

/// A tap device; gone when this is dropped.
struct Tap(String);

impl Tap {
    fn make(letter: char) -> Self {
        let name = format!("ve{letter}{}", std::process::id());
        let made = Command::new("ip").args(["tuntap", "add", "dev", &name, "mode", "tap"]).output();
        assert!(made.is_ok_and(|made| made.status.success()), "this user may not make tap devices");
        Self(name)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.0]).output();
    }
}

#[test]
#[cfg_attr(lacks = "tap", ignore = "needs tap")]
fn no_two_runs_that_could_meet_have_one_address() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let image = image.to_str().unwrap();
    let taps = ['a', 'b', 'c'].map(Tap::make);
    // as QEMU has it
    let mac = |name: &str, options: &[&str]| {
        sandbox.detached([&["--name", name], options, &[image]].concat());
        let get = r#"{"execute":"qom-get","arguments":{"path":"/machine/peripheral/nic0","property":"mac"}}"#;
        sandbox.ctl(["--vm", name, "--json", "qmp", get]).json().as_str().unwrap().to_owned()
    };
    let ends = |name: &str| drop(sandbox.ctl(["--vm", name, "shutdown", "--force"]));
    let on = [0, 1, 2].map(|number| format!("tap,{}", taps[number].0));
    let base = mac("base", &["--networking", &on[0]]);
    ends("base");
    assert_eq!(mac("first", &["--ephemeral", "--networking", &on[0]]), base, "a run of that machine");
    let second = mac("second", &["--ephemeral", "--networking", &on[1]]);
    let third = mac("third", &["--ephemeral", "--networking", &on[2]]);
    assert!(second != base && third != base && second != third);
    // where no two meet the guest has the address that it was set up for
    assert_eq!(mac("user", &["--ephemeral"]), base);
    // one that is taken over keeps its address
    crate::support::orphan::kill(
        i32::try_from(sandbox.ctl_json(["--vm", "first", "status"])["supervisor_pid"].as_i64().unwrap())
            .unwrap(),
    );
    ends("second");
    assert_ne!(mac("fourth", &["--ephemeral", "--networking", &on[1]]), base);
    for name in ["first", "third", "fourth", "user"] {
        ends(name);
    }
    sandbox.is_clean();
}

/// All forks have the addresses of their template.
#[test]
#[cfg_attr(lacks = "tap", ignore = "needs tap")]
fn of_the_forks_of_a_template_one_is_on_a_tap() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let taps = ['f', 'g'].map(Tap::make);
    let on = |number: usize| format!("tap,{}", taps[number].0);
    let base = |network: &str, template: &str| {
        let words =
            ["--mem", "64", "--ephemeral", "--forkable", "--networking", network, image.to_str().unwrap()];
        let vm = sandbox.detached(words);
        sandbox.ctl(["--vm", &vm, "freeze", template]).ok();
    };
    base(&on(0), "on-tap");
    let second = ["qemu", "--detached", "--from", "on-tap", "--name", "second", "--networking"];
    sandbox.detached(["--from", "on-tap", "--name", "first", "--networking", &on(0)]);
    let refused = sandbox.run(second.iter().copied().chain([on(1).as_str()]));
    refused.fails(1, &["VM 'first' has the network address", "nic-add"]);
    sandbox.ctl(["shutdown", "--force"]).ok();
    sandbox.run(second.iter().copied().chain([on(1).as_str()])).ok();
    sandbox.ctl(["shutdown", "--force"]).ok();
    // what the hint says: cards of their own
    base("user", "on-user");
    for (number, vm) in ["first", "second"].into_iter().enumerate() {
        sandbox.run(["qemu", "--from", "on-user", "--networking", &on(0)]).fails(1, &["nic-add tap,"]);
        sandbox.detached(["--from", "on-user", "--name", vm]);
        sandbox.ctl(["--vm", vm, "nic-add", &on(number)]).ok();
    }
    for vm in ["first", "second"] {
        sandbox.ctl(["--vm", vm, "shutdown", "--force"]).ok();
    }
    sandbox.is_clean();
}

#[test]
fn kept_logs_outlive_the_vm() {
    let sandbox = Sandbox::new();
    let guest = Guest::IgnoresButton;
    let image = sandbox.boot_sector(guest);
    let logs = sandbox.file("logs");
    let run = || {
        let words = ["--ephemeral", "--name", "it", "--keep-logs"].map(OsStr::new);
        let vm = sandbox.foreground(words.into_iter().chain([logs.as_os_str(), image.as_os_str()]));
        vm.wait_for(guest.greeting());
        vm
    };
    let is_kept = |name: &str, code: i32| {
        let console = std::fs::read_to_string(logs.join(name).join("console.log")).unwrap();
        assert!(console.contains(guest.greeting()), "{console}");
        let outcome = std::fs::read(logs.join(name).join("outcome.json")).unwrap();
        let outcome: serde_json::Value = serde_json::from_slice(&outcome).unwrap();
        assert_eq!(outcome["exit_code"], code, "{outcome}");
    };
    // two runs of one name, one of them that ends badly
    let vm = run();
    assert!(!logs.exists(), "nothing is kept of a VM that runs");
    sandbox.ctl(["shutdown", "--force"]).ok();
    vm.end();
    is_kept("it", 12);
    let vm = run();
    send(qemu_of(sandbox.path()), Signal::SIGKILL);
    assert_eq!(vm.end().code(), 11);
    is_kept("it.1", 11);
    is_kept("it", 12);
    sandbox.is_clean();

    // the supervisor has died, too: the next command cleans up
    let vm = run();
    let qemu = qemu_of(sandbox.path());
    vm.signal(Signal::SIGKILL);
    vm.end();
    // a QEMU in the foreground may have gone with it
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(qemu), Signal::SIGKILL);
    eventually("QEMU has ended", || has_ended(qemu));
    sandbox.run(["ls"]).ok();
    is_kept("it.2", 11);
    sandbox.is_clean();

    // what cannot be kept is refused before anything starts
    std::fs::write(sandbox.file("taken"), "").unwrap();
    let words = ["qemu", "--ephemeral", "--keep-logs"].map(OsStr::new);
    let taken = sandbox.file("taken");
    let refused = sandbox.run(words.into_iter().chain([taken.as_os_str(), image.as_os_str()]));
    refused.fails(1, &["the folder of `--keep-logs`", "taken"]);
    assert_eq!(std::fs::read_dir(&logs).unwrap().count(), 3);
    sandbox.is_clean();
}
