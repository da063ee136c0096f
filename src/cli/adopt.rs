//! Takes over a VM whose supervisor has died, in the background.

use std::path::Path;
use std::time::Duration;

use crate::control::client::ClientError;
use crate::control::find::{self, FindError, Standing};
use crate::control::supervise::resume;
use crate::host::descriptors;
use crate::host::dirs::DirError;
use crate::spec::VmName;
use crate::vm::{self, StartError, claim};

use super::background::{Reporter, in_background};
use super::failure::Failure;
use super::qemu::runtime;

/// Takes the VM over; returns when its new supervisor serves it. Succeeds as well if another process was faster.
pub(super) fn run(root: &Path, name: &VmName) -> Result<(), Failure> {
    in_background(|reporter| supervisor(root, name, reporter), |_| Ok(())).map(drop)
}

/// The same for a client in the middle of a call.
pub(super) fn adopt(root: &Path, name: &VmName) -> Result<(), ClientError> {
    run(root, name).or_else(|failure| match find::standing(root, name) {
        // QEMU has ended meanwhile: a repeated request reports that
        Standing::Stale | Standing::Supervised => Ok(()),
        Standing::Orphan => {
            log::warn!("VM '{name}' has no supervisor, and cannot be given one: {}", failure.message);
            Err(ClientError::SupervisorDied(name.clone()))
        }
    })
}

/// How long to wait for the end of a QEMU that could not be taken over: a killed one releases its memory first.
const LAST_BREATH: Duration = Duration::from_secs(2);

/// A VM that could not be taken over may be ending: waits for that.
pub(super) fn await_end(root: &Path, name: &VmName) {
    if find::standing(root, name) == Standing::Orphan {
        vm::await_end(root, name, LAST_BREATH);
    }
}

fn supervisor(root: &Path, name: &VmName, reporter: &mut Reporter) -> Result<u8, Failure> {
    let adopted = match claim(root, name) {
        Err(StartError::RunDirectory(DirError::Taken { .. })) => {
            reporter.up(name.as_str());
            return Ok(0);
        }
        other => other?,
    };
    descriptors::raise_limit();
    let outcome = runtime()?.block_on(resume(adopted, |up| reporter.up(up.name.as_str())))?;
    match outcome {
        Some(outcome) => Ok(outcome.exit_code),
        None => Err(FindError::Stale(name.clone()).into()),
    }
}
