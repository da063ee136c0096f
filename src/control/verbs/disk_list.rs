//! `disk-list`.

use crate::control::error::WireError;
use crate::control::permits::Use;
use crate::control::{translate, wire};
use crate::vm::Handle;

use super::method::{CallMethod, Uploads, method};

method! {
    /// Lists the disks and CD-ROM drives.
    ListDisks { ; } -> DiskList, repeatable
}

wire::replies! {
    /// Reply of `ListDisks`.
    DiskList { disks: Vec<wire::Disk>; }
}

impl CallMethod for ListDisks {
    const NEEDS: Use = Use::Short;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<DiskList, WireError> {
        let status = translate::status(&*vm.status().await?);
        Ok(DiskList { disks: status.disks })
    }
}
