//! A VM's description in QEMU's language: arguments, device JSON, hot-plug plans, slots. Pure functions.

pub mod command;

pub use command::Command;
