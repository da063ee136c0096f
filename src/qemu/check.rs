//! What a description asks of a machine that does not have it. [`command_line`](super::command_line) takes a description that passed.

use thiserror::Error;

use super::machine::Family;
use super::slots::MAX_SLOTS;
use super::{Machine, addresses, boot, disk_options};
use crate::spec::{Arch, Boot, BootClass, Firmware, NicModel, VmSpec};

/// Functions of one place on the bus.
const MAX_NICS: usize = addresses::FUNCTIONS;

/// Why a VM cannot be started as described.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unsupported {
    /// The machine has no such bus.
    #[error("disk '{id}': a {machine} machine has no {bus} bus")]
    DiskBus {
        /// The disk.
        id: String,
        /// The machine type.
        machine: String,
        /// The bus, as typed.
        bus: &'static str,
    },
    /// The bus, or the machine, cannot do what is said of a disk.
    #[error("disk '{id}': {why}")]
    DiskOption {
        /// The disk.
        id: String,
        /// What it cannot do.
        why: String,
    },
    /// Two disks with one place in the boot order.
    #[error("disks '{first}' and '{second}' both have boot={number}")]
    BootTwice {
        /// The number.
        number: u16,
        /// The disk that has it.
        first: String,
        /// The other.
        second: String,
    },
    /// Two ways to say an order.
    #[error("`--boot {0}` and boot= of disk '{1}' both say an order: use one of them")]
    BootBoth(String, String),
    /// QEMU boots the kernel, whatever the order is.
    #[error("`--boot {0}` makes no sense: QEMU loads a kernel, and boots nothing else")]
    BootOrderKernel(String),
    /// Nothing of this kind to boot from.
    #[error("`--boot {0}`: the VM has no {1} to boot from")]
    BootNothing(String, &'static str),
    /// No firmware of the machine boots from the network.
    #[error("`--boot {0}`: a {1} machine cannot boot from the network")]
    BootNoNet(String, String),
    /// More network cards than there are addresses.
    #[error("{0} further network cards are too many: {MAX_NICS} fit")]
    Nics(usize),
    /// The machine has no PCI.
    #[error("network card '{id}': a {machine} machine takes virtio network cards only")]
    NicModel {
        /// The card.
        id: String,
        /// The machine type.
        machine: String,
    },
    /// QEMU boots the kernel, whatever the order is.
    #[error("disk '{0}' has a place in the boot order (`boot=`), but QEMU loads a kernel, and boots no disk")]
    BootKernel(String),
    /// No template can be made of it.
    #[error("a VM cannot be frozen and forked {0}")]
    Fork(String),
    /// No USB controller.
    #[error("a {0} machine has no USB")]
    Usb(String),
    /// No flash chips.
    #[error("a {0} machine has no flash for UEFI firmware")]
    Flash(String),
    /// More than fit.
    #[error("{0} hot-plug slots are too many: {MAX_SLOTS} fit")]
    Slots(u8),
    /// More disks than there are addresses.
    #[error("{0} disks on virtio and nvme are too many: {1} fit (`bus=scsi` takes more, in one place)")]
    Disks(usize, usize),
    /// The kernel would not start, and not say so.
    #[error("the kernel's command line has {bytes} bytes: on {arch} one of more than {most} boots nothing")]
    CommandLine {
        /// Its length.
        bytes: usize,
        /// The guest's architecture.
        arch: Arch,
        /// The longest that boots.
        most: usize,
    },
    /// An id that vmrun uses for something of its own.
    #[error("id '{0}' is reserved for vmrun's own devices")]
    ReservedId(String),
    /// The same id twice.
    #[error("id '{0}' is given twice")]
    DuplicateId(String),
}

