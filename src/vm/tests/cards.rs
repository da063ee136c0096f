//! Network cards: a back-end and a device, the forwards that hang on them, their cables.

use std::time::Duration;

use crate::spec::{MacAddress, Networking, VmSpec};
use crate::vm::{BusEvent, Change, DeviceKind, Done, ErrorKind, Kind, Published};

use super::fake_qemu::{Fault, Guest};
use super::fake_vm::{FakeVm, card, device, disk, forward, link, remove, spec, throttle};
use crate::spec::{DiskBus, Limits, Rates};

fn take(id: &str) -> Change {
    Change::Remove { kind: DeviceKind::Nic, id: id.to_owned(), wait: Duration::from_secs(30) }
}

async fn macs(vm: &FakeVm) -> Vec<(String, MacAddress)> {
    vm.status().await.nics().map(|(entry, nic)| (entry.id.to_string(), nic.mac.unwrap())).collect()
}

/// Names of the events since the start, with the id or forward that they are about.
fn events(vm: &FakeVm) -> Vec<String> {
    let mut subscriber = vm.handle.bus.subscribe(Some(0));
    let mut names = Vec::new();
    while let Some(BusEvent::Record(record)) = subscriber.try_next() {
        let about = ["id", "nic", "forward"].iter().find_map(|key| record.data.get(*key)?.as_str());
        if record.name.starts_with("VMRUN_") {
            names.push(format!("{} {}", record.name, about.unwrap_or_default()));
        }
    }
    names
}

