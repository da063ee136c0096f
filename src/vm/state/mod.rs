//! The state of a VM: its inventory, its images, its cached status, its files on disk about changes and its end.

pub(in crate::vm) mod facts;
pub(in crate::vm) mod image_holder;
pub(in crate::vm) mod images;
pub(in crate::vm) mod inventory;
pub(in crate::vm) mod journal;
pub(in crate::vm) mod nics;
pub(in crate::vm) mod open_files;
pub(in crate::vm) mod opened;
pub(in crate::vm) mod origin;
pub(in crate::vm) mod outcome;
pub(in crate::vm) mod plugged;
pub(in crate::vm) mod port_holder;
pub(in crate::vm) mod record;
pub(in crate::vm) mod run_state;
pub(in crate::vm) mod status;
pub(in crate::vm) mod taken;
pub(in crate::vm) mod templates;
pub(in crate::vm) mod vm_file;
pub(in crate::vm) mod waiting_shell;