/// Checks a description against its machine and host.
pub fn check(spec: &VmSpec) -> Result<(), Unsupported> {
    let machine = Machine::of(spec);
    check_boot_order(spec)?;
    for disk in &spec.disks {
        if let Some(why) = disk_options::refusal(&machine, disk.bus, &disk.options) {
            return Err(Unsupported::DiskOption { id: disk.id.to_string(), why });
        }
        if !machine.has_disk_bus(disk.bus) {
            let (id, machine, bus) = (disk.id.to_string(), machine.kind().to_owned(), disk.bus.as_str());
            return Err(Unsupported::DiskBus { id, machine, bus });
        }
    }
    if spec.nics.len() > MAX_NICS {
        return Err(Unsupported::Nics(spec.nics.len()));
    }
    if let Some(nic) = spec.nics.iter().find(|nic| nic.model != NicModel::Virtio && !machine.has_pci()) {
        return Err(Unsupported::NicModel { id: nic.id.to_string(), machine: machine.kind().to_owned() });
    }
    if spec.forkable && !matches!(machine.family(), Family::Q35 | Family::Pc) {
        let why = format!("on a {} machine: its forks would have the same random numbers", machine.kind());
        return Err(Unsupported::Fork(why));
    }
    if spec.forkable && !spec.shares.is_empty() {
        return Err(Unsupported::Fork("with a shared folder, whose server knows one guest only".to_owned()));
    }
    if spec.usb && !machine.has_usb() {
        return Err(Unsupported::Usb(machine.kind().to_owned()));
    }
    let flash = matches!(spec.firmware, Some(Firmware::Flash { .. }));
    if flash && matches!(machine.family(), Family::Microvm | Family::Ccw) {
        return Err(Unsupported::Flash(machine.kind().to_owned()));
    }
    if spec.hotplug_slots > MAX_SLOTS {
        return Err(Unsupported::Slots(spec.hotplug_slots));
    }
    let disks = addresses::pci_disks(spec);
    if let Some(most) = addresses::most_pci_disks(&machine).filter(|most| disks > *most) {
        return Err(Unsupported::Disks(disks, most));
    }
    let bytes = boot::command_line(&spec.boot).len();
    if let Some(most) = spec.arch.facts().max_command_line.filter(|most| bytes > *most) {
        return Err(Unsupported::CommandLine { bytes, arch: spec.arch, most });
    }
    check_ids(spec)
}

fn check_boot_order(spec: &VmSpec) -> Result<(), Unsupported> {
    let numbered = || spec.disks.iter().filter_map(|disk| Some((disk.options.boot?, disk.id.as_str())));
    let loads_kernel = matches!(spec.boot, Boot::Kernel { .. } | Boot::Squashfs { .. });
    if let Some((_, id)) = numbered().next().filter(|_| loads_kernel) {
        return Err(Unsupported::BootKernel(id.to_owned()));
    }
    let order = &spec.boot_order;
    if !order.is_empty() {
        let said = order.to_string();
        if loads_kernel {
            return Err(Unsupported::BootOrderKernel(said));
        }
        if let Some((_, id)) = numbered().next() {
            return Err(Unsupported::BootBoth(said, id.to_owned()));
        }
        let machine = Machine::of(spec);
        for class in order.classes() {
            let (there, what) = match class {
                BootClass::Net if machine.family() == Family::Microvm => {
                    return Err(Unsupported::BootNoNet(said, machine.kind().to_owned()));
                }
                BootClass::Net => (spec.networks().next().is_some(), "network card"),
                BootClass::Disk => (!spec.disks.is_empty(), "disk"),
                BootClass::Cdrom => (matches!(spec.boot, Boot::Iso { .. }), "CD"),
            };
            if !there {
                return Err(Unsupported::BootNothing(said, what));
            }
        }
    }
    for (position, (number, second)) in numbered().enumerate() {
        if let Some((_, first)) = numbered().take(position).find(|(other, _)| *other == number) {
            let (first, second) = (first.to_owned(), second.to_owned());
            return Err(Unsupported::BootTwice { number, first, second });
        }
    }
    Ok(())
}

