//! `--ephemeral`: the image stays as it was, and nothing is left.

use nix::sys::signal::Signal;

use crate::support::boot_sector::Guest;
use crate::support::processes::{eventually, has_ended, qemu_of, send};
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
    assert!(sandbox.file("guest-state/ephemeral-guest").exists());
    // under another name, too
    let vm =
        sandbox.foreground(["--ephemeral".as_ref(), "--name".as_ref(), "next".as_ref(), image.as_os_str()]);
    vm.wait_for(Guest::ReactsToButton.greeting());
    assert!(!sandbox.file("guest-state/ephemeral-guest").exists());
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
