//! Integration tests.

mod bad_input;
mod boot_sectors;
mod life;
mod support;
