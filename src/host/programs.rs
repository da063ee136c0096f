//! Finding the programs that a VM needs.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::spec::Arch;

/// Where distributions put `virtiofsd`, which is not meant to be in `PATH`.
const VIRTIOFSD_PATHS: [&str; 3] =
    ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd"];

/// Where distributions and QEMU's own build put the bridge helper.
const BRIDGE_HELPER_PATHS: [&str; 3] = [
    "/usr/lib/qemu/qemu-bridge-helper",
    "/usr/libexec/qemu-bridge-helper",
    "/usr/local/libexec/qemu-bridge-helper",
];

/// Where programs are looked for.
#[derive(Debug, Clone)]
pub struct SearchPath {
    /// The value of `PATH`.
    pub path: OsString,
    /// The root of absolute paths; `/` but in tests.
    pub root: PathBuf,
}

impl SearchPath {
    /// This process's `PATH`.
    pub fn from_env() -> Self {
        Self { path: std::env::var_os("PATH").unwrap_or_default(), root: "/".into() }
    }
}

/// Why a program cannot be used.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// It is nowhere.
    #[error("{program} is not installed")]
    NotInstalled {
        /// Its name.
        program: String,
        /// Debian's package with it.
        package: &'static str,
    },
    /// There is no such program, or it is vmrun itself.
    #[error("there is no program {} (other than vmrun itself)", program.display())]
    NotFound {
        /// Its name, or a path.
        program: OsString,
    },
    /// The path given does not lead to a program.
    #[error("{} is not a program that can be run", path.display())]
    NotAProgram {
        /// The path given.
        path: PathBuf,
    },
    /// It cannot be looked at.
    #[error("cannot look at {}", path.display())]
    Unreadable {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ProgramError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotInstalled { package, .. } => Some(format!("apt-get install {package}")),
            Self::NotFound { .. } => Some(
                "install it, or name it with $VMRUN_WRAP_QEMU (a program, or a folder with programs)"
                    .to_owned(),
            ),
            Self::NotAProgram { .. } | Self::Unreadable { .. } => None,
        }
    }
}

/// QEMU for an architecture: the path given, or `qemu-system-<arch>` in `PATH`.
///
/// # Errors
/// It is not there; the hint names the package.
pub fn qemu(arch: Arch, given: Option<&Path>, search: &SearchPath) -> Result<PathBuf, ProgramError> {
    let facts = arch.facts();
    find(facts.program, facts.package, given, &[], search)
}

/// `qemu-img`.
///
/// # Errors
/// It is not there; the hint names the package.
pub fn qemu_img(search: &SearchPath) -> Result<PathBuf, ProgramError> {
    find("qemu-img", "qemu-utils", None, &[], search)
}

/// `virtiofsd`: the path given, `PATH`, or where distributions hide it.
///
/// # Errors
/// It is not there; the hint names the package.
pub fn virtiofsd(given: Option<&Path>, search: &SearchPath) -> Result<PathBuf, ProgramError> {
    let package = "virtiofsd (Debian 12: qemu-system-common)";
    find("virtiofsd", package, given, &VIRTIOFSD_PATHS, search)
}

/// QEMU's bridge helper, which distributions hide.
///
/// # Errors
/// It is not there; the hint names the package.
pub fn bridge_helper(search: &SearchPath) -> Result<PathBuf, ProgramError> {
    find("qemu-bridge-helper", "qemu-system-common", None, &BRIDGE_HELPER_PATHS, search)
}

/// A program that unpacks images.
///
/// # Errors
/// It is not there; the hint names the package.
pub fn unpacker(name: &str, package: &'static str, search: &SearchPath) -> Result<PathBuf, ProgramError> {
    find(name, package, None, &[], search)
}

/// A program that connects to guests.
///
/// # Errors
/// It is not there; the hint names the package.
pub fn client(name: &str, package: &'static str, search: &SearchPath) -> Result<PathBuf, ProgramError> {
    find(name, package, None, &[], search)
}

