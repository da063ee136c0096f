//! Integration tests.

mod boot_sectors;
mod support;
