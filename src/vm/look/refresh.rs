//! Looks of the owner task. The inventory of a wrapped VM is refreshed whenever it matters: who speaks on a monitor of their own plugs
//! devices without an event.

use std::sync::Arc;
use std::time::Duration;

use super::{Seen, Whose, look};
use crate::qmp::CommandError;
use crate::vm::owner::Owner;
use crate::vm::state::origin::Origin;

/// A QEMU that does not answer within this time (it is stopped, or busy) is judged by what is known of it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A look at QEMU beside the owner, with what the owner knows now.
pub(in crate::vm) fn look_again(
    owner: &Owner,
) -> impl Future<Output = Result<Seen, CommandError>> + Send + use<> {
    let (session, files) = (owner.session.clone(), owner.files);
    let (origin, pending) = (Arc::clone(&owner.origin), owner.journal.pending().clone());
    async move {
        let whose = match &*origin {
            Origin::Ours(spec) => Whose::Ours { spec, pending: &pending },
            // what is in the inventory stays vmrun's or not, as it is there; what is not was plugged by somebody else
            Origin::Wrapped(wrapped) => {
                let files = wrapped.seen.as_ref().map(|seen| &seen.files);
                Whose::Wrapped { target: wrapped.target, files, from_start: None, cards: None }
            }
        };
        look(&session, files, whose).await
    }
}

/// Goes on with a true inventory; at once where nobody but the owner changes the VM.
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
                    seen.tell(wrapped, Arc::make_mut(&mut owner.facts));
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
