//! Tests of the owner against a model of QEMU, whose state can be compared with the inventory at any time.

mod agent;
mod broken_qemu;
mod cards;
mod crowd;
mod every_step;
mod fake_commands;
mod fake_devices;
mod fake_keeping;
mod fake_qemu;
mod fake_vm;
mod faults;
mod forwards;
mod freeze;
mod media;
mod plugs;
mod power;
mod removals;
mod saves;
mod sequences;
mod snapshots;
