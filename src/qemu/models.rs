//! QEMU's device models, as far as vmrun tells one from another. A disk's bus is one row of [`OnBus::of`], any other model that is
//! new here one row of `TABLE`.

use super::Machine;
use super::plan::Controller;
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
/// The model of a CD-ROM drive on SCSI.
pub const SCSI_CD: &str = "scsi-cd";
/// The model of a CD-ROM drive on SATA or IDE.
pub const IDE_CD: &str = "ide-cd";
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

/// What vmrun plugs into a bus for disks.
#[derive(Debug, Clone, Copy)]
pub struct OnBus {
    /// The model of a disk.
    disk: Name,
    /// The model of a CD-ROM drive, if there is one.
    cd: Option<&'static str>,
    /// The controller that disks on this bus need, if they have no slot or port of their own.
    pub controller: Option<Controller>,
}

impl OnBus {
    /// The row of a bus.
    pub const fn of(bus: DiskBus) -> Self {
        let (disk, cd, controller) = match bus {
            DiskBus::Virtio => (Name::Begins(VIRTIO_DISK), None, None),
            DiskBus::Scsi => (Name::Is("scsi-hd"), Some(SCSI_CD), Some(Controller::Scsi)),
            DiskBus::Sata => (Name::Is("ide-hd"), Some(IDE_CD), None),
            DiskBus::Usb => (Name::Is(USB_STORAGE), None, Some(Controller::Usb)),
            DiskBus::Nvme => (Name::Is("nvme"), None, None),
        };
        Self { disk, cd, controller }
    }

    /// The model of a disk, of this machine's transport.
    pub fn disk(self, machine: &Machine) -> String {
        match self.disk {
            Name::Begins(family) => machine.virtio(family),
            Name::Is(model) | Name::Ends(model) | Name::Has(model) => model.to_owned(),
        }
    }

    /// The class of a model, if it is this bus's disk or drive.
    fn class_of(bus: DiskBus, driver: &str) -> Option<Class> {
        let Self { disk, cd, .. } = Self::of(bus);
        match bus {
            _ if cd == Some(driver) => Some(Class::Cd(bus)),
            _ if !disk.fits(driver) => None,
            DiskBus::Usb => Some(Class::UsbStorage),
            _ => Some(Class::Disk(bus)),
        }
    }
}

/// The models that are no disks. The first row that fits counts.
const TABLE: [(Name, Class); 11] = [
    (Name::Is(USB_HOST), Class::UsbHost),
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
        let of_disk = DiskBus::ALL.iter().find_map(|bus| OnBus::class_of(*bus, driver));
        let of_table = || TABLE.iter().find(|(name, _)| name.fits(driver)).map(|(_, class)| *class);
        of_disk.or_else(of_table).unwrap_or(Self::Other)
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
        let machine = Machine::of(&crate::qemu::testing::spec());
        for bus in [DiskBus::Virtio, DiskBus::Scsi, DiskBus::Sata, DiskBus::Usb, DiskBus::Nvme] {
            let driver = crate::qemu::drives::disk_driver(&machine, bus);
            assert_eq!(Class::of(&driver).drive(), Some((bus, false)), "{driver}");
        }
    }
}
