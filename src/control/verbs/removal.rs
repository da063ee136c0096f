//! What `disk-remove` and `device-remove` have in common.

use crate::control::error::WireError;
use crate::control::parameters::timeout;
use crate::control::wire::DiskRemoved;
use crate::vm::{Change, DeviceKind, Handle};

use super::method::REMOVAL_TIMEOUT;

/// Removes a device that may be a disk: a disk that the guest has mounted stays, unless forced.
pub(super) async fn remove(
    vm: &Handle,
    kind: DeviceKind,
    id: String,
    timeout_ms: Option<i64>,
    force: Option<bool>,
) -> Result<DiskRemoved, WireError> {
    let wait = timeout(timeout_ms)?.unwrap_or(REMOVAL_TIMEOUT);
    let unchecked = match force.unwrap_or(false) {
        true => None,
        false => vm.check_unmounted(kind, &id).await?,
    };
    let done = vm.change(Change::Remove { kind, id, wait }).await?;
    Ok(DiskRemoved { removed: done.is_removed()?, unchecked })
}
