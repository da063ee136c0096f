//! Integration tests.

mod boot_sectors;
mod life;
mod support;
