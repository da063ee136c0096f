//! QEMU's device models, as far as vmrun tells one from another. A model that is new here is one row of `TABLE`.

use crate::spec::DiskBus;

/// The model of the USB controller that vmrun plugs.
pub const XHCI: &str = "qemu-xhci";
/// The model of disks and sticks on USB.
pub const USB_STORAGE: &str = "usb-storage";
/// The model of a USB device of the host.
pub const USB_HOST: &str = "usb-host";
/// What the models of devices on USB begin with, as a rule.
const USB: &str = "usb-";
/// What the models of devices on SCSI begin with.
const SCSI: &str = "scsi-";
/// What the models of devices on SATA or IDE begin with.
const IDE: &str = "ide-";
/// The model of a disk on SCSI.
pub const SCSI_DISK: &str = "scsi-hd";
/// The model of a CD-ROM drive on SCSI.
pub const SCSI_CD: &str = "scsi-cd";
/// The model of a disk on SATA or IDE.
pub const IDE_DISK: &str = "ide-hd";
/// The model of a CD-ROM drive on SATA or IDE.
pub const IDE_CD: &str = "ide-cd";
/// The model of an NVMe disk.
pub const NVME: &str = "nvme";
/// What the models of virtio disks begin with.
pub const VIRTIO_DISK: &str = "virtio-blk";
/// What the models of virtio SCSI controllers begin with.
pub const VIRTIO_SCSI: &str = "virtio-scsi";
/// What the models of virtio network cards begin with.
pub const VIRTIO_NIC: &str = "virtio-net";

/// What a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A disk on this bus.
    Disk(DiskBus),
    /// A CD-ROM drive on this bus.
    Cd(DiskBus),
    /// A stick on USB if its property `removable` is set, else a disk.
    UsbStorage,
    /// A USB device of the host.
    UsbHost,
    /// Any other USB device.
    Usb,
    /// A USB controller; the lower the number the faster.
    UsbController(u8),
    /// A SCSI controller that takes disks while the VM runs.
    ScsiController,
    /// A network card. Other cards are known by their property `netdev`.
    Nic,
    /// A PCIe port, which takes one device while the VM runs.
    RootPort,
    /// Anything else.
    Other,
}

/// How a model is known by its name.
#[derive(Debug, Clone, Copy)]
enum Name {
    Is(&'static str),
    Begins(&'static str),
    Ends(&'static str),
    Has(&'static str),
}

/// The first row that fits counts.
const TABLE: [(Name, Class); 18] = [
    (Name::Is(USB_STORAGE), Class::UsbStorage),
    (Name::Is(USB_HOST), Class::UsbHost),
    (Name::Is(SCSI_DISK), Class::Disk(DiskBus::Scsi)),
    (Name::Is(SCSI_CD), Class::Cd(DiskBus::Scsi)),
    (Name::Is(IDE_DISK), Class::Disk(DiskBus::Sata)),
    (Name::Is(IDE_CD), Class::Cd(DiskBus::Sata)),
    (Name::Is(NVME), Class::Disk(DiskBus::Nvme)),
    (Name::Begins(VIRTIO_DISK), Class::Disk(DiskBus::Virtio)),
    (Name::Begins(VIRTIO_SCSI), Class::ScsiController),
    (Name::Begins(VIRTIO_NIC), Class::Nic),
    (Name::Ends("root-port"), Class::RootPort),
    (Name::Is("xio3130-downstream"), Class::RootPort),
    (Name::Has("xhci"), Class::UsbController(0)),
    (Name::Has("ehci"), Class::UsbController(1)),
    (Name::Has("uhci"), Class::UsbController(2)),
    (Name::Begins(USB), Class::Usb),
    (Name::Begins("u2f-"), Class::Usb),
    (Name::Begins("ccid-card-"), Class::Usb),
];

/// Whether a model sits on SCSI: disks, drives, and what passes a device of the host on.
pub fn is_scsi(driver: &str) -> bool {
    driver.starts_with(SCSI)
}

/// Whether a model sits on SATA or IDE.
pub fn is_ide(driver: &str) -> bool {
    driver.starts_with(IDE)
}

/// Whether a model needs a USB controller.
pub fn is_usb(driver: &str) -> bool {
    driver.starts_with(USB)
}

impl Name {
    fn fits(self, driver: &str) -> bool {
        match self {
            Self::Is(name) => driver == name,
            Self::Begins(start) => driver.starts_with(start),
            Self::Ends(end) => driver.ends_with(end),
            Self::Has(part) => driver.contains(part),
        }
    }
}

impl Class {
    /// The class of a model.
    pub fn of(driver: &str) -> Self {
        TABLE.iter().find(|(name, _)| name.fits(driver)).map_or(Self::Other, |(_, class)| *class)
    }

    /// The bus of a disk or drive, and whether it is a CD-ROM drive.
    pub fn drive(self) -> Option<(DiskBus, bool)> {
        match self {
            Self::Disk(bus) => Some((bus, false)),
            Self::Cd(bus) => Some((bus, true)),
            Self::UsbStorage => Some((DiskBus::Usb, false)),
            _ => None,
        }
    }

    /// Whether it sits on USB.
    pub fn is_usb(self) -> bool {
        matches!(self, Self::UsbStorage | Self::UsbHost | Self::Usb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_their_classes() {
        for (driver, class) in [
            ("virtio-blk-pci", Class::Disk(DiskBus::Virtio)),
            ("virtio-blk-device", Class::Disk(DiskBus::Virtio)),
            ("scsi-cd", Class::Cd(DiskBus::Scsi)),
            ("usb-storage", Class::UsbStorage),
            ("usb-tablet", Class::Usb),
            ("u2f-emulated", Class::Usb),
            ("qemu-xhci", Class::UsbController(0)),
            ("nec-usb-xhci", Class::UsbController(0)),
            ("usb-ehci", Class::UsbController(1)),
            ("piix3-usb-uhci", Class::UsbController(2)),
            ("virtio-scsi-ccw", Class::ScsiController),
            ("virtio-net-pci", Class::Nic),
            ("ioh3420", Class::Other),
            ("pcie-root-port", Class::RootPort),
            ("e1000e", Class::Other),
        ] {
            assert_eq!(Class::of(driver), class, "{driver}");
        }
    }

    /// What vmrun plugs is what it recognises.
    #[test]
    fn each_bus_has_a_model_of_its_class() {
        let machine = crate::qemu::Machine::of(&crate::qemu::testing::spec());
        for bus in [DiskBus::Virtio, DiskBus::Scsi, DiskBus::Sata, DiskBus::Usb, DiskBus::Nvme] {
            let driver = crate::qemu::drives::disk_driver(&machine, bus);
            assert_eq!(Class::of(&driver).drive(), Some((bus, false)), "{driver}");
        }
    }
}
