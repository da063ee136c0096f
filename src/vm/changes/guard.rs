//! States of QEMU in which it would refuse an operation in words of its own, or abort.

use crate::qemu::query;
use crate::qmp::Session;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::steps::to_the_end;

/// Why a VM is stopped after a snapshot that was loaded in part.
pub(in crate::vm) const INCONSISTENT: &str =
    "a snapshot was loaded incompletely: the guest's memory is inconsistent";

/// What an operation needs of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vm) enum Needs {
    /// The images, open for writing.
    Images,
    /// The guest's memory, which must be that of one moment.
    Memory,
    /// Both.
    ImagesAndMemory,
}

/// Refuses what QEMU cannot do in its run state.
///
/// A migration of a paused VM leaves QEMU in the run state `postmigrate`, in which it has closed the images for writing (7.2 aborts if
/// one is resized) and begins no other migration. Only `cont` ends that, which runs the guest; so vmrun leaves it to the user.
pub(in crate::vm) async fn check(session: &Session, what: &str, needs: Needs) -> Result<(), ChangeError> {
    let status = to_the_end(session.submit(&query::status())).await?;
    match status["status"].as_str() {
        Some("postmigrate") if needs != Needs::Memory => {
            let message = format!(
                "{what} needs the guest to run once: its state was written while it was paused, and QEMU has the images closed since"
            );
            let kind = ErrorKind::NotNow { state: "paused".to_owned() };
            Err(ChangeError::new(kind, message)
                .hint("`vmrun ctl resume`; after that the VM can be paused again"))
        }
        Some("restore-vm") if needs != Needs::Images => Err(inconsistent(what)),
        _ => Ok(()),
    }
}

/// The refusal of a VM whose memory is half of one time and half of another.
pub(in crate::vm) fn inconsistent(what: &str) -> ChangeError {
    let kind = ErrorKind::NotNow { state: "inconsistent".to_owned() };
    ChangeError::new(kind, format!("{what} makes no sense: {INCONSISTENT}"))
        .hint("load another snapshot, or `reset` the VM and `resume` it")
}
