//! The books of a VM that others change, too, are looked at again whenever they matter: who speaks on a monitor of their own
//! plugs devices without an event.

use std::sync::Arc;
use std::time::Duration;

use super::look;
use crate::vm::owner::Owner;

/// A QEMU that does not answer within this time (it is stopped, or busy) is judged by what is known of it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Goes on with true books; at once where nobody but the owner writes them.
pub(in crate::vm) fn refreshed(owner: &mut Owner, then: impl FnOnce(&mut Owner) + Send + 'static) {
    if !owner.is_wrapped() {
        return then(owner);
    }
    let settled = owner.inventory.settled();
    let session = owner.session.clone();
    // what is in the books stays ours or not, as it is there; what is not was plugged by somebody else
    let facts = Arc::clone(&owner.facts);
    let look = async move { tokio::time::timeout(PATIENCE, look::look(&session, &facts, None)).await };
    owner.spawn(look, move |owner, seen| {
        match seen {
            Ok(Ok(seen)) => {
                seen.tell(Arc::make_mut(&mut owner.spec), Arc::make_mut(&mut owner.facts));
                owner.machine = seen.machine;
                owner.inventory.renew(seen.inventory, &settled);
            }
            Ok(Err(error)) => log::info!("QEMU could not be asked what it has: {error}"),
            Err(_) => log::info!("QEMU does not say what it has"),
        }
        then(owner);
    });
}
