//! What vmrun knows beyond one VM: a folder for each user, `$XDG_STATE_HOME/vmrun`, else `~/.local/state/vmrun`.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use thiserror::Error;

use super::directory::{Directory, Privacy};
use super::{DirError, ancestors};

/// Its name in the folder for the state of all programs.
const NAME: &str = "vmrun";
/// What to do without one.
const ELSEWHERE: &str = "set XDG_STATE_HOME to a folder of your own that can be written to";

/// What decides where a user's store is.
#[derive(Debug, Clone, Default)]
pub struct StoreEnvironment {
    /// `$XDG_STATE_HOME`; one that is empty or not absolute does not count, as the XDG specification says.
    pub xdg_state_home: Option<OsString>,
    /// `$HOME`, else what the system's list of users says (a service of root's has no `$HOME`).
    pub home: Option<PathBuf>,
}

impl StoreEnvironment {
    /// This process's.
    pub fn from_env() -> Self {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let listed = || User::from_uid(Uid::effective()).ok().flatten().map(|user| user.dir);
        Self { xdg_state_home: std::env::var_os("XDG_STATE_HOME"), home: home.or_else(listed) }
    }

    /// This process's, but for a folder that is given instead of `$XDG_STATE_HOME`.
    pub fn from_env_or(given: Option<&Path>) -> Self {
        match given {
            Some(given) => Self { xdg_state_home: Some(given.as_os_str().to_owned()), home: None },
            None => Self::from_env(),
        }
    }
}

/// Why a user has no store. What to do without it is for the caller to decide.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Nothing says where it could be.
    #[error("there is no home directory, and $XDG_STATE_HOME is not set")]
    NoHome,
    /// It cannot be made, or not be trusted.
    #[error(transparent)]
    Unusable(#[from] DirError),
}

impl StoreError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unusable(error @ DirError::Open { .. }) => error.hint(),
            Self::NoHome | Self::Unusable(_) => Some(ELSEWHERE.to_owned()),
        }
    }
}

/// Opens a user's store, and makes it (mode 0700, its parents, too) if need be. A home that is not there is not made.
///
/// # Errors
/// There is no home; it cannot be made, is a symlink, someone else's or open to others; or a folder on the way to it is.
pub fn user_store(environment: &StoreEnvironment) -> Result<Directory, StoreError> {
    let state_home = state_home(environment)?;
    // before anything is made where others could swap it
    check_way(&state_home.join(NAME))?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&state_home);
    made.map_err(|source| match source.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            DirError::NotADirectory { path: state_home.clone() }
        }
        _ => DirError::Io { action: "create", path: state_home.clone(), source },
    })?;
    Ok(Directory::create(&state_home.join(NAME), Privacy::Private)?)
}

