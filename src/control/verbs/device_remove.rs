//! `device-remove`.

use crate::control::error::WireError;
use crate::control::permits::Use;
use crate::control::wire::DiskRemoved;
use crate::vm::{DeviceKind, Handle};

use super::method::{CallMethod, Uploads, method};
use super::removal::remove;

method! {
    /// Unplugs a device; a disk like `RemoveDisk`.
    RemoveDevice { id: String; timeout_ms: i64, force: bool } -> DiskRemoved
}

impl CallMethod for RemoveDevice {
    const NEEDS: Use = Use::Change;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<DiskRemoved, WireError> {
        remove(vm, DeviceKind::Any, self.id, self.timeout_ms, self.force).await
    }
}
