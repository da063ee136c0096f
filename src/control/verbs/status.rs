//! `status`.

use crate::control::error::WireError;
use crate::control::permits::Use;
use crate::control::{translate, wire};
use crate::host::template;
use crate::vm::{Handle, Present};

use super::method::{CallMethod, EndedVm, Uploads, method};

method! {
    /// Returns the VM's status.
    GetStatus { ; } -> StatusReply, repeatable
}

wire::replies! {
    /// Reply of `GetStatus`.
    StatusReply { status: wire::Status; }
}

impl CallMethod for GetStatus {
    const NEEDS: Use = Use::Short;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<StatusReply, WireError> {
        let status = match (vm.status().await, vm.last_status()) {
            // the outcome is known a moment after the end
            (Err(_), Some(last)) if vm.ended_soon().await.is_some() => {
                let outcome = vm.ended().await;
                wire::Status { outcome, state: "ended".to_owned(), ..translate::status(&last) }
            }
            (status, _) => {
                let status = status?;
                let present = vm.present(&status).await?;
                let users = status.facts.template.as_deref().and_then(template::users);
                let siblings = users.map(|users| users.saturating_sub(1));
                let status = wire::Status { siblings, ..translate::status(&status) };
                match present {
                    None => status,
                    Some(Present { memory_bytes, cpus }) => wire::Status { memory_bytes, cpus, ..status },
                }
            }
        };
        Ok(StatusReply { status })
    }

    fn after_the_end(self, ended: &EndedVm<'_>) -> Option<StatusReply> {
        Some(StatusReply { status: translate::ended(ended.record) })
    }
}
