//! A VM's start and end, with boot-sector guests.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::boot_sector::{Guest, says};
use crate::support::sandbox::Sandbox;
use crate::support::varlink::Raw;

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

/// The stream of events ends with the VM, and its last event says how that ended.
#[test]
fn the_last_event_is_the_outcome() {
    let sandbox = Sandbox::new();
    let name = sandbox.detached([sandbox.boot_sector(Guest::Halted)]);
    let mut events = Raw::connect(&sandbox.runtime().join(&name).join("control"));
    events.send(json!({ "method": "io.vmrun.Machine.Events", "more": true }).to_string().as_bytes());
    let stands = events.receive().expect("a reply");
    assert_eq!(stands["parameters"], json!({}), "it stands");
    sandbox.ctl(["shutdown", "--force"]);
    let mut last = Value::Null;
    while let Some(mut reply) = events.receive() {
        let event = reply["parameters"]["event"].take();
        last = if event.is_null() { last } else { event };
    }
    assert_eq!(last["name"], "VMRUN_OUTCOME", "{last}");
    assert_eq!(last["data"]["ending"], "quit", "{last}");
}
