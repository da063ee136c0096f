//! `usb-list`.

use clap::Args;

use crate::control::verbs;
use crate::host;

use super::super::failure::Failure;
use super::super::output::{Output, table};
use super::device_state::shown as state;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct UsbList {
    /// List this host's devices that could be plugged
    #[arg(long)]
    host: bool,
}

impl Verb for UsbList {
    const ABOUT: &'static str = "List the VM's USB devices, or with --host those of this host";

    fn without_vm(&self, output: Output) -> Option<Result<u8, Failure>> {
        self.host.then(|| list_host(output))
    }

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let verbs::UsbList { usb } = context.call(verbs::ListUsb {})?;
        context.output.print(&usb, || {
            let rows = usb.iter().map(|usb| {
                [usb.id.clone(), usb.driver.clone(), usb.description.clone(), state(&usb.phase, usb.taken)]
            });
            table(["ID", "DRIVER", "DESCRIPTION", "STATE"], rows)
        })
    }
}

/// `usb-list --host`.
fn list_host(output: Output) -> Result<u8, Failure> {
    let mut devices = host::usb::host_devices(&host::usb::UsbRoots::default());
    // a hub cannot be passed to a guest
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
