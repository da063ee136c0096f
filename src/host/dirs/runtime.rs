//! Where run directories are: `<runtime>/vmrun`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::directory::{Directory, Privacy};
use super::{DirError, ancestors};

/// The variable that counts before all others.
const OWN_VARIABLE: &str = "VMRUN_RUNTIME_DIR";

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
            vmrun_runtime_dir: std::env::var_os(OWN_VARIABLE),
            runtime_directory: std::env::var_os("RUNTIME_DIRECTORY"),
            xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
            uid: Uid::effective(),
            run: "/run".into(),
            tmp: "/tmp".into(),
        }
    }

    /// This process's, but for a runtime directory that is given instead of `$VMRUN_RUNTIME_DIR`.
    pub fn from_env_or(given: Option<&Path>) -> Self {
        let environment = Self::from_env();
        let given = given.map(|given| given.as_os_str().to_owned());
        Self { vmrun_runtime_dir: given.or(environment.vmrun_runtime_dir), ..environment }
    }
}

/// The folder of the run directories, in the runtime directory.
const ROOT: &str = "vmrun";
/// What errors call the runtime directory.
const ROLE: &str = "runtime directory";

/// `<runtime>/vmrun`, made if need be: the first that is set of `$VMRUN_RUNTIME_DIR` (made, too), `$RUNTIME_DIRECTORY`, `$XDG_RUNTIME_DIR`;
/// else `/run` for root; else `/tmp/vmrun-<uid>`. Empty variables do not count.
///
/// # Errors
/// It cannot be made, is a symlink, someone else's or open to others; or others could put something else in its place, since the
/// runtime directory, or a folder on the way to it, is theirs or can be written by them.
pub fn runtime_root(environment: &RuntimeEnvironment) -> Result<PathBuf, DirError> {
    let (runtime, variable) = runtime(environment)?;
    let runtime = Directory::open_shared(&runtime, ROLE, || hint(variable))?;
    let root = Directory::create_in(&runtime, ROOT, Privacy::Private)?;
    Ok(root.path().to_owned())
}

/// What to do about a runtime directory that this variable names. `su` leaves one that names the folder of another user.
fn hint(variable: Option<&str>) -> String {
    let own = format!("set {OWN_VARIABLE} to a folder of your own");
    match variable.filter(|variable| *variable != OWN_VARIABLE) {
        Some(variable) => format!("unset {variable}, which names it, or {own}"),
        None => own,
    }
}

/// The runtime directory, with the variable that names it.
fn runtime(environment: &RuntimeEnvironment) -> Result<(PathBuf, Option<&'static str>), DirError> {
    let set = |value: &Option<OsString>| value.clone().filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(own) = set(&environment.vmrun_runtime_dir) {
        let own = absolute(&own)?;
        if !own.is_dir() {
            // nothing is made where others could swap it
            ancestors::check(&own, ROLE, || hint(Some(OWN_VARIABLE)))?;
            Directory::create(&own, Privacy::Private)?;
        }
        return Ok((own, Some(OWN_VARIABLE)));
    }
    if let Some(given) = environment.runtime_directory.as_deref().and_then(first_of_list) {
        return Ok((absolute(&given)?, Some("RUNTIME_DIRECTORY")));
    }
    if let Some(given) = set(&environment.xdg_runtime_dir) {
        return Ok((absolute(&given)?, Some("XDG_RUNTIME_DIR")));
    }
    if environment.uid.is_root() {
        return Ok((environment.run.clone(), None));
    }
    let last_resort = environment.tmp.join(format!("vmrun-{}", environment.uid));
    Directory::create(&last_resort, Privacy::Private)?;
    Ok((last_resort, None))
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
        let folder = temporary.path().join("vmrun-1000");
        assert_eq!(runtime_root(&environment).unwrap(), folder.join("vmrun"));
        assert_eq!(mode(&folder), 0o700);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
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
    #[cfg_attr(lacks = "root", ignore = "needs root")]
    fn someone_elses_is_refused() {
        assert!(Uid::effective().is_root(), "only root can give a folder away");
        let temporary = tempfile::tempdir().unwrap();
        let environment = environment(temporary.path());
        let folder = temporary.path().join("vmrun-1000");
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::chown(&folder, Some(4242), None).unwrap();
        assert!(matches!(runtime_root(&environment).unwrap_err(), DirError::Foreign { owner: 4242, .. }));
    }

    #[test]
    fn a_runtime_directory_that_others_can_write_to_is_refused_unless_sticky() {
        let temporary = tempfile::tempdir().unwrap();
        let given = temporary.path().join("shared");
        fs::create_dir(&given).unwrap();
        let environment = RuntimeEnvironment {
            xdg_runtime_dir: Some(given.clone().into()),
            ..environment(temporary.path())
        };
        for (mode, good) in [(0o777, false), (0o775, false), (0o757, false), (0o1777, true), (0o755, true)] {
            fs::set_permissions(&given, fs::Permissions::from_mode(mode)).unwrap();
            let root = runtime_root(&environment);
            assert_eq!(root.is_ok(), good, "{mode:o}: {root:?}");
            if let Err(error) = root {
                assert!(error.to_string().contains("can be written by other users"), "{error}");
                assert!(error.hint().unwrap().contains("unset XDG_RUNTIME_DIR"), "{error:?}");
            }
        }
    }

    #[test]
    fn a_folder_on_the_way_that_others_can_write_to_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let shared = temporary.path().join("shared");
        fs::create_dir_all(shared.join("mine")).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
        let base = environment(temporary.path());
        let given = |name: &str| Some(shared.join(name).into_os_string());
        for (environment, variable) in [
            (RuntimeEnvironment { vmrun_runtime_dir: given("mine"), ..base.clone() }, OWN_VARIABLE),
            (RuntimeEnvironment { vmrun_runtime_dir: given("new"), ..base.clone() }, OWN_VARIABLE),
            (RuntimeEnvironment { runtime_directory: given("mine"), ..base.clone() }, "RUNTIME_DIRECTORY"),
            (RuntimeEnvironment { xdg_runtime_dir: given("mine"), ..base.clone() }, "XDG_RUNTIME_DIR"),
            (RuntimeEnvironment { tmp: shared.join("mine"), ..base.clone() }, OWN_VARIABLE),
        ] {
            let error = runtime_root(&environment).unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains(&format!("lies in {}, which can be written", shared.display())),
                "{message}"
            );
            assert!(error.hint().unwrap().contains(variable), "{error:?}");
            fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
            runtime_root(&environment).unwrap();
            fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
            let _ = fs::remove_dir_all(shared.join("new"));
        }
        assert!(!shared.join("new").exists());
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
