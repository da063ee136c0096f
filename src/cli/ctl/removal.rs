//! The arguments of `disk-remove`, `device-remove` and `nic-remove`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::control::verbs::Method;
use crate::control::wire::DiskRemoved;
use crate::machine;
use crate::spec::duration;

use super::super::failure::Failure;
use super::verb::Context;

/// The device, and how long to wait.
#[derive(Debug, Args)]
pub(super) struct Removal {
    /// Id, as printed by the list command
    id: String,
    /// How long the guest may take to release it
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "30s")]
    timeout: Duration,
}

impl Removal {
    pub(super) fn id(&self) -> String {
        self.id.clone()
    }

    pub(super) fn timeout_ms(&self) -> Option<i64> {
        Some(machine::milliseconds(self.timeout))
    }

    /// Shows the result: the device is gone, or the guest still has it.
    pub(super) fn done(
        &self,
        context: &Context,
        what: &str,
        removed: bool,
        value: &Value,
    ) -> Result<u8, Failure> {
        if removed {
            return context.output.print(value, || format!("removed {}", self.id));
        }
        let waited = duration::format(self.timeout);
        let hint = format!(
            "the request stands: the {what} goes as soon as the guest releases it, resets or is resumed, and the list follows then"
        );
        let message = format!("the guest has not released {what} '{}' within {waited}", self.id);
        Err(Failure::timed_out(message).hint(Some(hint)))
    }
}

/// For a device that may be a disk.
#[derive(Debug, Args)]
pub(super) struct DiskRemoval {
    #[command(flatten)]
    removal: Removal,
    /// Remove it even if the guest has the disk mounted: data that it has not written yet is lost
    #[arg(long)]
    force: bool,
}

impl DiskRemoval {
    /// Calls the method that `call` makes from an id, `timeout_ms` and `force`.
    pub(super) fn run<M: Method<Reply = DiskRemoved>>(
        self,
        context: &mut Context,
        what: &str,
        call: impl FnOnce(String, Option<i64>, Option<bool>) -> M,
    ) -> Result<u8, Failure> {
        let Self { removal, force } = self;
        // older supervisors do not know the parameter
        let call = call(removal.id(), removal.timeout_ms(), force.then_some(true));
        let DiskRemoved { removed, unchecked } = context.call(call)?;
        if let Some(why) = &unchecked {
            log::warn!("whether the guest had '{}' mounted was not checked: {why}", removal.id);
        }
        let value = match unchecked {
            Some(why) => json!({ "removed": true, "unchecked": why }),
            None => json!({ "removed": true }),
        };
        removal.done(context, what, removed, &value)
    }
}
