//! A VM's start and end, with boot-sector guests.

use nix::sys::signal::Signal;

use crate::support::boot_sector::{Guest, says};
use crate::support::sandbox::Sandbox;

#[test]
fn a_guest_that_switches_itself_off_ends_with_0_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::PowersOff);
    let vm = sandbox.foreground([&image]);
    vm.wait_for(Guest::PowersOff.greeting());
    let ended = vm.end();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    assert_eq!(std::fs::read_dir(sandbox.runtime()).unwrap().count(), 0);
}

#[test]
fn a_signal_asks_the_guest() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let vm = sandbox.foreground([&image]);
    vm.wait_for(Guest::ReactsToButton.greeting());
    vm.signal(Signal::SIGTERM);
    vm.wait_for(says::BUTTON);
    let ended = vm.end();
    assert_eq!(ended.code(), 0, "{ended:#?}");
}
