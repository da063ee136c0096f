//! `device-add`, `device-remove`, and what removals have in common.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::control::verbs::{self, Method};
use crate::control::wire::DiskRemoved;
use crate::host::HINTED;
use crate::machine;
use crate::spec::{DeviceSpec, duration};

use super::super::failure::Failure;
use super::super::lazy::Lazy;
use super::Context;

/// About any device.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Plug any device: DRIVER[,PROP=VALUE...]
    #[command(name = "device-add")]
    Add(Lazy<Add>),
    /// Unplug a device
    #[command(name = "device-remove")]
    Remove(Lazy<RemoveDisk>),
}

impl Command {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        match self {
            Self::Add(Lazy(add)) => add.run(context),
            Self::Remove(Lazy(remove)) => remove.run(
                context,
                |id, timeout_ms, force| verbs::RemoveDevice { id, timeout_ms, force },
                "device",
            ),
        }
    }
}

/// `device-add`.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// DRIVER[,PROP=VALUE...] as QEMU's -device; a comma in a value is typed twice
    device: DeviceSpec,
}

impl Add {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = machine::add_device(self.device);
        let verbs::DeviceReply { device } = context.client.call(call)?;
        warn_if_not_taken(&device.id, device.taken);
        context.output.print(&device, || device.id.clone())
    }
}

/// `nic-remove`.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// As the list prints it
    id: String,
    /// How long the guest may take to release it
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "30s")]
    timeout: Duration,
}

impl Remove {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let timeout_ms = Some(machine::milliseconds(self.timeout));
        let call = verbs::RemoveNic { id: self.id.clone(), timeout_ms };
        let verbs::Removed { removed } = context.client.call(call)?;
        self.done(context, "network card", removed, &json!({ "removed": true }))
    }

    fn done(&self, context: &Context, what: &str, removed: bool, value: &Value) -> Result<u8, Failure> {
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

/// `disk-remove` and `device-remove`.
#[derive(Debug, Args)]
pub(super) struct RemoveDisk {
    #[command(flatten)]
    remove: Remove,
    /// Even if the guest has the disk mounted: what it has not written yet is lost
    #[arg(long)]
    force: bool,
}

impl RemoveDisk {
    pub(super) fn run<M: Method<Reply = DiskRemoved>>(
        self,
        context: &mut Context,
        call: impl FnOnce(String, Option<i64>, Option<bool>) -> M,
        what: &str,
    ) -> Result<u8, Failure> {
        let Self { remove, force } = self;
        let timeout_ms = Some(machine::milliseconds(remove.timeout));
        // older supervisors do not know the parameter
        let call = call(remove.id.clone(), timeout_ms, force.then_some(true));
        let DiskRemoved { removed, unchecked } = context.client.call(call)?;
        if let Some(why) = &unchecked {
            log::warn!("whether the guest had '{}' mounted was not checked: {why}", remove.id);
        }
        let value = match unchecked {
            Some(why) => json!({ "removed": true, "unchecked": why }),
            None => json!({ "removed": true }),
        };
        remove.done(context, what, removed, &value)
    }
}

/// What a list has in the column STATE.
pub(super) fn state(phase: &str, taken: Option<bool>) -> String {
    match (phase, taken) {
        ("present", Some(false)) => "plugged, but the guest has not taken it".to_owned(),
        _ => phase.to_owned(),
    }
}

/// Says that what was plugged has not arrived.
pub(super) fn warn_if_not_taken(id: &str, taken: Option<bool>) {
    if taken == Some(false) {
        log::warn!(
            target: HINTED,
            "'{id}' is plugged, but the guest has not taken it\nhint: its kernel may have no PCI hot-plug (Debian's for riscv64 has none): after `vmrun ctl reset`, or from the start, it finds the device"
        );
    }
}