/// Opens a user's store to read in it: none if there is none, or only one that this user cannot have written to. Nothing is made.
///
/// # Errors
/// There is one, and it cannot be trusted or read.
pub fn existing_user_store(environment: &StoreEnvironment) -> Result<Option<Directory>, StoreError> {
    let store = match state_home(environment) {
        Ok(state_home) => Directory::open(&state_home.join(NAME), Privacy::Private),
        Err(StoreError::NoHome) => return Ok(None),
        Err(StoreError::Unusable(error)) => Err(error),
    };
    match store {
        Ok(store) => {
            check_way(store.path())?;
            Ok(Some(store))
        }
        Err(DirError::Missing { .. } | DirError::NotADirectory { .. } | DirError::Foreign { .. }) => Ok(None),
        Err(DirError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where a user's store is, or would be. Nothing is made.
///
/// # Errors
/// There is no home.
pub fn store_path(environment: &StoreEnvironment) -> Result<PathBuf, StoreError> {
    state_home(environment).map(|state_home| state_home.join(NAME))
}

fn check_way(store: &Path) -> Result<(), DirError> {
    ancestors::check(store, "store of what vmrun remembers", || ELSEWHERE.to_owned())
}

fn state_home(environment: &StoreEnvironment) -> Result<PathBuf, StoreError> {
    let given = environment.xdg_state_home.as_ref().map(PathBuf::from).filter(|given| given.is_absolute());
    match (given, &environment.home) {
        (Some(given), _) => Ok(given),
        (None, Some(home)) if home.is_absolute() => match home.is_dir() {
            true => Ok(home.join(".local/state")),
            false => Err(DirError::Missing { path: home.clone() }.into()),
        },
        (None, _) => Err(StoreError::NoHome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn at_home(home: &Path) -> StoreEnvironment {
        StoreEnvironment { xdg_state_home: None, home: Some(home.to_owned()) }
    }

    fn given(folder: &Path) -> StoreEnvironment {
        StoreEnvironment::from_env_or(Some(folder))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn is_where_xdg_says_and_private() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home");
        fs::create_dir(&home).unwrap();
        assert_eq!(user_store(&at_home(&home)).unwrap().path(), home.join(".local/state/vmrun"));
        for made in [".local", ".local/state", ".local/state/vmrun"] {
            assert_eq!(mode(&home.join(made)), 0o700, "{made}");
        }
        let state = root.path().join("a/b");
        let both = StoreEnvironment { xdg_state_home: Some(state.clone().into()), ..at_home(&home) };
        assert_eq!(user_store(&both).unwrap().path(), state.join("vmrun"));
        for ignored in ["", "relative/folder"] {
            let both = StoreEnvironment { xdg_state_home: Some(ignored.into()), ..at_home(&home) };
            assert_eq!(user_store(&both).unwrap().path(), home.join(".local/state/vmrun"));
        }
        let store = user_store(&both).unwrap();
        assert_eq!(mode(store.subdirectory("records").unwrap().path()), 0o700);
        assert_eq!(store.subdirectory("records").unwrap().path(), state.join("vmrun/records"));
    }

    #[test]
    fn without_a_home_that_is_said_and_no_home_is_made() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("nonexistent");
        let error = user_store(&at_home(&missing)).unwrap_err();
        assert!(matches!(&error, StoreError::Unusable(DirError::Missing { path }) if *path == missing));
        assert!(error.hint().unwrap().contains("XDG_STATE_HOME"));
        assert!(!missing.exists());
        let error = user_store(&StoreEnvironment::default()).unwrap_err();
        assert!(matches!(error, StoreError::NoHome) && error.hint().is_some());
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in ["link", "file", "open", "inner"] {
            fs::create_dir(at(name)).unwrap();
        }
        symlink("..", at("link/vmrun")).unwrap();
        fs::write(at("file/vmrun"), "").unwrap();
        fs::create_dir(at("open/vmrun")).unwrap();
        fs::set_permissions(at("open/vmrun"), fs::Permissions::from_mode(0o755)).unwrap();
        let refused = |name: &str| match user_store(&given(&at(name))).unwrap_err() {
            StoreError::Unusable(error) => error,
            other => panic!("{other}"),
        };
        assert!(matches!(refused("link"), DirError::Symlink { .. }));
        assert!(matches!(refused("file"), DirError::NotADirectory { .. }));
        assert!(matches!(refused("open"), DirError::Open { mode: 0o755, .. }));
        assert!(matches!(refused("file/vmrun"), DirError::NotADirectory { .. }));

        let store = user_store(&given(&at("inner"))).unwrap();
        symlink("..", store.path().join("link")).unwrap();
        fs::write(store.path().join("file"), "").unwrap();
        fs::create_dir(store.path().join("open")).unwrap();
        fs::set_permissions(store.path().join("open"), fs::Permissions::from_mode(0o750)).unwrap();
        let refused = |name: &str| store.subdirectory(name).unwrap_err();
        assert!(matches!(refused("link"), DirError::Symlink { .. }));
        assert!(matches!(refused("file"), DirError::NotADirectory { .. }));
        assert!(matches!(refused("open"), DirError::Open { mode: 0o750, .. }));
    }

    #[test]
    fn a_folder_on_the_way_that_others_can_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let shared = root.path().join("shared");
        fs::create_dir(&shared).unwrap();
        let set_mode = |mode| fs::set_permissions(&shared, fs::Permissions::from_mode(mode)).unwrap();
        set_mode(0o777);
        let environment = given(&shared.join("mine"));
        let error = user_store(&environment).unwrap_err();
        assert!(
            error.to_string().contains("shared, which can be written by other users (mode 0777)"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("XDG_STATE_HOME"));
        assert!(!shared.join("mine").exists());
        assert!(existing_user_store(&environment).unwrap().is_none());
        set_mode(0o755);
        user_store(&environment).unwrap();
        set_mode(0o777);
        assert!(existing_user_store(&environment).is_err(), "what is there could have been swapped");
    }

    #[test]
    #[cfg_attr(lacks = "root", ignore = "needs root")]
    fn someone_elses_is_refused() {
        assert!(Uid::effective().is_root(), "only root can give a folder away");
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("vmrun");
        fs::create_dir(&store).unwrap();
        fs::set_permissions(&store, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&store, Some(4242), None).unwrap();
        let error = user_store(&given(root.path())).unwrap_err();
        assert!(matches!(error, StoreError::Unusable(DirError::Foreign { owner: 4242, .. })), "{error}");
    }
}
