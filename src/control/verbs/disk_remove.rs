//! `disk-remove`.

use crate::control::error::WireError;
use crate::control::permits::Use;
use crate::control::wire::DiskRemoved;
use crate::vm::{DeviceKind, Handle};

use super::method::{CallMethod, Uploads, method};
use super::removal::remove;

method! {
    /// Asks the guest to release a disk, and unplugs it. A disk that the guest has mounted stays, unless forced.
    RemoveDisk { id: String; timeout_ms: i64, force: bool } -> DiskRemoved
}

impl CallMethod for RemoveDisk {
    const NEEDS: Use = Use::Change;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<DiskRemoved, WireError> {
        remove(vm, DeviceKind::Disk, self.id, self.timeout_ms, self.force).await
    }
}
