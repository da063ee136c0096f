//! Disks and CD-ROM drives as the guest sees them.

use std::path::Path;

use super::boot_order::BootOrder;
use super::machine::Family;
use super::models::OnBus;
use super::object::Object;
use super::{BlockNode, Device, Machine, block, disk_options, ids, models};
use crate::spec::{Boot, DeviceId, Disk, DiskBus, DiskOptions, Image, ImageFormat, VmSpec};

/// The model of a disk on a bus.
pub fn disk_driver(machine: &Machine, bus: DiskBus) -> String {
    OnBus::of(bus).disk(machine)
}

/// The device of a disk. `bus` is a slot's for virtio and NVMe, a controller's or port's for the others.
pub fn disk(machine: &Machine, disk: &Disk, bus: Option<&str>) -> Device {
    let id = disk.id.as_str();
    let device = Device::new(disk_driver(machine, disk.bus), id).on(bus).with("drive", id);
    let device = disk_options::in_device(device, &disk.options);
    match (&disk.serial, disk.bus) {
        (Some(serial), _) => device.with("serial", serial.as_str()),
        // has no default, and QEMU insists on one; an NVMe serial number has 20 characters
        (None, DiskBus::Nvme) => device.with("serial", id.chars().take(20).collect::<String>()),
        (None, _) => device,
    }
}

/// The model of the CD-ROM drives that a VM has from the start, and their bus.
pub fn cd_driver(machine: &Machine) -> (&'static str, DiskBus) {
    match machine.has_ide_cd() {
        true => (models::IDE_CD, DiskBus::Sata),
        false => (models::SCSI_CD, DiskBus::Scsi),
    }
}

/// A CD-ROM drive, with the medium in block node `medium` or empty.
fn cd(machine: &Machine, id: &str, bus: &str, medium: Option<&str>) -> Device {
    let device = Device::new(cd_driver(machine).0, id).on(bus);
    match medium {
        Some(node) => device.with("drive", node),
        None => device,
    }
}

/// The SCSI controller, cold or hot.
pub fn scsi_controller(machine: &Machine, bus: Option<&str>) -> Device {
    Device::new(machine.virtio(models::VIRTIO_SCSI), machine.ids().scsi).on(bus)
}

/// Everything that the drives of a starting VM need, in the order of the command line.
#[derive(Debug, Default)]
pub struct ColdDrives {
    /// Block nodes.
    pub nodes: Vec<BlockNode>,
    /// I/O threads.
    pub threads: Vec<Object>,
    /// Controllers.
    pub controllers: Vec<Device>,
    /// Disks, then CD-ROM drives.
    pub devices: Vec<Device>,
    sata: usize,
    cds: usize,
}

/// The drives of a starting VM.
pub fn cold(machine: &Machine, spec: &VmSpec) -> ColdDrives {
    let mut drives = ColdDrives::default();
    // first, so that it is the guest's first disk
    if let Some(root) = squashfs(machine, &spec.boot) {
        drives.disk(machine, &root, None);
    }
    let order = BootOrder::of(spec);
    for (number, disk) in spec.disks.iter().enumerate() {
        drives.disk(machine, disk, order.disk(number));
    }
    if let Boot::Iso { path } = &spec.boot {
        drives.medium(ids::BOOT_CD, path);
        drives.cd(machine, ids::BOOT_CD, order.cd);
    }
    if let Some(path) = &spec.metadata {
        drives.medium(ids::METADATA_CD, path);
        drives.cd(machine, ids::METADATA_CD, None);
    }
    drives
}

/// The root image as a disk.
fn squashfs(machine: &Machine, boot: &Boot) -> Option<Disk> {
    let Boot::Squashfs { squashfs, sata, .. } = boot else { return None };
    let id: DeviceId = machine.ids().squashfs.parse().ok()?;
    Some(Disk {
        id,
        image: Image::alone(squashfs, ImageFormat::Raw),
        bus: if *sata { DiskBus::Sata } else { DiskBus::Virtio },
        // QEMU has no SATA disk that is read-only; nothing writes into a squashfs
        readonly: !sata,
        serial: None,
        options: DiskOptions::default(),
    })
}

impl ColdDrives {
    fn medium(&mut self, id: &str, path: &Path) {
        let image = Image::alone(path, ImageFormat::Raw);
        self.nodes.extend(block::image(id, &image, true, &DiskOptions::default()));
    }

    fn disk(&mut self, machine: &Machine, disk: &Disk, bootindex: Option<u32>) {
        let id = disk.id.as_str();
        self.nodes.extend(block::image(id, &disk.image, disk.readonly, &disk.options));
        self.threads.extend(disk_options::iothread(id, &disk.options));
        let bus = match disk.bus {
            // QEMU's own choice is in the order of the command line as the guest sees it, on microvm's virtio-mmio too
            DiskBus::Virtio | DiskBus::Nvme => None,
            DiskBus::Scsi => Some(machine.scsi_bus().to_owned()),
            DiskBus::Usb => machine.usb_bus().map(str::to_owned),
            DiskBus::Sata => Some(self.sata_port(machine)),
        };
        self.device(self::disk(machine, disk, bus.as_deref()), bootindex);
    }

    fn cd(&mut self, machine: &Machine, id: &str, bootindex: Option<u32>) {
        let bus = match machine.family() {
            Family::Q35 => self.sata_port(machine),
            // one drive for each of the two channels
            Family::Pc => format!("ide.{}", self.cds),
            _ => machine.scsi_bus().to_owned(),
        };
        self.cds += 1;
        self.device(cd(machine, id, &bus, Some(id)), bootindex);
    }

    fn device(&mut self, device: Device, bootindex: Option<u32>) {
        self.devices.push(match bootindex {
            Some(index) => device.with("bootindex", index),
            None => device,
        });
    }

    fn sata_port(&mut self, machine: &Machine) -> String {
        let (port, controller) = machine.sata_port(self.sata);
        self.controllers.extend(controller.map(|id| Device::new("ich9-ahci", id)));
        self.sata += 1;
        port
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::testing::{disk as any_disk, spec};

    #[test]
    fn nvme_always_has_a_serial_number() {
        let machine = Machine::of(&spec());
        let device = disk(&machine, &any_disk("a-name-of-many-letters", DiskBus::Nvme), None);
        assert_eq!(device.properties["serial"], "a-name-of-many-lette");
    }

    #[test]
    fn an_iso_goes_before_the_disk() {
        let spec = VmSpec {
            boot: Boot::Iso { path: "/i/live.iso".into() },
            disks: vec![any_disk("disk0", DiskBus::Sata)],
            ..spec()
        };
        let drives = cold(&Machine::of(&spec), &spec);
        let indices: Vec<_> = drives
            .devices
            .iter()
            .map(|device| (device.bus.as_deref(), device.properties["bootindex"].as_u64()))
            .collect();
        assert_eq!(indices, [(Some("ide.0"), Some(2)), (Some("ide.1"), Some(1))]);
    }
}
