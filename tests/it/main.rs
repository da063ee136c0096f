//! Integration tests.

// clippy knows only functions marked #[test] as tests, not what they call
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod adopt;
mod attack;
mod background;
mod bad_input;
mod boot_sectors;
mod console;
mod deaths;
mod ends;
mod ephemeral;
mod examples;
mod flood;
mod guest_boot;
mod guest_changes;
mod guest_copy;
mod guest_crowd;
mod guest_disks;
mod guest_exec;
mod guest_identity;
mod guest_limits;
mod guest_network;
mod guest_nics;
mod guest_save;
mod guest_screen;
mod guest_shutdown;
mod guest_snapshots;
mod guest_usb;
mod interop;
mod layers;
mod library;
mod life;
mod notify;
mod protocol;
mod readme;
mod shared_qmp;
mod soak;
mod support;
mod terminal;
mod wrap;
mod wrap_changes;
