//! What stands in `vm.json` comes back as it was.

use std::os::unix::ffi::OsStringExt;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::spec::{DiskBus, DiskOptions, FileId, HostFile, Image, ImageFormat, NicModel, Protocol};

fn bytes() -> impl Strategy<Value = OsString> {
    vec(1..=255u8, 1..12).prop_map(OsString::from_vec)
}

fn path() -> impl Strategy<Value = PathBuf> {
    bytes().prop_map(PathBuf::from)
}

fn id() -> impl Strategy<Value = DeviceId> {
    "[a-z][a-z0-9._-]{0,25}".prop_map(|id| id.parse().unwrap())
}

fn size() -> impl Strategy<Value = Size> {
    (1..=i64::MAX as u64).prop_map(|bytes| Size::from_bytes(bytes).unwrap())
}

fn boot() -> impl Strategy<Value = Boot> {
    prop_oneof![
        Just(Boot::Disk),
        Just(Boot::Firmware),
        path().prop_map(|path| Boot::Iso { path }),
        (path(), of(path()), any::<String>()).prop_map(|(kernel, initrd, cmdline)| Boot::Kernel {
            kernel,
            initrd,
            cmdline
        }),
        (path(), path(), any::<String>()).prop_map(|(kernel, squashfs, cmdline)| Boot::Squashfs {
            kernel,
            squashfs,
            sata: cmdline.len() % 2 == 0,
            append: cmdline.chars().rev().collect(),
            cmdline
        }),
    ]
}

prop_compose! {
    fn flash()(
        code in path(),
        code_format in select(ImageFormat::ALL),
        vars in of(path()),
        vars_format in select(ImageFormat::ALL),
        needs_smm in any::<bool>(),
    ) -> Firmware {
        Firmware::Flash { code, code_format, vars, vars_format, needs_smm }
    }
}

fn firmware() -> impl Strategy<Value = Firmware> {
    prop_oneof![flash(), path().prop_map(|path| Firmware::Bios { path })]
}

fn host_file() -> impl Strategy<Value = HostFile> {
    let identity = of((any::<u64>(), any::<u64>()));
    let identity = identity.prop_map(|id| id.map(|(device, inode)| FileId { device, inode }));
    (path(), identity).prop_map(|(path, identity)| HostFile { path, identity })
}

fn image() -> impl Strategy<Value = Image> {
    let layer = || (host_file(), select(ImageFormat::ALL), of(host_file()), vec(host_file(), 0..3));
    vec(layer(), 1..4).prop_map(|layers| {
        let over = |backing: Option<Image>, (file, format, data_file, extents): (HostFile, _, _, _)| {
            let HostFile { path: file, identity } = file;
            Some(Image { file, identity, format, data_file, extents, backing: backing.map(Box::new) })
        };
        layers.into_iter().fold(None, over).unwrap()
    })
}

prop_compose! {
    fn disk()(
        id in id(),
        image in image(),
        bus in select(DiskBus::ALL),
        readonly in any::<bool>(),
        serial in of("[ -~]{1,20}"),
        boot in of(1..=999_u16),
        iothread in of(any::<bool>()),
    ) -> Disk {
        let options = DiskOptions { boot, iothread, ..DiskOptions::default() };
        Disk { id, image, bus, readonly, serial, options }
    }
}

fn networking() -> impl Strategy<Value = Networking> {
    let name = || "[a-z]{1,15}".prop_map(|name| name.parse().unwrap());
    prop_oneof![
        Just(Networking::default()),
        Just("user,net=10.0.7.0/24,dns=10.0.7.9,hostname=box,restrict=on".parse().unwrap()),
        Just(Networking::None),
        name().prop_map(Networking::Bridge),
        name().prop_map(Networking::Tap),
    ]
}

fn nic() -> impl Strategy<Value = Nic> {
    (id(), networking(), any::<[u8; 6]>(), select(NicModel::ALL)).prop_map(|(id, network, mac, model)| Nic {
        id,
        network,
        mac: MacAddress::from_random(mac),
        model,
    })
}

