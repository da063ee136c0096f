//! The command line of QEMU, from a VM's description.

use std::ffi::OsString;

use super::addresses::{self, Addresses};
use super::machine::Family;
use super::object::Object;
use super::{
    Channels, Device, GuestMemory, HostFacts, Machine, accel, boot, controllers, drives, firmware, io, plan,
    screen,
};
use crate::spec::{Boot, Firmware, OnPanic, VmSpec};

const MIB: u64 = 1 << 20;

/// The arguments, without the program's own name. The guest's processors wait (`-S`) for the supervisor's `cont`, so that it misses no event.
///
/// The description is one that passed [`check`](super::check()).
pub fn command_line(spec: &VmSpec, host: &HostFacts, channels: &Channels) -> Vec<OsString> {
    let machine = Machine::of(spec);
    let mut line = Line::default();
    line.flags(&["-nodefaults", "-no-user-config", "-S"]);
    line.option("-name", format!("guest={}", spec.name));
    line.option("-uuid", spec.uuid.to_string());
    if let Some(sandbox) = sandbox(spec) {
        line.option("-sandbox", sandbox);
    }
    line.0.extend(actions(spec));
    hardware(&mut line, &machine, spec, host, channels.memory);
    line.0.extend(channels.arguments(machine.ids()));
    if machine.family() != Family::Ccw {
        line.option("-serial", format!("chardev:{}", machine.ids().console_chardev));
    }
    line.0.extend(boot::arguments(spec));
    devices(&mut line, &machine, spec);
    line.0.extend(screen::arguments(&spec.display));
    line.0.extend(spec.extra.iter().cloned());
    line.0
}

/// Machine, processors, memory, firmware.
fn hardware(
    line: &mut Line,
    machine: &Machine,
    spec: &VmSpec,
    host: &HostFacts,
    memory: Option<GuestMemory>,
) {
    line.option("-machine", machine_argument(machine, spec, host));
    line.option("-accel", accel::accel(host.accel));
    if let Some(cpu) = accel::cpu(spec, host) {
        line.option("-cpu", cpu);
    }
    for default in accel::device_defaults(machine, host) {
        line.option("-global", default);
    }
    line.option("-smp", spec.cpus.to_string());
    let mebibytes = spec.memory.bytes().div_ceil(MIB);
    line.option("-m", format!("{mebibytes}M"));
    if let Some(memory) = memory {
        line.0.extend(memory.object(machine.ids().memory, mebibytes * MIB).argument());
    } else if spec.forkable {
        // it comes out of a stream, which would fill the holes of a file
        let memory = Object::new("memory-backend-ram", machine.ids().memory);
        line.0.extend(memory.with("size", mebibytes * MIB).argument());
    } else if !spec.shares.is_empty() {
        let memory = Object::new("memory-backend-memfd", machine.ids().memory).with("size", mebibytes * MIB);
        line.0.extend(memory.with("share", true).argument());
    }
    line.0.extend(firmware::bios(spec).into_iter().flatten());
    firmware::nodes(spec).iter().for_each(|node| line.0.extend(node.argument()));
}

fn devices(line: &mut Line, machine: &Machine, spec: &VmSpec) {
    let drives = drives::cold(machine, spec);
    let (entropy, rng) = io::entropy(machine);
    line.0.extend(entropy.argument());
    line.0.extend(io::netdevs(spec).into_iter().flat_map(|netdev| netdev.argument()));
    drives.nodes.iter().for_each(|node| line.0.extend(node.argument()));
    drives.threads.iter().for_each(|thread| line.0.extend(thread.argument()));
    let mut own = Vec::new();
    // ports first: many of them have addresses of their own, which must still be free
    own.extend(io::ports(machine, spec));
    own.extend(io::console(machine));
    own.extend(io::panic(machine));
    own.push(rng);
    own.extend(io::generation(spec));
    own.extend(io::agent(machine));
    own.extend(io::nic(machine, spec));
    own.extend(io::usb(machine, spec));
    own.extend(controllers::uses_scsi(machine, spec).then(|| drives::scsi_controller(machine, None)));
    own.extend(drives.controllers);
    own.extend(addresses::bridge(machine, spec));
    own.extend(drives.devices);
    own.extend(io::shares(machine, spec));
    own.extend(io::screen(machine, spec));
    // last: on microvm the addresses are in the order of the command line, and those of the others stay
    own.extend(io::more_nics(machine, spec));
    let mut addresses = Addresses::of(machine, spec);
    let own = own.into_iter().map(|device| match &mut addresses {
        Some(addresses) => addresses.addressed(device),
        None => device,
    });
    match machine.has_fixed_addresses() {
        // before all devices of the user's: QEMU makes those of the option syntax before those in JSON
        true => line.0.extend(own.flat_map(|device| device.words())),
        false => line.devices(own),
    }
    line.devices(spec.devices.iter().map(|extra| plan::extra_device(extra, None)));
}

