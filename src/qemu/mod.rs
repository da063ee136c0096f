//! A VM's description in QEMU's language: arguments, device JSON, hot-plug plans, slots. Pure functions.
//!
//! | file | what it makes |
//! | --- | --- |
//! | [`argv`] | the command line, from the parts below |
//! | [`machine`], [`facts`] | what the machine type and the host decide |
//! | [`device`], [`block`], [`netdev`], [`object`] | one description each for the cold argument and the hot-plug command |
//! | [`disk_options`], [`boot_order`] | what is said of a disk besides its image; what the firmware tries first |
//! | [`plan`], [`media`], [`forward`] | changes of a running VM as steps with their undo |
//! | [`models`] | the device models that vmrun tells apart: one table |
//! | `addresses` | where on the guest's buses vmrun's own devices sit |
//! | [`refusals`] | the texts of QEMU that decide what vmrun does, each with its version and a sample |
//! | [`reply`] | answers of QEMU in `qapi`'s types |
//! | [`slots`] | the account of what can still be plugged |
//! | [`wrapped`] | the user's own command line: what it is for, and a monitor for vmrun |
//! | [`typed`], [`properties`] | what was typed for a property, in the type that QEMU wants |

mod accel;
mod addresses;
pub mod argv;
pub mod block;
mod boot;
pub mod boot_order;
pub mod channels;
pub mod check;
pub mod command;
pub mod controllers;
pub mod device;
pub mod disk_options;
pub mod drives;
pub mod facts;
mod firmware;
pub mod forward;
pub mod hostless;
pub mod ids;
pub mod immovable;
pub mod io;
pub mod machine;
pub mod media;
pub mod migration;
pub mod models;
pub mod netdev;
pub mod object;
pub mod pci;
pub mod plan;
pub mod properties;
pub mod query;
pub mod query_block;
pub mod quote;
pub mod refusals;
pub mod replug;
pub mod reply;
mod screen;
pub mod slots;
pub mod snapshot;
pub mod stream_port;
#[cfg(test)]
pub(crate) mod testing;
pub mod typed;
pub mod wrapped;

pub use argv::{command_line, decided_machine};
pub use block::BlockNode;
pub use channels::{Channels, GuestMemory};
pub use check::{Unsupported, check};
pub use command::{Command, MalformedCommand};
pub use device::Device;
pub use facts::HostFacts;
pub use machine::{Family, Found, Machine, PlugTarget};
pub use netdev::Netdev;
pub use plan::{Check, Step};
pub use slots::{NoSlot, Slots};
