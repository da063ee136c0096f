//! From a request to a running QEMU: preparing, starting, and the errors of a start.

pub(in crate::vm) mod image_holder;
pub(in crate::vm) mod prepare;
pub(in crate::vm) mod process;
pub(in crate::vm) mod sockets;
pub(in crate::vm) mod start;
pub(in crate::vm) mod start_error;
