//! What the tests are made with.

pub(crate) mod asm;
pub(crate) mod boot_sector;