#[tokio::test(start_paused = true)]
async fn a_card_comes_and_goes_with_its_back_end() {
    let vm = FakeVm::start().await;
    let Done::Device(entry) = vm.change(card("lan")).await.unwrap() else { panic!() };
    assert_eq!((entry.driver.as_str(), entry.slot.as_deref()), ("virtio-net-pci", Some("slot1")));
    assert_eq!(vm.inventory().await, (vec!["lan Present".to_owned()], 1));
    assert_eq!(vm.qemu.seen(), ["netdev_add", "device_add"]);
    let before = macs(&vm).await;
    assert_eq!(vm.change(take("lan")).await, Ok(Done::Removed));
    assert_eq!(vm.inventory().await, (Vec::new(), 0));
    assert_eq!(vm.qemu.model().netdevs.len(), 1);
    assert!(vm.qemu.model().refused.is_empty(), "{:?}", vm.qemu.model().refused);
    // the next of this id has the same address, another has another
    vm.change(card("lan")).await.unwrap();
    vm.change(card("other")).await.unwrap();
    let after = macs(&vm).await;
    assert_eq!(before, after[..2]);
    assert_ne!(after[1].1, after[2].1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_any_step_leaves_nothing() {
    for command in ["netdev_add", "device_add"] {
        let vm = FakeVm::start().await;
        vm.qemu.fault(command, Fault::Refuse("no such luck"));
        let error = vm.change(card("lan")).await.unwrap_err();
        assert!(error.message.contains("no such luck"), "{command}: {error}");
        assert_eq!(vm.inventory().await, (Vec::new(), 0), "{command}");
        {
            let model = vm.qemu.model();
            assert_eq!((model.netdevs.len(), model.devices.len()), (1, 1), "{command}");
        }
        vm.change(card("lan")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_before_qemu_is_asked() {
    let vm = FakeVm::start().await;
    let add = |text: &str| vm.change(Change::AddNic(text.parse().unwrap()));
    let error = add("user,mac=52:54:00:12:34:56").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::AlreadyThere { id: "nic0".to_owned() });
    for id in ["nic0", "net0", "vmrun-usb"] {
        let error = add(&format!("user,id={id}")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::AlreadyThere { id: id.to_owned() });
    }
    let error = add("tap,no-such-tap").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::HostProblem);
    assert!(error.hint.unwrap().contains("ip tuntap add dev no-such-tap"));
    assert_eq!(vm.change(take("nic")).await.unwrap_err().hint.as_deref(), Some("did you mean 'nic0'?"));
    vm.change(device("edu", "e")).await.unwrap();
    for id in ["e", "nobody"] {
        let error = vm.change(take(id)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSuchThing { id: id.to_owned() });
        assert_eq!(error.hint.as_deref(), Some("it has nic0"));
    }
    assert_eq!(vm.inventory().await, (vec!["e Present".to_owned()], 1));
    assert!(!vm.qemu.seen().iter().any(|name| name == "netdev_add"));
}

#[tokio::test(start_paused = true)]
async fn two_at_once_do_not_share_an_address() {
    let vm = FakeVm::start().await;
    let add =
        |id: &str| vm.begin(Change::AddNic(format!("user,id={id},mac=52:54:00:00:00:01").parse().unwrap()));
    let both = [add("a"), add("b")];
    let mut made = 0;
    for add in both {
        made += usize::from(add.await.unwrap().is_ok());
    }
    assert_eq!((made, vm.inventory().await.1, vm.qemu.model().netdevs.len()), (1, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_forward_leads_to_the_card_that_is_named() {
    let vm = FakeVm::start().await;
    vm.change(card("lan")).await.unwrap();
    let to = |nic: &str, host: u16| match forward(host, 80) {
        Change::AddForward { forward, .. } => Change::AddForward { forward, nic: Some(nic.to_owned()) },
        other => panic!("{other:?}"),
    };
    for (nic, port) in [("lan", 40_001), ("nic0", 40_002)] {
        let done = vm.change(to(nic, 0)).await.unwrap();
        let Done::Forward(Published { forward, nic: Some(card) }) = done else { panic!("{done:?}") };
        assert_eq!((card.as_str(), forward.host), (nic, port));
    }
    assert_eq!(vm.qemu.model().forwards["tcp:127.0.0.1:40001"].0, "lan.net");
    assert_eq!(vm.qemu.model().forwards["tcp:127.0.0.1:40002"].0, "net0");
    let cards: Vec<_> = vm.status().await.forwards.into_iter().map(|published| published.nic).collect();
    assert_eq!(cards, ["lan", "nic0"].map(|nic| Some(nic.to_owned())));

    let error = vm.change(to("lane", 0)).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NoSuchThing { .. }), "{error:?}");
    assert_eq!(error.hint.as_deref(), Some("did you mean 'lan'?"));
    // no card that is on its way out, and none that is on a tap device
    vm.qemu.model().guest = Guest::Ignores;
    let leaving =
        Change::Remove { kind: DeviceKind::Nic, id: "lan".to_owned(), wait: Duration::from_secs(1) };
    assert_eq!(vm.change(leaving).await, Ok(Done::RemovalPending));
    let error = vm.change(to("lan", 0)).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotNow { .. }), "{error:?}");
    let networking = Networking::Tap("vt0".parse().unwrap());
    let other = FakeVm::start_with(VmSpec { networking, ..spec() }).await;
    assert_eq!(other.change(to("nic0", 0)).await.unwrap_err().kind, ErrorKind::NotSupported);
    assert_eq!((vm.qemu.model().forwards.len(), other.qemu.model().forwards.len()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn forwards_go_with_their_card() {
    // the card from the start is on a tap device: forwards hang on the first of user networking
    let networking = Networking::Tap("vt0".parse().unwrap());
    let vm = FakeVm::start_with(VmSpec { networking, ..spec() }).await;
    assert_eq!(vm.change(forward(0, 80)).await.unwrap_err().kind, ErrorKind::NotSupported);
    vm.change(card("b")).await.unwrap();
    vm.change(card("c")).await.unwrap();
    vm.change(forward(0, 80)).await.unwrap();
    assert_eq!(vm.qemu.model().forwards["tcp:127.0.0.1:40001"].0, "b.net");
    vm.change(card("a")).await.unwrap();
    vm.change(forward(0, 81)).await.unwrap();
    assert_eq!(vm.qemu.model().forwards["tcp:127.0.0.1:40002"].0, "a.net");
    vm.change(take("b")).await.unwrap();
    let left: Vec<u16> = vm.status().await.forwards.iter().map(|published| published.forward.host).collect();
    assert_eq!(left, [40_002]);
    assert_eq!(vm.qemu.model().forwards.len(), 1);
    let seen = events(&vm);
    assert!(seen.contains(&"VMRUN_FORWARD_REMOVED 127.0.0.1:40001:80/tcp".to_owned()), "{seen:?}");
    assert!(seen.contains(&"VMRUN_DEVICE_REMOVED b".to_owned()), "{seen:?}");
    // a card that is on its way out gets none
    vm.qemu.model().guest = Guest::Ignores;
    let wait = Duration::from_secs(1);
    let leaving = Change::Remove { kind: DeviceKind::Nic, id: "a".to_owned(), wait };
    assert_eq!(vm.change(leaving).await, Ok(Done::RemovalPending));
    vm.change(forward(0, 82)).await.unwrap();
    assert_eq!(vm.qemu.model().forwards["tcp:127.0.0.1:40003"].0, "c.net");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_guest_leaves_the_card() {
    let vm = FakeVm::start().await;
    vm.change(card("lan")).await.unwrap();
    vm.qemu.model().guest = Guest::Refuses;
    assert_eq!(
        vm.change(take("lan")).await.unwrap_err().kind,
        ErrorKind::RefusedByGuest { id: "lan".to_owned() }
    );
    assert_eq!(vm.inventory().await, (vec!["lan Present".to_owned()], 1));
    assert_eq!(vm.qemu.model().netdevs.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_cable_is_in_the_inventory_when_qemu_has_pulled_it() {
    let vm = FakeVm::start().await;
    let up = async || vm.status().await.nics().map(|(_, nic)| nic.link_up).collect::<Vec<_>>();
    vm.change(link(None, false)).await.unwrap();
    assert_eq!(up().await, [false]);
    assert!(vm.qemu.model().devices["nic0"].link_down);
    // once more changes nothing, and sends no event
    vm.change(link(None, false)).await.unwrap();
    vm.qemu.fault("set_link", Fault::Refuse("no"));
    vm.change(link(None, true)).await.unwrap_err();
    assert_eq!(up().await, [false]);
    vm.change(card("lan")).await.unwrap();
    let error = vm.change(link(None, true)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument { parameter: Some("nic".to_owned()) });
    assert!(error.message.contains("nic0, lan"), "{error}");
    for id in ["lam", "net0"] {
        let error = vm.change(link(Some(id), true)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSuchThing { id: id.to_owned() });
    }
    vm.change(link(Some("nic0"), true)).await.unwrap();
    // by hand, in the monitor
    vm.change(Change::Hmp("set_link lan off".to_owned())).await.unwrap();
    assert_eq!(up().await, [true, false]);
    let seen = events(&vm);
    let links: Vec<_> = seen.iter().filter(|event| event.starts_with("VMRUN_LINK")).collect();
    assert_eq!(links, ["VMRUN_LINK nic0", "VMRUN_LINK nic0", "VMRUN_LINK lan"]);
    let vm = FakeVm::start_with(VmSpec { networking: Networking::None, ..spec() }).await;
    assert_eq!(vm.change(link(None, true)).await.unwrap_err().kind, ErrorKind::NotSupported);
}

async fn limits(vm: &FakeVm, id: &str) -> Limits {
    let status = vm.status().await;
    match &status.devices.iter().find(|entry| entry.id.as_str() == id).unwrap().kind {
        Kind::Disk(facts) => facts.limits,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn limits_add_up_and_go() {
    let vm = FakeVm::start().await;
    vm.change(disk(vm.file("v.img"), DiskBus::Virtio, Some("v"))).await.unwrap();
    vm.change(disk(vm.file("s.img"), DiskBus::Scsi, Some("s"))).await.unwrap();
    let bytes = Rates { read: Some(1 << 20), ..Rates::default() };
    let by_bytes = |id: &str| {
        let limits = Some(Limits { bytes, ..Limits::default() });
        Change::ThrottleDisk { id: id.to_owned(), limits }
    };
    for (id, drive) in [("v", "/machine/peripheral/v/virtio-backend"), ("s", "s")] {
        // two at once: neither undoes the other
        let both = [vm.begin(throttle(id, 100)), vm.begin(by_bytes(id))];
        for one in both {
            one.await.unwrap().unwrap();
        }
        let wanted = Limits { operations: Rates { total: Some(100), ..Rates::default() }, bytes };
        assert_eq!(limits(&vm, id).await, wanted);
        let sent = vm.qemu.model().limits[drive].clone();
        assert_eq!(
            (&sent["iops"], &sent["bps"], &sent["bps_rd"]),
            (&100.into(), &0.into(), &(1 << 20).into())
        );
        // what QEMU refuses is not booked
        vm.qemu.fault("block_set_io_throttle", Fault::Refuse("no"));
        vm.change(throttle(id, 7)).await.unwrap_err();
        assert_eq!(limits(&vm, id).await, wanted);
        vm.change(Change::ThrottleDisk { id: id.to_owned(), limits: None }).await.unwrap();
        assert_eq!(limits(&vm, id).await, Limits::default());
        assert_eq!(vm.qemu.model().limits[drive]["iops"], 0);
    }
    let error = vm.change(throttle("vv", 1)).await.unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean 'v'?"));
    let error = vm.change(throttle("nic0", 1)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSuchThing { id: "nic0".to_owned() });
    vm.change(remove("v")).await.unwrap();
    assert_eq!(
        vm.change(throttle("v", 1)).await.unwrap_err().kind,
        ErrorKind::NoSuchThing { id: "v".to_owned() }
    );
}
