//! A VM's name, with its run directory.

use std::path::Path;

use crate::host::dirs::{DirError, RunDir, RuntimeEnvironment, runtime_root};
use crate::spec::{Request, VmName};

use super::super::adopt;
use super::super::start_error::StartError;

/// How many numbers are tried behind a name that was not asked for.
const MAX_NUMBERED: u32 = 1000;

/// Takes the name that was asked for, or the first free one after the image.
pub(super) fn claim(request: &Request, image: &Path) -> Result<RunDir, StartError> {
    let environment = RuntimeEnvironment::from_env_or(request.runtime.as_deref());
    let root = runtime_root(&environment).map_err(StartError::RunDirectory)?;
    let take = |name: &VmName| match RunDir::create(&root, name) {
        Err(DirError::Taken { .. }) => Ok(None),
        // another name will do
        Err(DirError::NotOurs { .. }) if request.name.is_none() => Ok(None),
        Err(error) => Err(StartError::RunDirectory(error)),
        // none: its supervisor has died, but the VM lives; the next `vmrun ls` takes it over
        Ok(run) => match adopt::reuse(run) {
            Err(_) if request.name.is_none() => Ok(None),
            other => other,
        },
    };
    if let Some(name) = &request.name {
        return take(name)?.ok_or_else(|| StartError::NameTaken(name.clone()));
    }
    let plain = VmName::from_image(image);
    let numbered = (2..MAX_NUMBERED).map(|number| plain.numbered(number));
    for name in std::iter::once(plain.clone()).chain(numbered) {
        if let Some(run) = take(&name)? {
            return Ok(run);
        }
    }
    Err(StartError::NameTaken(plain))
}
