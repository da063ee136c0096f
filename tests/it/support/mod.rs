//! What the tests have in common.

pub(crate) mod asm;
pub(crate) mod boot_sector;
pub(crate) mod cd;
pub(crate) mod chance;
pub(crate) mod debian;
pub(crate) mod desktop;
pub(crate) mod http;
pub(crate) mod linux;
pub(crate) mod mounted;
pub(crate) mod orphan;
pub(crate) mod processes;
pub(crate) mod pty;
pub(crate) mod sandbox;
pub(crate) mod varlink;
pub(crate) mod verbs;
