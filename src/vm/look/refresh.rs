//! Looks of the owner task. The inventory of a wrapped VM is refreshed whenever it matters: who speaks on a monitor of their own plugs
//! devices without an event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Seen, Whose, look};
use crate::qmp::CommandError;
use crate::vm::owner::Owner;

/// A QEMU that does not answer within this time (it is stopped, or busy) is judged by what is known of it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A look at QEMU beside the owner, with what the owner knows now.
pub(in crate::vm) fn look_again(
    owner: &Owner,
) -> impl Future<Output = Result<Seen, CommandError>> + Send + use<> {
    let (session, files) = (owner.session.clone(), owner.files);
    let (spec, facts) = (Arc::clone(&owner.spec), Arc::clone(&owner.facts));
    let pending = owner.journal.pending().clone();
    async move {
        let cards = BTreeMap::new();
        let whose = match &facts.wrapped {
            None => Whose::Ours { spec: &spec, pending: &pending },
            // what is in the inventory stays vmrun's or not, as it is there; what is not was plugged by somebody else
            Some(wrapped) => Whose::Wrapped { files: &wrapped.files, from_start: None, cards: &cards },
        };
        look(&session, files, whose).await
    }
}

/// Goes on with a true inventory; at once where nobody but the owner changes the VM.
pub(in crate::vm) fn refreshed(owner: &mut Owner, then: impl FnOnce(&mut Owner) + Send + 'static) {
    if !owner.is_wrapped() {
        return then(owner);
    }
    let settled = owner.inventory.settled();
    let look = tokio::time::timeout(PATIENCE, look_again(owner));
    owner.spawn(look, move |owner, seen| {
        match seen {
            Ok(Ok(seen)) => {
                seen.system.tell(
                    &seen.machine,
                    Arc::make_mut(&mut owner.spec),
                    Arc::make_mut(&mut owner.facts),
                );
                owner.machine = seen.machine;
                owner.inventory.renew(seen.inventory, &settled);
            }
            Ok(Err(error)) => log::info!("QEMU could not be asked what it has: {error}"),
            Err(_) => log::info!("QEMU does not say what it has"),
        }
        then(owner);
    });
}