fn find(
    name: &str,
    package: &'static str,
    given: Option<&Path>,
    paths: &[&str],
    search: &SearchPath,
) -> Result<PathBuf, ProgramError> {
    if let Some(given) = given {
        return lookup(given.as_os_str(), search)
            .ok_or_else(|| ProgramError::NotAProgram { path: given.to_owned() });
    }
    let hidden = paths.iter().map(|path| search.root.join(path.trim_start_matches('/')));
    lookup(OsStr::new(name), search)
        .or_else(|| hidden.into_iter().find_map(|path| lookup(path.as_os_str(), search)))
        .ok_or_else(|| ProgramError::NotInstalled { program: name.to_owned(), package })
}

/// A bare name is looked up in `PATH`, as a shell would; the result is absolute.
fn lookup(name: &OsStr, search: &SearchPath) -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let found = which::which_in(name, Some(&search.path), here).ok()?;
    std::path::absolute(found).ok()
}

/// The first program of this name in `PATH` that is not this very program, under whatever name it is there. A name with a slash
/// is that file, as for a shell.
///
/// # Errors
/// There is none.
pub fn not_us(name: &OsStr, search: &SearchPath) -> Result<PathBuf, ProgramError> {
    let own = std::env::current_exe().ok().and_then(|own| identity(&own).ok());
    let is_other = |found: &PathBuf| {
        let theirs = identity(found).ok();
        own.is_none()
            || theirs.is_some_and(|theirs| {
                Some((theirs.device, theirs.inode)) != own.map(|own| (own.device, own.inode))
            })
    };
    let here = std::env::current_dir().unwrap_or_default();
    let mut all = which::which_in_all(name, Some(&search.path), &here).into_iter().flatten();
    all.find(is_other)
        .and_then(|found| std::path::absolute(found).ok())
        .ok_or_else(|| ProgramError::NotFound { program: name.to_owned() })
}

/// Says whether a program is still the same file: changes with every upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The file system's device number.
    pub device: u64,
    /// The inode.
    pub inode: u64,
    /// When it was last written, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// The identity of a program.
///
/// # Errors
/// It cannot be looked at.
pub fn identity(program: &Path) -> Result<Identity, ProgramError> {
    let unreadable = |source| ProgramError::Unreadable { path: program.to_owned(), source };
    let file = std::fs::metadata(program).map_err(unreadable)?;
    Ok(Identity {
        device: file.dev(),
        inode: file.ino(),
        modified_ns: i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec()),
        size_bytes: file.size(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn program(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn search(root: &Path) -> SearchPath {
        SearchPath { path: root.join("bin").into(), root: root.to_owned() }
    }

    #[test]
    fn finds_qemu_in_path() {
        let root = tempfile::tempdir().unwrap();
        program(&root.path().join("bin/qemu-system-s390x"));
        let found = qemu(Arch::S390x, None, &search(root.path())).unwrap();
        assert_eq!(found, root.path().join("bin/qemu-system-s390x"));
    }

    #[test]
    fn names_the_package_of_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let error = qemu(Arch::X86_64, None, &search(root.path())).unwrap_err();
        assert_eq!(error.to_string(), "qemu-system-x86_64 is not installed");
        assert_eq!(error.hint().unwrap(), "apt-get install qemu-system-x86");
        assert_eq!(qemu_img(&search(root.path())).unwrap_err().hint().unwrap(), "apt-get install qemu-utils");
    }

    #[test]
    fn a_path_given_must_be_a_program() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let error = qemu(Arch::X86_64, Some(&file), &search(root.path())).unwrap_err();
        assert!(matches!(error, ProgramError::NotAProgram { .. }));
        program(&file);
        assert_eq!(qemu(Arch::X86_64, Some(&file), &search(root.path())).unwrap(), file);
    }

    #[test]
    fn virtiofsd_is_found_where_distributions_hide_it() {
        let root = tempfile::tempdir().unwrap();
        program(&root.path().join("usr/lib/qemu/virtiofsd"));
        let hidden = virtiofsd(None, &search(root.path())).unwrap();
        assert_eq!(hidden, root.path().join("usr/lib/qemu/virtiofsd"));
        program(&root.path().join("bin/virtiofsd"));
        assert_eq!(virtiofsd(None, &search(root.path())).unwrap(), root.path().join("bin/virtiofsd"));
    }

    #[test]
    fn identity_changes_with_the_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("p");
        program(&path);
        let before = identity(&path).unwrap();
        assert_eq!(before, identity(&path).unwrap());
        fs::write(&path, "longer than before").unwrap();
        assert_ne!(before, identity(&path).unwrap());
    }
}
