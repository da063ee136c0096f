//! The control protocol: Varlink over a Unix socket, as described in `proto/io.vmrun.Machine.varlink`.
//!
//! [`verbs`] has a file for each of its methods. [`service`] serves them to any number of clients, [`client`] calls them, [`wire`]
//! has the records of the protocol, [`find`] finds a VM by its name. The `vm` layer executes the requests.

pub mod after;
pub mod client;
mod dispatch;
mod error;
pub mod escape_key;
pub mod find;
mod frame;
mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod last_calls;
mod notify;
mod parameters;
mod permits;
pub mod service;
pub mod shared_qmp;
pub mod silence;
mod skew;
pub mod socket;
pub mod supervise;
mod translate;
pub mod verbs;
pub mod wire;

/// The interface that every supervisor serves.
pub const INTERFACE: &str = "io.vmrun.Machine";
/// Its description: the source of truth of the protocol.
pub const DESCRIPTION: &str = include_str!("../../proto/io.vmrun.Machine.varlink");
/// The interface that every Varlink service has.
pub(crate) const SERVICE_INTERFACE: &str = "org.varlink.service";
/// Description of [`SERVICE_INTERFACE`], from varlink.org.
pub(crate) const SERVICE_DESCRIPTION: &str = include_str!("../../proto/org.varlink.service.varlink");
