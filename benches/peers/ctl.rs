//! Single commands: whole processes, from their start to their end.

use std::path::Path;
use std::process::Command;

use super::libvirt::{Libvirt, VIRSH};
use super::limits::{c_client, rust_client};
use super::measure::{RUNS, in_turn, time_of};
use super::report::{Beside, Goal, Row};
use super::support::boot_sector::Guest;
use super::support::sandbox::Sandbox;

pub(crate) const GET_STATUS: &str = r#"{"method":"io.vmrun.Machine.GetStatus","parameters":{}}"#;

pub(crate) fn rows() -> Vec<Row> {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    sandbox.detached(["--usb".as_ref(), "--name".as_ref(), "vm".as_ref(), image.as_os_str()]);
    let libvirt = Libvirt::start(&image);
    if let Some(libvirt) = &libvirt {
        libvirt.run(&["start", "peer"]);
    }
    let mut rows = status(&sandbox, libvirt.as_ref());
    rows.push(usb_add(&sandbox, libvirt.as_ref()));
    rows
}

fn beside(libvirt: Option<&Libvirt>, theirs: super::measure::Series) -> Beside {
    libvirt.map_or(Beside::Missing(VIRSH), |_| Beside::Peer(VIRSH, theirs))
}

fn status(sandbox: &Sandbox, libvirt: Option<&Libvirt>) -> Vec<Row> {
    let [in_c, in_rust] = [c_client, rust_client].map(|client| client(sandbox.path()));
    let control = sandbox.runtime().join("vm/control");
    let mut ours = || time_of(sandbox.vmrun().args(["ctl", "status"]));
    let least = |client: &Path| time_of(Command::new(client).arg(&control).arg(GET_STATUS));
    let (mut in_c, mut in_rust) = (|| least(&in_c), || least(&in_rust));
    let mut virsh = || libvirt.map_or(f64::NAN, |libvirt| time_of(&mut libvirt.virsh(&["domstate", "peer"])));
    // in two turns: who runs after virsh and its daemons finds the caches cold, and that must not be one of three
    let [after_virsh, theirs] = in_turn(10 * RUNS, [&mut ours, &mut virsh]);
    let [ours, in_c, in_rust] = in_turn(10 * RUNS, [&mut ours, &mut in_c, &mut in_rust]);
    let row = |ours, beside, goal| Row::new("ctl status", "ms", ours, beside, goal);
    vec![
        row(&after_virsh, Beside::Nobody, Goal::AtMost(3.0)),
        row(&after_virsh, beside(libvirt, theirs), Goal::TimesFaster(6.0)),
        row(&ours, Beside::Peer("static C program, same call", in_c), Goal::TimesTheTime(1.5)),
        row(&ours, Beside::Peer("Rust program, same call", in_rust), Goal::TimesTheTime(1.5)),
    ]
}

fn usb_add(sandbox: &Sandbox, libvirt: Option<&Libvirt>) -> Row {
    let mut ours = || {
        let taken = time_of(sandbox.vmrun().args(["ctl", "usb-add", "usb-kbd", "--id", "keys"]));
        sandbox.ctl(["usb-remove", "keys"]).ok();
        taken
    };
    let mut theirs = || {
        let Some(libvirt) = libvirt else { return f64::NAN };
        let taken = time_of(&mut libvirt.virsh(&["attach-device", "peer", "keyboard.xml"]));
        libvirt.run(&["detach-device", "peer", "keyboard.xml"]);
        taken
    };
    let [ours, theirs] = in_turn(2 * RUNS, [&mut ours, &mut theirs]);
    Row::new("ctl usb-add usb-kbd", "ms", &ours, beside(libvirt, theirs), Goal::TimesFaster(4.0))
}
