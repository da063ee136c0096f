//! Integration tests.

// clippy knows only functions marked #[test] as tests, not what they call
#![allow(clippy::unwrap_used)]

mod bad_input;
mod boot_sectors;
mod examples;
mod guest_boot;
mod guest_changes;
mod guest_copy;
mod guest_crowd;
mod guest_disks;
mod guest_exec;
mod guest_identity;
mod guest_network;
mod guest_screen;
mod guest_shutdown;
mod guest_usb;
mod life;
mod readme;
mod support;
