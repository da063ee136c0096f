//! What this machine can do: programs, acceleration, firmware, image formats, USB devices, ports, directories.
//!
//! Synchronous throughout. Where the machine is looked at (sysfs, `/proc/cpuinfo`, firmware folders, `PATH`), the path comes in
//! as a parameter, so that tests can give another.

/// Target of log records whose last line, behind `\nhint: `, says what to do: in others such a line is part of a name or of an answer.
pub const HINTED: &str = "vmrun::hinted";
/// Target of log records that tell how far something has come: a person at a terminal sees the last one; an empty one ends it.
pub const PROGRESS: &str = "vmrun::progress";

pub mod accel;
pub mod descriptors;
pub mod dirs;
pub mod disk_io;
pub mod doctor;
pub mod environment;
pub mod files;
pub mod firmware;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod image;
pub mod iso;
pub mod kept_logs;
pub mod kernel_log;
pub mod log_context;
pub mod made;
pub mod notices;
pub mod oom;
pub mod open_files;
pub mod ports;
pub mod programs;
pub mod raw_images;
pub mod saved;
pub mod ssh_key;
pub mod sys;
pub mod tap;
pub mod template;
pub mod template_cache;
pub mod terminal;
pub mod uki;
pub mod unpack;
pub mod usage;
pub mod usb;
