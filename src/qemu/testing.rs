//! Values for the tests of this layer.

use std::net::Ipv4Addr;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::HostFacts;
use crate::spec::*;

/// The id of a thing in a test.
fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

/// An x86 PC with KVM.
pub(super) fn kvm_x86() -> HostFacts {
    HostFacts { arch: Arch::X86_64, accel: Accel::Kvm }
}

/// A disk `/images/ID.qcow2`.
pub(super) fn disk(name: &str, bus: DiskBus) -> Disk {
    Disk {
        id: id(name),
        image: Image::alone(format!("/images/{name}.qcow2"), ImageFormat::Qcow2),
        bus,
        readonly: false,
        serial: None,
        options: DiskOptions::default(),
    }
}

/// A device with a bus.
pub(super) fn extra_device(driver: &str, name: &str, bus: &str) -> vm::ExtraDevice {
    let properties = Map::from_iter([("bus".to_owned(), Value::from(bus))]);
    vm::ExtraDevice { driver: driver.to_owned(), id: id(name), properties }
}

/// A TCP forward from 127.0.0.1.
pub(super) fn forward(host: u16, guest: u16) -> Forward {
    Forward { address: Ipv4Addr::LOCALHOST, host, guest, protocol: Protocol::Tcp }
}

/// A plain x86-64 VM that boots a disk.
pub(crate) fn spec() -> VmSpec {
    VmSpec {
        name: "test".parse().unwrap(),
        uuid: Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef),
        layout: Layout::Fixed,
        arch: Arch::X86_64,
        machine: None,
        cpu: None,
        cpus: 2,
        memory: request::DEFAULT_MEMORY,
        boot: Boot::Disk,
        firmware: None,
        display: Display::None,
        disks: vec![disk("disk0", DiskBus::Virtio)],
        metadata: None,
        networking: Networking::default(),
        nics: Vec::new(),
        boot_order: BootOrder::default(),
        mac: "52:54:00:12:34:56".parse().unwrap(),
        publish: Vec::new(),
        usb: false,
        devices: Vec::new(),
        shares: Vec::new(),
        hotplug_slots: 2,
        forkable: false,
        on_panic: Default::default(),
        no_reboot: false,
        sandbox: true,
        extra: Vec::new(),
    }
}
