//! Integration tests.

mod boot_sectors;
mod examples;
mod guest_boot;
mod guest_changes;
mod guest_crowd;
mod guest_disks;
mod guest_identity;
mod guest_network;
mod guest_shutdown;
mod guest_usb;
mod life;
mod readme;
mod support;
