//! What `make fuzz` runs: one function for each parser that sees bytes which others have made. Never part of a release.
//!
//! Each takes any bytes and must come back soon; a panic is a finding, and so is a text that is not read back as what was written.
//! What is private to a layer is reached through that layer's own `fuzzing.rs`. `tests/fuzz/` has the programs, which only
//! call these, and the inputs that were worth keeping.

mod spec;
#[cfg(test)]
mod tests;

use crate::{control, host, qmp, vm};

/// A target of the fuzzer.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is also that of its program and of its folder of inputs.
    pub name: &'static str,
    /// Takes one input.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($(#[$doc:meta])* $name:ident = $run:path;)*) => {
        $($(#[$doc])* pub fn $name(bytes: &[u8]) {
            $run(bytes);
        })*

        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $name }),*];
    };
}

targets! {
    /// `--disk`, `disk-add`.
    disk = spec::disk;
    /// `--usb`, `usb-add`.
    usb = spec::usb;
    /// `--device`, `device-add`.
    device = spec::device;
    /// `nic-add`.
    nic = spec::nic;
    /// `--virtiofs`.
    share = spec::share;
    /// `-p`, `port-add`.
    forward = spec::forward;
    /// Sizes, durations, limits, MAC addresses.
    numbers = spec::numbers;
    /// Names of VMs, devices, snapshots, interfaces; words out of a list.
    names = spec::names;
    /// `--wait`, `wait`.
    condition = spec::condition;
    /// Keys that are pressed, texts that are typed.
    keys = spec::keys;
    /// QEMU's bytes, cut into lines.
    qmp_lines = qmp::fuzzing::lines;
    /// A line of QEMU's.
    qmp_message = qmp::fuzzing::message;
    /// Texts of the human monitor.
    hmp = qmp::fuzzing::hmp;
    /// The device tree of the human monitor.
    qtree = qmp::fuzzing::qtree;
    /// What a guest's agent, or whatever poses as it, says.
    agent = qmp::fuzzing::agent;
    /// The control socket's bytes, cut into calls.
    varlink_frames = control::fuzzing::frames;
    /// A call's parameters, of each method.
    varlink_calls = control::fuzzing::calls;
    /// The shared QMP socket's bytes.
    shared_qmp = control::fuzzing::shared_qmp;
    /// An image's header, and the files that it leads to.
    image = host::fuzzing::image;
    /// QEMU's descriptors of firmware.
    firmware = host::fuzzing::firmware;
    /// The file of a saved VM.
    saved_vm = vm::fuzzing::saved;
    /// What is kept in run and state directories.
    state_files = vm::fuzzing::state_files;
    /// What is typed at a console, and what the guest prints there.
    console = vm::fuzzing::console;
}
