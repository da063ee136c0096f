//! Picks a VM's name and takes its run directory.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::host::dirs::{DirError, RunDir, RuntimeEnvironment, runtime_root};
use crate::spec::{Request, VmName};

use crate::vm::start_error::StartError;
use crate::vm::unsupervised;

/// How many numbers are tried as a suffix of a default name.
const MAX_NUMBERED: u32 = 1000;

/// The requested name, or one from the image, the kernel or the first disk with a path, or `vm`.
pub(super) fn wanted(request: &Request) -> VmName {
    let first_disk = || request.disks.iter().find_map(|disk| disk.file.as_ref());
    let named = request.image.as_ref().or(request.kernel.as_ref()).or_else(first_disk);
    let found = || {
        let file = named.map_or(Path::new(""), PathBuf::as_path);
        match request.unpack && file.extension().and_then(OsStr::to_str).is_some_and(is_packing) {
            true => VmName::from_image(&file.with_extension("")),
            false => VmName::from_image(file),
        }
    };
    request.name.clone().unwrap_or_else(found)
}

/// `debian.qcow2.xz` is an image of Debian.
fn is_packing(extension: &str) -> bool {
    ["xz", "gz", "zst", "bz2", "lz4", "lz"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Takes the requested name, or the first free one that starts with the default name.
pub(super) fn claim(request: &Request) -> Result<RunDir, StartError> {
    let environment = RuntimeEnvironment::from_env_or(request.runtime.as_deref());
    let root = runtime_root(&environment).map_err(StartError::RunDirectory)?;
    let take = |name: &VmName| match RunDir::create(&root, name) {
        Err(DirError::Taken { .. }) => Ok(None),
        // try another name
        Err(DirError::NotOurs { .. }) if request.name.is_none() => Ok(None),
        Err(error) => Err(StartError::RunDirectory(error)),
        // not reusable: its supervisor has died but the VM runs; the next `vmrun ls` takes it over
        Ok(run) => match unsupervised::reuse(run) {
            Err(_) if request.name.is_none() => Ok(None),
            other => other,
        },
    };
    if let Some(name) = &request.name {
        return take(name)?.ok_or_else(|| StartError::NameTaken(name.clone()));
    }
    let plain = wanted(request);
    let numbered = (2..MAX_NUMBERED).map(|number| plain.numbered(number));
    for name in std::iter::once(plain.clone()).chain(numbered) {
        if let Some(run) = take(&name)? {
            return Ok(run);
        }
    }
    Err(StartError::NameTaken(plain))
}
