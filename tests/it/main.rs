//! Integration tests.

mod boot_sectors;
mod examples;
mod life;
mod readme;
mod support;
