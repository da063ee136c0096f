//! `port-list`.

use crate::control::error::WireError;
use crate::control::permits::Use;
use crate::control::{translate, wire};
use crate::vm::Handle;

use super::method::{CallMethod, Uploads, method};

method! {
    /// Lists the port forwards.
    ListForwards { ; } -> ForwardList, repeatable
}

wire::replies! {
    /// Reply of `ListForwards`.
    ForwardList { forwards: Vec<wire::Forward>; }
}

impl CallMethod for ListForwards {
    const NEEDS: Use = Use::Short;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<ForwardList, WireError> {
        let status = translate::status(&*vm.status().await?);
        Ok(ForwardList { forwards: status.forwards })
    }
}
