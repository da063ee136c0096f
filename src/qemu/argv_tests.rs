//! Golden command lines, one argument a line, an option's value beside it.

use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::qemu::testing::{disk, extra_device, forward, kvm_x86, spec};
use crate::spec::{
    Accel, Arch, Boot, Disk, DiskBus, DiskSpec, Display, Firmware, Image, ImageFormat, Networking, Nic,
    NicSpec, Share,
};

fn rendered(spec: &VmSpec, host: &HostFacts) -> String {
    assert_eq!(crate::qemu::check(spec), Ok(()));
    let shares = (20..).take(spec.shares.len()).collect();
    let memory = spec.forkable.then_some(GuestMemory { file: 14, shared: true });
    let channels = Channels { qmp: 10, agent: 12, user_qmp: None, shares, memory };
    let mut text = String::new();
    for argument in command_line(spec, host, &channels) {
        let argument = argument.to_string_lossy();
        let separator = match (text.is_empty(), argument.starts_with('-')) {
            (true, _) => "",
            (false, true) => "\n",
            (false, false) => " ",
        };
        text = text + separator + &argument;
    }
    text
}

macro_rules! golden {
    ($name:literal, $spec:expr) => {
        insta::assert_snapshot!($name, rendered(&$spec, &kvm_x86()))
    };
}

#[test]
fn every_architecture_on_every_host() {
    for host_arch in [Arch::X86_64, Arch::Aarch64] {
        for &arch in Arch::ALL {
            let accel = if arch == host_arch { Accel::Kvm } else { Accel::Tcg };
            let host = HostFacts { arch: host_arch, accel };
            let name = format!("{arch:?}_on_linux_{host_arch:?}").to_lowercase();
            insta::assert_snapshot!(name, rendered(&VmSpec { arch, ..spec() }, &host));
        }
    }
}

#[test]
fn what_it_boots() {
    let flash = |vars: Option<&str>, needs_smm| Firmware::Flash {
        code: "/fw/CODE.fd".into(),
        code_format: ImageFormat::Raw,
        vars: vars.map(Into::into),
        vars_format: ImageFormat::Qcow2,
        needs_smm,
    };
    golden!("uefi", VmSpec { firmware: Some(flash(Some("/state/VARS.fd"), true)), ..spec() });
    golden!("uefi_without_variables", VmSpec { firmware: Some(flash(None, false)), ..spec() });
    golden!("bios", VmSpec { firmware: Some(Firmware::Bios { path: "/fw/bios,a.bin".into() }), ..spec() });
    let iso = VmSpec { boot: Boot::Iso { path: "/i/live.iso".into() }, ..spec() };
    golden!("iso", iso);
    golden!(
        "iso_on_pc",
        VmSpec { machine: Some("pc".into()), metadata: Some("/s/m.iso".into()), ..iso.clone() }
    );
    golden!("iso_on_s390x", VmSpec { arch: Arch::S390x, ..iso });
    let kernel = Boot::Kernel {
        kernel: "/i/k-kernel".into(),
        initrd: Some("/i/k-initrd.img".into()),
        cmdline: "console=ttyS0,115200 a,b".into(),
    };
    golden!("kernel", VmSpec { boot: kernel.clone(), disks: vec![], ..spec() });
    golden!("microvm", VmSpec { boot: kernel, machine: Some("microvm".into()), ..spec() });
    let squashfs = Boot::Squashfs {
        kernel: "/i/k-kernel".into(),
        squashfs: "/i/k-squashfs.img".into(),
        cmdline: "console=ttyS0".into(),
        append: "quiet".into(),
        sata: false,
    };
    golden!("squashfs", VmSpec { boot: squashfs.clone(), ..spec() });
    golden!("squashfs_on_microvm", VmSpec { boot: squashfs, machine: Some("microvm".into()), ..spec() });
}

#[test]
fn disks_of_every_bus() {
    let buses = [DiskBus::Virtio, DiskBus::Scsi, DiskBus::Sata, DiskBus::Usb, DiskBus::Nvme];
    let disks: Vec<_> =
        ["a", "b", "c", "d", "e"].into_iter().zip(buses).map(|(id, bus)| disk(id, bus)).collect();
    golden!("disks", VmSpec { disks: disks.clone(), ..spec() });
    golden!("disks_on_pc", VmSpec { disks, machine: Some("pc".into()), ..spec() });
    let odd = Disk {
        image: Image::alone("/i/json:{},snapshot=on", ImageFormat::Qcow2),
        readonly: true,
        serial: Some("S,1".into()),
        ..disk("odd", DiskBus::Virtio)
    };
    golden!("disk_with_odd_name", VmSpec { disks: vec![odd], ..spec() });
    let with = |id: &str, bus, text: &str| {
        let options = format!("x,{text}").parse::<DiskSpec>().unwrap().options;
        Disk { options, ..disk(id, bus) }
    };
    let disks = vec![
        with("a", DiskBus::Virtio, "cache=none,aio=native,discard=unmap,iothread=on,logical-block-size=4096"),
        with("b", DiskBus::Scsi, "cache=writethrough,discard=ignore,boot=1"),
        with("c", DiskBus::Nvme, "cache=unsafe,aio=threads,detect-zeroes=off,iothread=off"),
    ];
    golden!("disk_options", VmSpec { disks, ..spec() });
}

