//! Looks of the owner task. The inventory of a wrapped VM is refreshed whenever it is needed: clients of the VM's other monitors
//! can plug devices without an event.

use std::sync::Arc;
use std::time::Duration;

use super::Owner;
use crate::qmp::CommandError;
use crate::vm::look::{Seen, Whose, look};
use crate::vm::state::origin::Origin;

/// A QEMU that does not answer within this time (stopped or busy): the old inventory is used.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at QEMU beside the owner, with what the owner knows now.
pub(in crate::vm) fn look_again(
    owner: &Owner,
) -> impl Future<Output = Result<Seen, CommandError>> + Send + use<> {
    let (session, files) = (owner.session.clone(), owner.files);
    let (origin, pending) = (Arc::clone(&owner.origin), owner.journal.pending().clone());
    async move {
        let whose = match &*origin {
            Origin::Ours(spec) => Whose::Ours { spec, pending: &pending },
            // the inventory knows which devices are vmrun's; a device that is not in it was plugged from outside
            Origin::Wrapped(wrapped) => {
                let files = wrapped.seen.as_ref().map(|seen| &seen.files);
                Whose::Wrapped { target: wrapped.target, files, from_start: None, cards: None }
            }
        };
        look(&session, files, whose).await
    }
}

/// Continues with a current inventory; at once for a VM that can only be changed through the owner.
pub(in crate::vm) fn refreshed(owner: &mut Owner, then: impl FnOnce(&mut Owner) + Send + 'static) {
    if !owner.is_wrapped() {
        return then(owner);
    }
    let present = owner.inventory.present_ids();
    let look = tokio::time::timeout(PATIENCE, look_again(owner));
    owner.spawn(look, move |owner, seen| {
        match seen {
            Ok(Ok(seen)) => {
                if let Origin::Wrapped(wrapped) = Arc::make_mut(&mut owner.origin) {
                    seen.update(wrapped, Arc::make_mut(&mut owner.facts));
                }
                owner.machine = seen.machine;
                owner.inventory.renew(seen.inventory, &present);
            }
            Ok(Err(error)) => log::info!("QEMU could not be asked what it has: {error}"),
            Err(_) => log::info!("QEMU does not say what it has"),
        }
        then(owner);
    });
}
