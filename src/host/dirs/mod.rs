//! Directories: where running VMs are found ([`RunDir`]) and what outlives a run ([`StateDir`]).

mod directory;
mod ephemeral;
mod formats;
mod holder;
mod run;
mod runtime;
mod state;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use directory::{Directory, PipeEnd};
pub use ephemeral::{ephemeral_path, open_ephemeral, remove_ephemeral};
pub use holder::process_state;
pub use run::{Liveness, RunClient, RunDir};
pub use runtime::{RuntimeEnvironment, runtime_root};
pub use state::{StateDir, state_path, state_path_in};

/// File names in a run directory.
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
    /// What is needed to re-adopt the VM.
    pub const VM: &str = "vm.json";
}

/// The fuzzer's door to the remembered formats.
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
