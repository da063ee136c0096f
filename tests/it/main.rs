//! Integration tests.

// clippy knows only functions marked #[test] as tests, not what they call
#![allow(clippy::unwrap_used)]

mod bad_input;
mod boot_sectors;
mod life;
mod support;
