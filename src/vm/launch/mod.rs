//! From a request to a running QEMU: preparing and starting.

pub(in crate::vm) mod prepare;
pub(in crate::vm) mod start;
