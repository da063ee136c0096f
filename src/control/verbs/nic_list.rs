//! `nic-list`.

use crate::control::error::WireError;
use crate::control::permits::Use;
use crate::control::{translate, wire};
use crate::vm::Handle;

use super::method::{CallMethod, Uploads, method};

method! {
    /// Lists the network cards.
    ListNics { ; } -> NicList, repeatable
}

wire::replies! {
    /// Reply of `ListNics`.
    NicList { nics: Vec<wire::Nic>; }
}

impl CallMethod for ListNics {
    const NEEDS: Use = Use::Short;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<NicList, WireError> {
        let status = translate::status(&*vm.status().await?);
        Ok(NicList { nics: status.nics.unwrap_or_default() })
    }
}
