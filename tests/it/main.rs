//! Integration tests.

#![allow(clippy::unwrap_used)] // a test that finds no value has failed

mod boot_sectors;
mod layers;
mod life;
mod protocol;
mod support;
