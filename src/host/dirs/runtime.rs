//! Where run directories are: `<runtime>/vmrun`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::DirError;
use super::directory::{Directory, Privacy};

/// What decides where the run directories are.
#[derive(Debug, Clone)]
pub struct RuntimeEnvironment {
    /// `$VMRUN_RUNTIME_DIR`.
    pub vmrun_runtime_dir: Option<OsString>,
    /// `$RUNTIME_DIRECTORY`, which systemd sets for a service; a colon list if it has several.
    pub runtime_directory: Option<OsString>,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<OsString>,
    /// Who we are.
    pub uid: Uid,
    /// `/run`, for root.
    pub run: PathBuf,
    /// `/tmp`, the last resort.
    pub tmp: PathBuf,
}

impl RuntimeEnvironment {
    /// This process's.
    pub fn from_env() -> Self {
        Self {
            vmrun_runtime_dir: std::env::var_os("VMRUN_RUNTIME_DIR"),
            runtime_directory: std::env::var_os("RUNTIME_DIRECTORY"),
            xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
            uid: Uid::effective(),
            run: "/run".into(),
            tmp: "/tmp".into(),
        }
    }

    /// This process's, but for a runtime directory that is given in the place of `$VMRUN_RUNTIME_DIR`.
    pub fn from_env_or(given: Option<&Path>) -> Self {
        let environment = Self::from_env();
        let given = given.map(|given| given.as_os_str().to_owned());
        Self { vmrun_runtime_dir: given.or(environment.vmrun_runtime_dir), ..environment }
    }
}

/// `<runtime>/vmrun`, made if need be: the first that is set of `$VMRUN_RUNTIME_DIR` (made, too), `$RUNTIME_DIRECTORY`, `$XDG_RUNTIME_DIR`;
/// else `/run` for root; else `/tmp/vmrun-<uid>`. Empty variables do not count.
///
/// # Errors
/// It cannot be made, is a symlink, someone else's or open to others.
pub fn runtime_root(environment: &RuntimeEnvironment) -> Result<PathBuf, DirError> {
    let root = runtime(environment)?.join("vmrun");
    Directory::create(&root, Privacy::Private)?;
    Ok(root)
}

fn runtime(environment: &RuntimeEnvironment) -> Result<PathBuf, DirError> {
    let set = |value: &Option<OsString>| value.clone().filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(own) = set(&environment.vmrun_runtime_dir) {
        let own = absolute(&own)?;
        if !own.is_dir() {
            Directory::create(&own, Privacy::Private)?;
        }
        return Ok(own);
    }
    let first = environment.runtime_directory.as_deref().and_then(first_of_list);
    if let Some(given) = first.or_else(|| set(&environment.xdg_runtime_dir)) {
        return absolute(&given);
    }
    if environment.uid.is_root() {
        return Ok(environment.run.clone());
    }
    let last_resort = environment.tmp.join(format!("vmrun-{}", environment.uid));
    Directory::create(&last_resort, Privacy::Private)?;
    Ok(last_resort)
}

fn first_of_list(list: &OsStr) -> Option<PathBuf> {
    let first = list.as_bytes().split(|byte| *byte == b':').next()?;
    (!first.is_empty()).then(|| OsStr::from_bytes(first).into())
}

fn absolute(path: &Path) -> Result<PathBuf, DirError> {
    std::path::absolute(path).map_err(|source| DirError::Io { action: "find", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn environment(root: &Path) -> RuntimeEnvironment {
        fs::create_dir_all(root.join("run")).unwrap();
        RuntimeEnvironment {
            vmrun_runtime_dir: None,
            runtime_directory: None,
            xdg_runtime_dir: None,
            uid: Uid::from_raw(1000),
            run: root.join("run"),
            tmp: root.to_owned(),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_first_that_is_set_wins() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        let mut environment = environment(root);
        for name in ["a", "b", "x"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        environment.uid = Uid::from_raw(0);
        assert_eq!(runtime_root(&environment).unwrap(), root.join("run/vmrun"));
        environment.xdg_runtime_dir = Some(root.join("x").into());
        assert_eq!(runtime_root(&environment).unwrap(), root.join("x/vmrun"));
        let list = format!("{}:{}", root.join("a").display(), root.join("b").display());
        environment.runtime_directory = Some(list.into());
        assert_eq!(runtime_root(&environment).unwrap(), root.join("a/vmrun"));
        environment.vmrun_runtime_dir = Some(root.join("new").into());
        assert_eq!(runtime_root(&environment).unwrap(), root.join("new/vmrun"));
        assert_eq!((mode(&root.join("new")), mode(&root.join("new/vmrun"))), (0o700, 0o700));
        environment.vmrun_runtime_dir = Some(OsString::new());
        assert_eq!(runtime_root(&environment).unwrap(), root.join("a/vmrun"));
    }

    #[test]
    fn the_last_resort_is_private() {
        let temporary = tempfile::tempdir().unwrap();
        let environment = environment(temporary.path());
        let place = temporary.path().join("vmrun-1000");
        assert_eq!(runtime_root(&environment).unwrap(), place.join("vmrun"));
        assert_eq!(mode(&place), 0o700);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(runtime_root(&environment).unwrap_err(), DirError::Open { mode: 0o755, .. }));
    }

    #[test]
    fn a_symlink_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let environment = environment(temporary.path());
        fs::create_dir(temporary.path().join("elsewhere")).unwrap();
        symlink("elsewhere", temporary.path().join("vmrun-1000")).unwrap();
        assert!(matches!(runtime_root(&environment).unwrap_err(), DirError::Symlink { .. }));
    }

    #[test]
    fn someone_elses_is_refused() {
        if !Uid::effective().is_root() {
            return;
        }
        let temporary = tempfile::tempdir().unwrap();
        let environment = environment(temporary.path());
        let place = temporary.path().join("vmrun-1000");
        fs::create_dir(&place).unwrap();
        std::os::unix::fs::chown(&place, Some(4242), None).unwrap();
        assert!(matches!(runtime_root(&environment).unwrap_err(), DirError::Foreign { owner: 4242, .. }));
    }

    #[test]
    fn a_runtime_directory_that_is_not_there_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let missing = temporary.path().join("no");
        let environment = RuntimeEnvironment {
            xdg_runtime_dir: Some(missing.clone().into()),
            ..environment(temporary.path())
        };
        assert!(
            matches!(runtime_root(&environment).unwrap_err(), DirError::Missing { path } if path == missing)
        );
    }
}
