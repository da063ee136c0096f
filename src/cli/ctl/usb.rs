//! `usb-list`, `usb-add`, `usb-remove`.

use std::ffi::OsString;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::control::verbs;
use crate::host;
use crate::machine;
use crate::spec::{DeviceId, UsbSelector};

use super::super::failure::Failure;
use super::super::lazy::Lazy;
use super::super::output::{Output, table};
use super::{Context, devices};

/// About USB devices.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the VM's USB devices, or with --host those of this machine
    #[command(name = "usb-list")]
    List(Lazy<List>),
    /// Plug a USB device
    #[command(name = "usb-add")]
    Add(Lazy<Add>),
    /// Unplug a USB device
    #[command(name = "usb-remove")]
    Remove(Lazy<Remove>),
}

impl Command {
    /// `usb-list --host`, which is about no VM.
    pub(super) fn is_of_host(&self) -> bool {
        matches!(self, Self::List(Lazy(list)) if list.host)
    }

    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        match self {
            Self::List(_) => list(context),
            Self::Add(Lazy(add)) => add.run(context),
            Self::Remove(Lazy(remove)) => remove.run(context),
        }
    }
}

/// `usb-list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Those of this machine that could be plugged
    #[arg(long)]
    host: bool,
}

/// `usb-list`.
fn list(context: &mut Context) -> Result<u8, Failure> {
    let verbs::UsbList { usb } = context.client.call(verbs::ListUsb {})?;
    context.output.print(&usb, || {
        let rows = usb.iter().map(|usb| {
            [
                usb.id.clone(),
                usb.driver.clone(),
                usb.description.clone(),
                devices::state(&usb.phase, usb.taken),
            ]
        });
        table(["ID", "DRIVER", "DESCRIPTION", "STATE"], rows)
    })
}

/// `usb-list --host`.
pub(super) fn list_host(output: Output) -> Result<u8, Failure> {
    let mut devices = host::usb::host_devices(&host::usb::UsbRoots::default());
    // a hub cannot be given away
    devices.retain(|device| !device.is_hub);
    output.print(&devices, || {
        let rows = devices.iter().map(|device| {
            let ports: Vec<String> = device.ports.iter().map(u8::to_string).collect();
            let names = [&device.manufacturer, &device.name].into_iter().flatten().cloned();
            [
                format!("{:04x}:{:04x}", device.vendor, device.product),
                format!("{}.{}", device.bus, device.address),
                format!("{}-{}", device.bus, ports.join(".")),
                names.collect::<Vec<_>>().join(" "),
            ]
        });
        table(["VENDOR:PRODUCT", "BUS.ADDR", "PORT", "DESCRIPTION"], rows)
    })
}

/// `usb-add`.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// vid:pid, BUS.ADDR, BUS-PORT, file=PATH[,format=FORMAT] (a stick) or a driver such as usb-kbd
    #[arg(value_parser = OsStringValueParser::new().try_map(|text: OsString| UsbSelector::parse(&text)))]
    selector: UsbSelector,
    /// Its id; else one is picked
    #[arg(long)]
    id: Option<DeviceId>,
}

impl Add {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = machine::add_usb(self.selector, self.id)?;
        let verbs::UsbReply { usb } = context.client.call(call)?;
        devices::warn_if_not_taken(&usb.id, usb.taken);
        context.output.print(&usb, || usb.id.clone())
    }
}

/// `usb-remove`.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// As usb-list prints it
    id: String,
}

impl Remove {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        context.client.call(verbs::RemoveUsb { id: self.id.clone() })?;
        context.output.print(&serde_json::json!({}), || format!("removed {}", self.id))
    }
}
