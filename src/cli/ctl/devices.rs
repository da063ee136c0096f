//! `device-add`, `device-remove`, and what removals have in common.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::control::methods::{self, Method};
use crate::control::wire;
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
    Remove(Lazy<Remove>),
}

impl Command {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        match self {
            Self::Add(Lazy(add)) => add.run(context),
            Self::Remove(Lazy(remove)) => remove.run(context, methods::RemoveDevice, "device"),
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
        let wire::DeviceReply { device } = context.client.call(methods::AddDevice, call)?;
        context.output.print(&device, || device.id.clone())
    }
}

/// `disk-remove` and `device-remove`.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// As the list prints it
    id: String,
    /// How long the guest may take to release it
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "30s")]
    timeout: Duration,
}

impl Remove {
    pub(super) fn run<M>(self, context: &mut Context, method: M, what: &str) -> Result<u8, Failure>
    where
        M: Method<Parameters = wire::Remove, Reply = wire::Removed>,
    {
        let timeout_ms = Some(machine::milliseconds(self.timeout));
        let call = wire::Remove { id: self.id.clone(), timeout_ms };
        let wire::Removed { removed } = context.client.call(method, call)?;
        if removed {
            return context.output.print(&json!({ "removed": true }), || format!("removed {}", self.id));
        }
        let waited = duration::format(self.timeout);
        let hint = format!(
            "the request stands: the {what} goes as soon as the guest releases it, resets or is resumed, and the list follows then"
        );
        let message = format!("the guest has not released {what} '{}' within {waited}", self.id);
        Err(Failure::timed_out(message).hint(Some(hint)))
    }
}