fn check_ids(spec: &VmSpec) -> Result<(), Unsupported> {
    let ids = super::ids::Ids::of(spec.layout);
    let disks = spec.disks.iter().map(|disk| disk.id.as_str());
    let disks = disks.chain(spec.nics.iter().map(|nic| nic.id.as_str()));
    let all: Vec<_> = disks.chain(spec.devices.iter().map(|device| device.id.as_str())).collect();
    for (position, id) in all.iter().enumerate() {
        if ids.is_reserved(id) {
            return Err(Unsupported::ReservedId((*id).to_owned()));
        }
        if all[..position].contains(id) {
            return Err(Unsupported::DuplicateId((*id).to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::testing::{disk, spec};
    use crate::spec::{DiskBus, Networking};

    fn refusal(spec: VmSpec) -> String {
        check(&spec).unwrap_err().to_string()
    }

    #[test]
    fn refuses_what_the_machine_has_not() {
        assert_eq!(check(&spec()), Ok(()));
        let sata = VmSpec { disks: vec![disk("a", DiskBus::Sata)], arch: Arch::S390x, ..spec() };
        assert_eq!(refusal(sata), "disk 'a': a s390-ccw-virtio machine has no sata bus");
        let usb = VmSpec { usb: true, arch: Arch::S390x, ..spec() };
        assert_eq!(refusal(usb), "a s390-ccw-virtio machine has no USB");
        let many = |count: usize| VmSpec {
            disks: (0..count).map(|number| disk(&format!("d{number}"), DiskBus::Virtio)).collect(),
            ..spec()
        };
        assert_eq!(check(&many(41)), Ok(()));
        assert!(refusal(many(42)).contains("41 fit (`bus=scsi`"));
        assert_eq!(refusal(VmSpec { hotplug_slots: 65, ..spec() }), "65 hot-plug slots are too many: 64 fit");
    }

    #[test]
    fn refuses_options_of_disks_that_cannot_be() {
        let with = |id: &str, bus, text: &str| {
            let options = format!("x,{text}").parse::<crate::spec::DiskSpec>().unwrap().options;
            crate::spec::Disk { options, ..disk(id, bus) }
        };
        let disks = |disks| VmSpec { disks, ..spec() };
        let sata = disks(vec![with("a", DiskBus::Sata, "logical-block-size=4096")]);
        assert_eq!(refusal(sata), "disk 'a': QEMU's SATA disks have logical blocks of 512 bytes");
        let twice = disks(vec![with("a", DiskBus::Virtio, "boot=2"), with("b", DiskBus::Scsi, "boot=2")]);
        assert_eq!(refusal(twice), "disks 'a' and 'b' both have boot=2");
        let boot = Boot::Kernel { kernel: "/k".into(), initrd: None, cmdline: String::new() };
        let kernel = VmSpec { boot, ..disks(vec![with("a", DiskBus::Virtio, "boot=2")]) };
        assert_eq!(
            refusal(kernel),
            "disk 'a' has a place in the boot order (`boot=`), but QEMU loads a kernel, and boots no disk"
        );
        let fine =
            disks(vec![with("a", DiskBus::Virtio, "boot=2,iothread=on"), with("b", DiskBus::Sata, "boot=1")]);
        assert_eq!(check(&fine), Ok(()));
    }

    #[test]
    fn refuses_a_command_line_that_boots_nothing() {
        let kernel = |bytes: usize, arch| VmSpec {
            boot: Boot::Kernel { kernel: "/k".into(), initrd: None, cmdline: "a".repeat(bytes) },
            arch,
            ..spec()
        };
        assert_eq!(check(&kernel(2047, Arch::X86_64)), Ok(()));
        assert_eq!(check(&kernel(2048, Arch::Aarch64)), Ok(()));
        assert_eq!(
            refusal(kernel(2048, Arch::X86_64)),
            "the kernel's command line has 2048 bytes: on x86_64 one of more than 2047 boots nothing"
        );
    }

    #[test]
    fn refuses_orders_and_cards_that_cannot_be() {
        let ordered = |text: &str| VmSpec { boot_order: text.parse().unwrap(), ..spec() };
        assert_eq!(check(&ordered("net,disk")), Ok(()));
        let no_card = VmSpec { networking: Networking::None, ..ordered("net,disk") };
        assert_eq!(refusal(no_card), "`--boot net,disk`: the VM has no network card to boot from");
        assert_eq!(refusal(ordered("cdrom")), "`--boot cdrom`: the VM has no CD to boot from");
        let diskless = VmSpec { disks: Vec::new(), boot: Boot::Firmware, ..ordered("disk") };
        assert_eq!(refusal(diskless), "`--boot disk`: the VM has no disk to boot from");
        let microvm = VmSpec { machine: Some("microvm".to_owned()), ..ordered("net") };
        assert_eq!(refusal(microvm), "`--boot net`: a microvm machine cannot boot from the network");
        let boot = Boot::Kernel { kernel: "/k".into(), initrd: None, cmdline: String::new() };
        assert!(refusal(VmSpec { boot, ..ordered("net") }).contains("QEMU loads a kernel"));
        let mut both = ordered("net");
        both.disks[0].options.boot = Some(1);
        assert!(refusal(both).contains("use one of them"));
        let nic = |id: &str, model| crate::spec::Nic {
            id: id.parse().unwrap(),
            network: Networking::default(),
            mac: "52:54:00:00:00:01".parse().unwrap(),
            model,
        };
        let many = (0..9).map(|number| nic(&format!("n{number}"), NicModel::Virtio)).collect();
        assert_eq!(refusal(VmSpec { nics: many, ..spec() }), "9 further network cards are too many: 8 fit");
        let e1000 = VmSpec { nics: vec![nic("a", NicModel::E1000)], arch: Arch::S390x, ..spec() };
        assert!(refusal(e1000).contains("takes virtio network cards only"));
        let twice = VmSpec { nics: vec![nic("disk0", NicModel::Virtio)], ..spec() };
        assert_eq!(refusal(twice), "id 'disk0' is given twice");
    }

    #[test]
    fn refuses_ids_that_clash() {
        let disks =
            |a, b| VmSpec { disks: vec![disk(a, DiskBus::Virtio), disk(b, DiskBus::Virtio)], ..spec() };
        assert_eq!(refusal(disks("a", "slot1")), "id 'slot1' is reserved for vmrun's own devices");
        assert_eq!(refusal(disks("a", "a")), "id 'a' is given twice");
    }
}