fn forward() -> impl Strategy<Value = Forward> {
    (any::<[u8; 4]>(), any::<u16>(), 1..=u16::MAX, select(Protocol::ALL)).prop_map(
        |(address, host, guest, protocol)| Forward { address: address.into(), host, guest, protocol },
    )
}

fn device() -> impl Strategy<Value = ExtraDevice> {
    let value = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    ("[a-z-]{1,12}", id(), vec((any::<String>(), value), 0..4)).prop_map(|(driver, id, properties)| {
        ExtraDevice { driver, id, properties: properties.into_iter().collect() }
    })
}

fn share() -> impl Strategy<Value = Share> {
    (path(), "[ -~]{1,36}").prop_map(|(directory, tag)| Share { directory, tag })
}

prop_compose! {
    fn machine()(
        arch in select(Arch::ALL),
        machine in of(any::<String>()),
        cpu in of(any::<String>()),
        cpus in any::<u32>(),
        memory in size(),
        mac in any::<[u8; 6]>(),
        display in select(vec!["none", "gui", "headless", "gtk,gl=off", "vnc=:1", "spice=unix:/s"]).prop_map(|text| text.parse().unwrap()),
        hotplug_slots in any::<u8>(),
        (usb, sandbox, forkable) in any::<(bool, bool, bool)>(),
        uuid in any::<u128>(),
    ) -> VmSpec {
        VmSpec {
            name: "vm".parse().unwrap(),
            uuid: Uuid::from_u128(uuid),
            layout: if usb { Layout::Fixed } else { Layout::Grown },
            mac: MacAddress::from_random(mac),
            boot: Boot::Disk,
            firmware: None,
            disks: Vec::new(),
            metadata: None,
            networking: Networking::None,
            nics: Vec::new(),
            boot_order: BootOrder::default(),
            publish: Vec::new(),
            devices: Vec::new(),
            shares: Vec::new(),
            extra: Vec::new(),
            on_panic: if usb { OnPanic::Pause } else { OnPanic::Poweroff },
            no_reboot: sandbox,
            arch, machine, cpu, cpus, memory, display, hotplug_slots, usb, sandbox, forkable,
        }
    }
}

prop_compose! {
    fn vm()(
        machine in machine(),
        name in "[a-z0-9][A-Za-z0-9._-]{0,63}",
        boot in boot(),
        firmware in of(firmware()),
        disks in vec(disk(), 0..3),
        metadata in of(path()),
        networking in networking(),
        (nics, boot_order) in (vec(nic(), 0..3), select(vec!["net", "disk,net", "cdrom,net,disk"])),
        publish in vec(forward(), 0..3),
        devices in vec(device(), 0..3),
        shares in vec(share(), 0..3),
        extra in vec(bytes(), 0..3),
    ) -> VmSpec {
        let (name, boot_order) = (name.parse().unwrap(), boot_order.parse().unwrap());
        VmSpec { name, boot, firmware, disks, metadata, networking, nics, boot_order, publish, devices, shares, extra, ..machine }
    }
}

proptest! {
    #[test]
    fn round_trips_through_json(vm in vm()) {
        let json = serde_json::to_string(&vm).unwrap();
        prop_assert_eq!(serde_json::from_str::<VmSpec>(&json).unwrap(), vm);
    }
}

#[test]
fn paths_are_text_where_they_can_be() {
    let json = |bytes: &[u8]| {
        let path = OsString::from_vec(bytes.to_vec()).into();
        serde_json::to_string(&Boot::Iso { path }).unwrap()
    };
    assert_eq!(json("/a é".as_bytes()), r#"{"mode":"iso","path":"/a é"}"#);
    assert_eq!(json(b"/\xff"), r#"{"mode":"iso","path":[47,255]}"#);
}

#[test]
fn values_are_checked_on_the_way_in() {
    assert!(serde_json::from_str::<Disk>(r#"{"id":"1","file":"/a","format":"raw","bus":"virtio"}"#).is_err());
    assert!(serde_json::from_str::<Networking>(r#"{"mode":"tap","interface":"a/b"}"#).is_err());
}
