//! The user's own SSH key for VMs: one for all of them, made by `ssh-keygen` when it is needed first. It is in the user's store and never
//! leaves this machine; a guest gets the public half over its agent's channel, for each connection.
//!
//! Not one for each VM: whoever can read it can reach the control sockets as well, forks would share it with their template, and a
//! configuration that names it stays valid over runs. Not by a crate: `ssh` is needed for its use anyway, and comes with `ssh-keygen`.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::dirs::{DirError, Directory, StoreEnvironment, StoreError, user_store};
use super::programs::{self, ProgramError, SearchPath};
use super::sys;

/// The folder in the user's store.
const FOLDER: &str = "ssh";
const KEY: &str = "id_ed25519";
const LOCK: &str = "lock";
/// A configuration for `ssh -F`.
const CONFIG: &str = "config";
/// Characters of a key's hash that name it in a guest.
const NAME_BYTES: usize = 8;

/// Why there is no key.
#[derive(Debug, Error)]
pub enum SshKeyError {
    /// The user has no store.
    #[error("there is no place for the SSH key of VMs")]
    NoStore(#[source] StoreError),
    /// Its folder cannot be used.
    #[error("there is no place for the SSH key of VMs")]
    Folder(#[from] DirError),
    /// `ssh-keygen` is not installed.
    #[error(transparent)]
    NoProgram(#[from] ProgramError),
    /// It cannot be started, or files cannot be written.
    #[error("{}", path.display())]
    Io {
        /// The program or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It made no key.
    #[error("ssh-keygen cannot make {}: {said}", path.display())]
    NotMade {
        /// The key.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// The file is no private key.
    #[error("{} is not a private key that can be used: {said}", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What `ssh-keygen` said.
        said: String,
    },
}

impl SshKeyError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoStore(error) => error.hint(),
            Self::Folder(error) => error.hint(),
            Self::NoProgram(error) => error.hint(),
            Self::NotAKey { path, .. } => {
                Some(format!("remove it: vmrun makes another one (rm {})", path.display()))
            }
            Self::Io { .. } | Self::NotMade { .. } => None,
        }
    }
}

/// The user's key for VMs.
#[derive(Debug)]
pub struct SshKey {
    folder: Directory,
    /// The public half, as in `authorized_keys`.
    pub public: String,
}

impl SshKey {
    /// The key; makes it if there is none.
    ///
    /// # Errors
    /// There is no store or no `ssh-keygen`, or the file is no key.
    pub fn of_user(environment: &StoreEnvironment) -> Result<Self, SshKeyError> {
        let folder = user_store(environment).map_err(SshKeyError::NoStore)?.subdirectory(FOLDER)?;
        let keygen = programs::client("ssh-keygen", "openssh-client", &SearchPath::from_env())?;
        let path = folder.path().join(KEY);
        {
            // two first connections at once make one key
            let io = |source| SshKeyError::Io { path: folder.path().join(LOCK), source };
            let lock = folder.append(LOCK).map_err(io)?;
            sys::lock(&lock).map_err(io)?;
            if path.symlink_metadata().is_err() {
                make(&keygen, &path)?;
            }
        }
        let public = public_half(&keygen, &path)?;
        Ok(Self { folder, public })
    }

    /// The file with the private half.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(KEY)
    }

    /// A name that no other key has.
    pub fn name(&self) -> String {
        let hash = Sha256::digest(self.public.as_bytes());
        hash.iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes a configuration for `ssh -F` beside the key, in one step; returns its path.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write_config(&self, text: &str) -> Result<PathBuf, SshKeyError> {
        let path = self.folder.path().join(CONFIG);
        // the same text is not written again
        if self.folder.read(CONFIG).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(path);
        }
        match self.folder.write(CONFIG, text.as_bytes()) {
            Ok(()) => Ok(path),
            Err(source) => Err(SshKeyError::Io { path, source }),
        }
    }
}

fn make(keygen: &Path, path: &Path) -> Result<(), SshKeyError> {
    let words = ["-q", "-t", "ed25519", "-N", "", "-C", "vmrun", "-f"].map(OsStr::new);
    let (succeeded, said) = run(keygen, words.into_iter().chain([path.as_os_str()]))?;
    if succeeded { Ok(()) } else { Err(SshKeyError::NotMade { path: path.to_owned(), said }) }
}

/// Asked of the private half each time: a file that is no key is found here, and not by a refused login.
fn public_half(keygen: &Path, path: &Path) -> Result<String, SshKeyError> {
    let words = ["-y", "-P", "", "-f"].map(OsStr::new);
    let (succeeded, said) = run(keygen, words.into_iter().chain([path.as_os_str()]))?;
    let is_key = succeeded && said.lines().count() == 1 && said.split(' ').count() >= 2;
    if is_key { Ok(said) } else { Err(SshKeyError::NotAKey { path: path.to_owned(), said }) }
}

/// Whether it succeeded, and what it printed: the reason, if not.
fn run<'a>(program: &Path, words: impl Iterator<Item = &'a OsStr>) -> Result<(bool, String), SshKeyError> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|source| SshKeyError::Io { path: program.to_owned(), source })?;
    let printed = if output.status.success() { output.stdout } else { output.stderr };
    let text = String::from_utf8_lossy(&printed).trim().to_owned();
    let text =
        if output.status.success() { text } else { text.lines().last().unwrap_or_default().to_owned() };
    Ok((output.status.success(), text))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_made_once_and_private_and_a_file_that_is_none_is_named() {
        let root = tempfile::tempdir().unwrap();
        let environment = StoreEnvironment::from_env_or(Some(root.path()));
        let makers: Vec<_> = (0..4)
            .map(|_| {
                let environment = environment.clone();
                std::thread::spawn(move || SshKey::of_user(&environment).unwrap().public)
            })
            .collect();
        let keys: Vec<String> = makers.into_iter().map(|maker| maker.join().unwrap()).collect();
        assert!(keys[0].starts_with("ssh-ed25519 ") && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        let key = SshKey::of_user(&environment).unwrap();
        assert_eq!(key.path(), root.path().join("vmrun/ssh/id_ed25519"));
        assert_eq!(fs::metadata(key.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let config = key.write_config("Host *\n").unwrap();
        assert_eq!(fs::read_to_string(config).unwrap(), "Host *\n");
        for text in ["", "no key\n", key.public.as_str()] {
            fs::write(key.path(), text).unwrap();
            let error = SshKey::of_user(&environment).unwrap_err();
            assert!(matches!(error, SshKeyError::NotAKey { .. }), "{error}");
            assert!(error.hint().unwrap().contains("rm "), "{error}");
        }
    }
}
