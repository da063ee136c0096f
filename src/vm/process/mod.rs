//! QEMU's process, its sockets and pipes, and the helpers beside it.

pub(in crate::vm) mod qemu;
pub(in crate::vm) mod shares;
pub(in crate::vm) mod sockets;
