//! `nic-remove`.

use crate::control::parameters::timeout;
use crate::control::wire;
use crate::vm::{Change, ChangeError, DeviceKind, Done};

use super::method::{ChangeMethod, REMOVAL_TIMEOUT, method};

method! {
    /// Asks the guest to release a network card, and unplugs it.
    RemoveNic { id: String; timeout_ms: i64 } -> Removed
}

wire::replies! {
    /// Reply of `RemoveNic`.
    Removed { removed: bool; }
}

impl ChangeMethod for RemoveNic {
    fn change(self) -> Result<Change, ChangeError> {
        let wait = timeout(self.timeout_ms)?.unwrap_or(REMOVAL_TIMEOUT);
        Ok(Change::Remove { kind: DeviceKind::Nic, id: self.id, wait })
    }

    fn reply(done: Done) -> Result<Removed, ChangeError> {
        Ok(Removed { removed: done.is_removed()? })
    }
}
