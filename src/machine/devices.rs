//! A VM's devices: what is plugged, changed and removed while it runs.

use super::{Error, Machine, add_device, add_disk, add_forward, add_nic, add_usb, size_bytes};
use crate::control::verbs;
use crate::control::wire;
use crate::spec::Size;

/// Its devices.
impl Machine {
    /// Plugs a USB device: `VID:PID`, `BUS.ADDR`, `BUS-PORT`, `file=PATH` (a stick) or a driver such as `usb-kbd`.
    pub async fn add_usb(&self, selector: &str) -> Result<wire::Usb, Error> {
        let call = add_usb(selector.parse().map_err(Error::invalid)?, None)?;
        Ok(self.call(call).await?.usb)
    }

    /// Unplugs a USB device.
    pub async fn remove_usb(&self, id: &str) -> Result<(), Error> {
        self.call(verbs::RemoveUsb { id: id.to_owned() }).await.map(|_| ())
    }

    /// Forwards a host port to a guest port, as `[ADDR:]HOST:GUEST[/tcp|udp]`; host port 0 takes a free one, which the reply has.
    pub async fn add_forward(&self, forward: &str) -> Result<wire::Forward, Error> {
        let call = add_forward(&forward.parse().map_err(Error::invalid)?);
        Ok(self.call(call).await?.forward)
    }

    /// Ends a forward.
    pub async fn remove_forward(&self, forward: &wire::Forward) -> Result<(), Error> {
        let call = verbs::RemoveForward {
            host_port: forward.host_port.into(),
            guest_port: Some(forward.guest_port.into()),
            address: Some(forward.address.clone()),
            protocol: Some(forward.protocol.clone()),
        };
        self.call(call).await.map(|_| ())
    }

    /// Plugs a disk: `[file=]PATH[,size=1G[,grow=on]][,format=F][,bus=B][,readonly=on][,serial=S][,id=ID]`.
    pub async fn add_disk(&self, disk: &str) -> Result<wire::Disk, Error> {
        let call = add_disk(disk.parse().map_err(Error::invalid)?, &[])?;
        Ok(self.call(call).await?.disk)
    }

    /// Grows a disk to this size in bytes.
    pub async fn resize_disk(&self, id: &str, size: Size) -> Result<wire::Disk, Error> {
        let call = verbs::ResizeDisk { id: id.to_owned(), size_bytes: size_bytes(size) };
        Ok(self.call(call).await?.disk)
    }

    /// Plugs a network card: `user`, `tap,NAME` or `bridge,NAME`, then `[,mac=ADDRESS][,model=M][,id=ID]`.
    pub async fn add_nic(&self, nic: &str) -> Result<wire::Nic, Error> {
        let call = add_nic(nic.parse().map_err(Error::invalid)?);
        Ok(self.call(call).await?.nic)
    }

    /// Plugs the cable of a network card, or pulls it; `None` = the only card.
    pub async fn set_link(&self, nic: Option<&str>, up: bool) -> Result<wire::Nic, Error> {
        let call = verbs::SetLink { up, nic: nic.map(str::to_owned) };
        Ok(self.call(call).await?.nic)
    }

    /// Its resource usage so far: processor time, memory, disks, network.
    pub async fn stats(&self) -> Result<wire::Stats, Error> {
        Ok(self.call(verbs::GetStats {}).await?.stats)
    }

    /// Plugs any other device: `DRIVER[,PROP=VALUE…]` as for QEMU's `-device`.
    pub async fn add_device(&self, device: &str) -> Result<wire::Device, Error> {
        let call = add_device(device.parse().map_err(Error::invalid)?);
        Ok(self.call(call).await?.device)
    }
}
