//! From a running QEMU without a supervisor to a supervised VM: orphaned VMs, and QEMUs that the user's own command line started.

pub(in crate::vm) mod adopt;
pub(in crate::vm) mod take_over;
mod unfinished;
pub(in crate::vm) mod wrap;
