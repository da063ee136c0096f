//! The control protocol: Varlink over a Unix socket, as `proto/io.vmrun.Machine.varlink` says.
//!
//! [`service`] serves it to any number of clients, [`client`] speaks it, [`wire`] holds what travels,
//! [`find`] finds the VM that is meant. How a VM does what is asked is the `vm` layer's business.

pub mod after;
pub mod client;
mod dispatch;
mod error;
pub mod find;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guest;
mod last_calls;
pub mod methods;
mod notify;
mod permits;
mod screen;
pub mod service;
pub mod shared_qmp;
pub mod silence;
mod snapshots;
pub mod socket;
mod stats;
mod streams;
pub mod supervise;
mod translate;
pub mod wire;

pub(crate) use guest::MAX_STDIN;

/// The interface that every supervisor serves.
pub const INTERFACE: &str = "io.vmrun.Machine";
/// Its description: the source of truth of the protocol.
pub const DESCRIPTION: &str = include_str!("../../proto/io.vmrun.Machine.varlink");
/// What every service of Varlink serves.
pub(crate) const SERVICE_INTERFACE: &str = "org.varlink.service";
/// Description of [`SERVICE_INTERFACE`], from varlink.org.
pub(crate) const SERVICE_DESCRIPTION: &str = include_str!("../../proto/org.varlink.service.varlink");
