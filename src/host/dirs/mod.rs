//! Directories: where running VMs are found ([`RunDir`]) and what outlives a run, of
//! one VM ([`StateDir`]) and of all VMs of a user ([`user_store`]).

mod ancestors;
mod directory;
mod ephemeral;
mod formats;
mod holder;
pub mod leftover;
mod nowhere;
mod own;
mod records;
mod run;
mod runtime;
mod socket;
mod state;
mod state_made;
mod state_path;
mod store;
mod trusted_file;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub(in crate::host) use directory::Privacy;
pub use directory::{Directory, PipeEnd};
pub use ephemeral::{EphemeralEnvironment, ephemeral_path, open_ephemeral, remove_ephemeral};
pub use holder::{Holder, process_state, process_with};
pub use nowhere::nowhere;
pub(in crate::host) use own::{
    Holds, empty, mark, remove as remove_file_in, remove_empty as remove_empty_in,
};
pub use records::{Records, RunId, RunIdError};
pub use run::{Liveness, RunClient, RunDir, warn_of};
pub use runtime::{RuntimeEnvironment, runtime_root};
pub use socket::{remove_socket, short_path};
pub use state::StateDir;
pub use state_made::{StateBefore, StateMade};
pub use state_path::{linuxkit_state_path, state_path, state_path_in};
pub use store::{StoreEnvironment, StoreError, existing_user_store, store_path, user_store};
pub use trusted_file::read_trusted;

/// File names in a run directory: a new one must be put into the closed list of `own.rs`, too
/// (`every_name_that_a_vm_makes_is_in_the_closed_list`).
pub mod names {
    /// The control socket.
    pub const CONTROL: &str = "control";
    /// The supervisor's QMP socket.
    pub const QMP: &str = "qmp";
    /// The pipe to the serial console.
    pub const SERIAL_IN: &str = "serial.in";
    /// The pipe from the serial console.
    pub const SERIAL_OUT: &str = "serial.out";
    /// The guest agent's socket.
    pub const AGENT: &str = "agent";
    /// The QMP socket for the user's own tools.
    pub const QMP_SHARED: &str = "qmp-shared";
    /// Held for the supervisor's whole life.
    pub const LOCK: &str = "lock";
    /// The id of the run.
    pub const RUN: &str = "run";
    /// What is needed to re-adopt the VM.
    pub const VM: &str = "vm.json";
    /// Changes that are half done, for a takeover.
    pub const PENDING: &str = "pending.json";
    /// How the VM came to its devices.
    pub const PLUGGED: &str = "plugged.json";
    /// Which of the console's logs are of this run.
    pub const CONSOLE_LOG: &str = "console-log";
    /// In a state directory: what the unpacked image was unpacked from.
    pub const UNPACKED: &str = "unpacked.json";
    /// The unpacked image, if it is a CD's.
    pub const UNPACKED_ISO: &str = "unpacked.iso";
    /// The kernel of a unified kernel image.
    pub const UKI_KERNEL: &str = "uki.linux";
    /// Its initial RAM disk.
    pub const UKI_INITRD: &str = "uki.initrd";
    /// The address of its network card, where that can meet those of other VMs.
    pub const MAC: &str = "mac";
    /// vmrun's mark, in every folder whose files it may remove: put there when the folder is made.
    pub const MARK: &str = ".vmrun";
    /// A folder that is removed as it is made: see `nowhere`.
    pub const EMPTY: &str = "empty";
}

/// The fuzzer's entry to the remembered formats.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_formats(bytes: &[u8]) {
    if let Ok(formats) = formats::Formats::parse(bytes) {
        let written = formats.to_json().expect("it was JSON");
        assert!(formats::Formats::parse(&written).is_ok());
    }
}

/// Why a directory cannot be used.
#[derive(Debug, Error)]
pub enum DirError {
    /// The parent of what should be made is not there.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Something else has its name.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A symlink could be pointed elsewhere later.
    #[error("{} is a symbolic link", path.display())]
    Symlink {
        /// The path.
        path: PathBuf,
    },
    /// Someone else could change what is in it.
    #[error("{} belongs to another user (uid {owner})", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Others may write to (or look into) it.
    #[error("{} is open to other users (mode {mode:04o})", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another user made it: nothing in it is touched.
    #[error("{} was not made by vmrun", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// Something in it is not vmrun's.
    #[error("{} has '{}' in it, which is not vmrun's: nothing was removed", path.display(), name.display())]
    Stranger {
        /// The directory.
        path: PathBuf,
        /// What is in it.
        name: OsString,
    },
    /// What it says of its VM makes no sense, or cannot be read.
    #[error("{} does not say whose it is, and stays as it is: {why}", path.display())]
    Undescribed {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Others could put something else in the place of what is in it.
    #[error("the {role} {} {why}", path.display())]
    Unsafe {
        /// What it is for.
        role: &'static str,
        /// The directory.
        path: PathBuf,
        /// Who else can do what.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// Nothing can be written there.
    #[error("{} is not writable", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
    },
    /// A VM of this name is running.
    #[error("a VM named '{name}' is running already")]
    Taken {
        /// The name.
        name: String,
    },
    /// Another VM uses this state directory.
    #[error("{} is in use by another VM", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file in it does not say what it should.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Anything else.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DirError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some("create it first".to_owned()),
            Self::Open { path, .. } => Some(format!("chmod go-rwx '{}'", path.display())),
            Self::Taken { .. } => Some("choose another --name, or see `vmrun ls`".to_owned()),
            Self::NotOurs { .. } => Some("move it elsewhere, or choose another name".to_owned()),
            Self::Stranger { .. } => Some("move what is yours elsewhere; vmrun removes the rest".to_owned()),
            Self::Undescribed { path, .. } => {
                Some(format!("if no QEMU runs that belongs to it: rm -r '{}'", path.display()))
            }
            Self::Unsafe { hint, .. } => Some(hint.clone()),
            Self::InUse { .. }
            | Self::Symlink { .. }
            | Self::Foreign { .. }
            | Self::NotWritable { .. }
            | Self::NotADirectory { .. } => Some(
                "choose another directory (--state for a VM's state, $VMRUN_RUNTIME_DIR for sockets)"
                    .to_owned(),
            ),
            Self::Damaged { path, .. } => Some(format!("delete '{}' to have it made anew", path.display())),
            Self::Io { .. } => None,
        }
    }
}