#[test]
fn networks() {
    golden!("publish", VmSpec { publish: vec![forward(8080, 80), forward(0, 22)], ..spec() });
    golden!("bridge", VmSpec { networking: Networking::Bridge("br0".parse().unwrap()), ..spec() });
    golden!("tap", VmSpec { networking: Networking::Tap("tap,0".parse().unwrap()), ..spec() });
    let nic = |text: &str, id: &str| {
        let NicSpec { network, model, .. } = text.parse().unwrap();
        Nic { id: id.parse().unwrap(), network, mac: "52:54:00:00:00:07".parse().unwrap(), model }
    };
    let nics = vec![nic("user,net=10.0.3.0/24,restrict=on,model=e1000", "nic1"), nic("tap,vt0", "lan")];
    golden!("more_cards", VmSpec { nics: nics.clone(), publish: vec![forward(0, 22)], ..spec() });
    let boot_order = "net,disk".parse().unwrap();
    golden!(
        "network_boot_of_a_further_card",
        VmSpec { networking: Networking::None, nics, boot_order, publish: vec![forward(0, 22)], ..spec() }
    );
    golden!("no_network", VmSpec { networking: Networking::None, ..spec() });
}

#[test]
fn what_it_shows() {
    golden!("gui", VmSpec { display: Display::Gui, ..spec() });
    golden!("headless", VmSpec { display: Display::Headless, ..spec() });
    golden!("headless_s390x", VmSpec { display: Display::Headless, arch: Arch::S390x, ..spec() });
}

#[test]
fn extras() {
    golden!("usb", VmSpec { usb: true, ..spec() });
    golden!("usb_on_microvm", VmSpec { usb: true, machine: Some("microvm".into()), ..spec() });
    golden!("many_slots", VmSpec { hotplug_slots: 24, ..spec() });
    let shares = [("/srv/a", "a"), ("/srv/b", "b,c")]
        .map(|(directory, tag)| Share { directory: directory.into(), tag: tag.into() });
    golden!("shares", VmSpec { shares: shares.to_vec(), ..spec() });
    golden!("device", VmSpec { devices: vec![extra_device("edu", "e", "slot1")], ..spec() });
}

/// What an earlier vmrun has started, or saved, is the same machine for this one.
#[test]
fn a_vm_of_an_earlier_vmrun_keeps_its_names_and_places() {
    let disks = vec![disk("disk0", DiskBus::Virtio), disk("s", DiskBus::Scsi)];
    let layout = crate::spec::Layout::Grown;
    golden!("grown", VmSpec { layout, disks, display: Display::Headless, ..spec() });
}

#[test]
fn extra_arguments_come_last_and_unchanged() {
    let odd = OsString::from_vec(vec![b'-', 0xff, b' ']);
    let spec = VmSpec { extra: vec!["-cdrom".into(), odd.clone()], sandbox: false, ..spec() };
    let channels = Channels { qmp: 10, agent: 12, user_qmp: Some(13), shares: vec![], memory: None };
    let line = command_line(&spec, &kvm_x86(), &channels);
    assert_eq!(line[line.len() - 2..], ["-cdrom".into(), odd]);
    assert!(!line.contains(&"-sandbox".into()));
    assert!(line.contains(&"chardev:vmrun-user-qmp".into()));
    // it may need the AHCI controller
    assert!(line.contains(&"q35,graphics=off".into()));
}

#[test]
fn memory_of_a_vm_that_can_be_forked() {
    golden!("forkable", VmSpec { forkable: true, ..spec() });
}

/// A fork has its memory from a template, or out of the stream; the machine must be the same.
#[test]
fn a_fork_is_the_same_machine() {
    let spec = VmSpec { forkable: true, ..spec() };
    let with = |memory| {
        let channels = Channels { qmp: 10, agent: 12, user_qmp: None, shares: vec![], memory };
        let line = command_line(&spec, &kvm_x86(), &channels);
        let is_memory = |argument: &OsString| argument.to_string_lossy().contains("memory-backend-");
        let (memory, rest): (Vec<OsString>, Vec<OsString>) = line.into_iter().partition(is_memory);
        assert_eq!(memory.len(), 1);
        (memory[0].to_string_lossy().into_owned(), rest)
    };
    let (cold, line) = with(Some(GuestMemory { file: 14, shared: true }));
    let (fork, same) = with(Some(GuestMemory { file: 14, shared: false }));
    let (stream, too) = with(None);
    assert_eq!((&line, &line), (&same, &too));
    assert_eq!(cold.replace("\"share\":true", "\"share\":false"), fork);
    assert!(stream.contains("memory-backend-ram"), "{stream}");
}
