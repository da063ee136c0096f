//! Integration tests.

#![allow(clippy::unwrap_used)] // a test that finds no value has failed

mod attack;
mod boot_sectors;
mod interop;
mod layers;
mod life;
mod protocol;
mod support;