/// What QEMU does by itself when the guest panics or resets. A reset after a panic is the supervisor's: QEMU has no such action.
fn actions(spec: &VmSpec) -> Vec<OsString> {
    let mut actions = Vec::new();
    if spec.on_panic != OnPanic::Poweroff {
        actions.push("panic=pause");
    }
    if spec.no_reboot {
        actions.push("reboot=shutdown");
    }
    if actions.is_empty() { Vec::new() } else { vec!["-action".into(), actions.join(",").into()] }
}

/// Seccomp. None for bridges: any filter sets `no_new_privs`, and the setuid bridge helper then gains nothing.
fn sandbox(spec: &VmSpec) -> Option<&'static str> {
    let possible = spec.sandbox && !spec.uses_bridge();
    possible.then_some("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
}

/// Whether the machine has its AHCI controller; none where it has none by its type, or the type says so itself.
fn sata(machine: &Machine, spec: &VmSpec) -> Option<bool> {
    let is_said = machine.kind().split(',').any(|option| option.starts_with("sata="));
    // the firmware looks for drives on it for most of a second
    (machine.family() == Family::Q35 && !is_said)
        .then(|| controllers::uses_sata(spec) || !spec.extra.is_empty())
}

fn sata_option(on: bool) -> String {
    format!("sata={}", if on { "on" } else { "off" })
}

/// The machine's type with the hardware that hangs on more than the rest of the description: for one that will be built again
/// without the arguments that the user added.
pub fn decided_machine(spec: &VmSpec) -> String {
    let machine = Machine::of(spec);
    let options = sata(&machine, spec).map(sata_option);
    std::iter::once(machine.kind().to_owned()).chain(options).collect::<Vec<_>>().join(",")
}

fn machine_argument(machine: &Machine, spec: &VmSpec, host: &HostFacts) -> String {
    let mut options = vec![machine.kind().to_owned()];
    options.extend(sata(machine, spec).filter(|on| !on).map(sata_option));
    if firmware_needs_the_console(machine, spec) {
        options.push("graphics=off".to_owned());
    }
    if machine.family() == Family::Microvm && controllers::uses_usb(machine, spec) {
        options.push("usb=on".to_owned());
    }
    options.extend(accel::gic_version(machine, host).map(|version| format!("gic-version={version}")));
    options.extend(firmware::machine_options(spec));
    if spec.forkable || !spec.shares.is_empty() {
        options.push(format!("memory-backend={}", machine.ids().memory));
    }
    options.join(",")
}

/// Without a display what SeaBIOS and a boot loader's menu say would be seen nowhere ("No bootable device."): with `graphics=off`
/// SeaBIOS also shows its text screen on the serial port; one that is given by its path may be a SeaBIOS. A kernel that is given
/// directly leaves it nothing to say; UEFI firmware uses the serial port anyway.
fn firmware_needs_the_console(machine: &Machine, spec: &VmSpec) -> bool {
    let flash = matches!(spec.firmware, Some(Firmware::Flash { .. }));
    let bios = matches!(machine.family(), Family::Q35 | Family::Pc) && !flash;
    bios && !spec.display.has_screen() && !matches!(spec.boot, Boot::Kernel { .. } | Boot::Squashfs { .. })
}

#[derive(Default)]
struct Line(Vec<OsString>);

impl Line {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.extend([name.into(), value.into()]);
    }

    fn devices(&mut self, devices: impl IntoIterator<Item = Device>) {
        self.0.extend(devices.into_iter().flat_map(|device| device.argument()));
    }
}

#[cfg(test)]
#[path = "argv_tests.rs"]
mod tests;
