//! States of QEMU in which it would refuse an operation in words of its own, or abort.

use crate::qemu::query;
use crate::qmp::Session;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::steps::to_the_end;

/// Why a VM is stopped after a snapshot that was loaded in part.
pub(in crate::vm) const INCONSISTENT: &str =
    "a snapshot was loaded incompletely: the guest's memory is inconsistent";

/// Refuses unless QEMU can write to the VM's images and put its state into a stream.
///
/// A migration of a paused VM leaves QEMU in the run state `postmigrate`, in which it has closed the images for writing (7.2 aborts if
/// one is resized) and begins no other migration. Only `cont` ends that, which runs the guest; so vmrun leaves it to the user.
///
/// `replaces_memory`: what is done replaces the guest's memory, so that it may be inconsistent.
pub(in crate::vm) async fn check(
    session: &Session,
    what: &str,
    replaces_memory: bool,
) -> Result<(), ChangeError> {
    let status = to_the_end(session.submit(&query::status())).await?;
    match status["status"].as_str() {
        Some("postmigrate") => {
            let message = format!(
                "{what} needs the guest to run once: it was paused when the VM was last frozen or saved, and QEMU has the images closed since"
            );
            let kind = ErrorKind::NotNow { state: "paused".to_owned() };
            Err(ChangeError::new(kind, message)
                .hint("`vmrun ctl resume`; after that the VM can be paused again"))
        }
        Some("restore-vm") if !replaces_memory => Err(inconsistent(what)),
        _ => Ok(()),
    }
}

/// The refusal of a VM whose memory is half of one time and half of another.
pub(in crate::vm) fn inconsistent(what: &str) -> ChangeError {
    let kind = ErrorKind::NotNow { state: "inconsistent".to_owned() };
    ChangeError::new(kind, format!("{what} makes no sense: {INCONSISTENT}"))
        .hint("load another snapshot, or `reset` the VM and `resume` it")
}
