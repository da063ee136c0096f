//! What is told of the agent of a real guest, whatever happens to the guest.

use crate::guest_exec::with_agent;
use crate::support::linux::Linux;

const SLOW: [&str; 3] = ["exec", "--agent-timeout", "2m"];

#[track_caller]
fn runs(vm: &Linux, command: &[&str]) {
    vm.try_ctl([&SLOW[..], &["--"], command].concat()).ok();
}

#[test]
fn commands_wait_for_the_agent_of_the_guests_new_life() {
    let vm = with_agent(&["--disk", "disk.qcow2,size=1G"]);
    vm.ctl(["snapshot-save", "first"]);
    for _ in 0..3 {
        vm.ctl(["snapshot-load", "first"]);
        vm.try_ctl(["exec", "--", "true"]).ok();
    }
    // the agent that answers is that of the guest that was reset, whose memory is new
    runs(&vm, &["sh", "-c", "mkdir -p /tmp; echo old > /tmp/life"]);
    vm.ctl(["reset"]);
    runs(&vm, &["test", "!", "-e", "/tmp/life"]);
    runs(&vm, &["sh", "-c", "mkdir -p /tmp; echo old > /tmp/life"]);
    vm.ctl(["reset"]);
    vm.ctl(["wait", "agent", "--timeout", "2m"]);
    runs(&vm, &["test", "!", "-e", "/tmp/life"]);
    // without its port there is none
    vm.ctl(["qmp", "{\"execute\":\"device_del\",\"arguments\":{\"id\":\"vmrun-agent\"}}"]);
    vm.try_ctl(["wait", "event=DEVICE_DELETED", "--timeout", "1s"]);
    vm.try_ctl(["wait", "agent", "--timeout", "300ms"]).fails(5, &["'agent'"]);
    vm.try_ctl(["exec", "--agent-timeout", "100ms", "--", "true"]).fails(4, &["unplugged"]);
    vm.quit();
}
