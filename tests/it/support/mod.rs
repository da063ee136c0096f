//! What the tests have in common.

pub(crate) mod asm;
pub(crate) mod boot_sector;
pub(crate) mod sandbox;
pub(crate) mod varlink;
