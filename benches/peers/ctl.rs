//! Single commands: whole processes, from their start to their end.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::libvirt::{Libvirt, VIRSH};
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
    let floor = floor(sandbox.path());
    let control = sandbox.runtime().join("vm/control");
    let mut ours = || time_of(sandbox.vmrun().args(["ctl", "status"]));
    let mut least = || time_of(Command::new(&floor).arg(&control).arg(GET_STATUS));
    let mut virsh = || libvirt.map_or(f64::NAN, |libvirt| time_of(&mut libvirt.virsh(&["domstate", "peer"])));
    let [ours, least, theirs] = in_turn(10 * RUNS, [&mut ours, &mut least, &mut virsh]);
    let row = |beside, goal| Row::new("ctl status", "ms", &ours, beside, goal);
    vec![
        row(Beside::Nobody, Goal::AtMost(3.0)),
        row(beside(libvirt, theirs), Goal::TimesFaster(6.0)),
        row(Beside::Peer("static C program, same call", least), Goal::TimesTheTime(1.5)),
    ]
}

fn floor(folder: &Path) -> PathBuf {
    let program = folder.join("floor");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/floor.c");
    let status = Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).arg(source).status();
    assert!(status.is_ok_and(|status| status.success()), "cc cannot build {source}");
    program
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
