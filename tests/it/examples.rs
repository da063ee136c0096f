//! The examples do what they say.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::support::boot_sector::Guest;
use crate::support::sandbox::{Done, Sandbox, python};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// `$PATH` with the `vmrun` under test first.
fn path_with_vmrun() -> OsString {
    let folder = Path::new(env!("CARGO_BIN_EXE_vmrun")).parent().unwrap().to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&path))).unwrap()
}

/// Runs `script.sh` with a boot-sector guest that is up once it has printed `wait_for`.
fn script(sandbox: &Sandbox, guest: Guest, wait_for: &str) -> Done {
    let mut command = sandbox.program(example("script.sh"));
    command.arg(sandbox.boot_sector(guest));
    command.env("PATH", path_with_vmrun()).env("WAIT_FOR", format!("console={wait_for}"));
    Done::of(command.output().unwrap())
}

#[test]
fn the_python_example_drives_a_vm() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let name = sandbox.detached([&image]);
    let greeting = format!("console={}", Guest::ReactsToButton.greeting());
    sandbox.ctl(["wait", &greeting, "--timeout", "1m"]).ok();

    let address = format!("unix:{}", sandbox.runtime().join(name).join("control").display());
    let mut command = sandbox.program(python());
    let done = Done::of(command.arg(example("python.py")).arg(address).output().unwrap()).ok();

    for text in [
        "guest is running on QEMU",
        "plugged keyboard, a usb-kbd",
        "refused with io.vmrun.Machine.AlreadyThere: ",
        "USB devices left: 0",
        "asked_acpi: the guest followed the power button",
    ] {
        assert!(done.stdout.contains(text), "no '{text}' in {done:#?}");
    }
    assert_eq!(sandbox.run(["ls", "--json"]).json(), serde_json::json!([]));
}

#[test]
fn the_script_example_starts_changes_and_ends_a_vm() {
    let sandbox = Sandbox::new();
    let done = script(&sandbox, Guest::ReactsToButton, Guest::ReactsToButton.greeting()).ok();
    for text in ["is plugged in", "removed usb", "the guest followed the power button"] {
        assert!(done.stdout.contains(text), "no '{text}' in {done:#?}");
    }
    assert_eq!(sandbox.run(["ls", "--json"]).json(), serde_json::json!([]));
}

#[test]
fn the_script_example_leaves_no_vm_when_the_guest_panics() {
    let sandbox = Sandbox::new();
    let done = script(&sandbox, Guest::Panics, "what it never says");
    assert_eq!(done.code, 10, "{done:#?}");
    assert_eq!(sandbox.run(["ls", "--json"]).json(), serde_json::json!([]));
}
