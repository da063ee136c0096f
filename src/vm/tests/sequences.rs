//! Random changes with random failures: the inventory always equals what QEMU has.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use crate::qemu::query_block::limits_of;
use crate::spec::DiskBus;
use crate::vm::state::inventory::{Kind, Phase};
use crate::vm::{Change, ErrorKind, ForwardPattern, RunState, Status};

use super::fake_qemu::{Fault, Guest, Model};
use super::fake_vm::{FakeVm, card, device, disk, forward, keyboard, link, remove, throttle};

#[derive(Debug, Clone)]
enum Move {
    Disk(u8, DiskBus),
    Keyboard(u8),
    Device(u8),
    Remove(u8),
    Forward,
    RemoveForward(u8),
    PauseOrResume(bool),
    Reset,
    Guest(u8),
    Card(u8),
    Link(u8, bool),
    Throttle(u8),
    /// The next command of this name fails.
    Fail(u8),
    /// Wait for so many milliseconds.
    Completion(u16),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let bus =
        prop_oneof![Just(DiskBus::Virtio), Just(DiskBus::Scsi), Just(DiskBus::Usb), Just(DiskBus::Nvme)];
    let one = prop_oneof![
        4 => (0u8..4, bus).prop_map(|(number, bus)| Move::Disk(number, bus)),
        3 => (0u8..4).prop_map(Move::Keyboard),
        3 => (0u8..4).prop_map(Move::Device),
        3 => (0u8..3).prop_map(Move::Card),
        1 => (0u8..3, any::<bool>()).prop_map(|(number, up)| Move::Link(number, up)),
        1 => (0u8..4).prop_map(Move::Throttle),
        6 => (0u8..17).prop_map(Move::Remove),
        2 => Just(Move::Forward),
        1 => (1u8..6).prop_map(Move::RemoveForward),
        1 => any::<bool>().prop_map(Move::PauseOrResume),
        1 => Just(Move::Reset),
        3 => (0u8..3).prop_map(Move::Guest),
        2 => (0u8..9).prop_map(Move::Fail),
        3 => (0u16..3000).prop_map(Move::Completion),
    ];
    prop::collection::vec(one, 1..40)
}

/// Ids that the moves use: of disks, keyboards, devices, the two controllers, network cards.
fn id(number: u8) -> String {
    match number {
        0..4 => format!("d{number}"),
        4..8 => format!("k{}", number - 4),
        8..12 => format!("e{}", number - 8),
        12 => "vmrun-usb".to_owned(),
        14.. => format!("n{}", number - 14),
        13 => "vmrun-scsi".to_owned(),
    }
}

async fn play(vm: &FakeVm, moves: Vec<Move>) {
    let mut waiting = Vec::new();
    for one in moves {
        let change = match one {
            Move::Disk(number, bus) => disk(vm.file(&format!("{number}.img")), bus, Some(&id(number))),
            Move::Keyboard(number) => keyboard(Some(&id(number + 4))),
            Move::Device(number) => device("edu", &id(number + 8)),
            Move::Remove(number) => remove(&id(number)),
            Move::Card(number) => card(&id(number + 14)),
            Move::Link(number, up) => link(Some(&id(number + 14)), up),
            Move::Throttle(number) => throttle(&id(number), 100),
            Move::Forward => forward(0, 80),
            Move::RemoveForward(number) => {
                let host = 40_000 + u16::from(number);
                Change::RemoveForward(ForwardPattern { host, guest: None, address: None, protocol: None })
            }
            Move::PauseOrResume(true) => Change::Pause,
            Move::PauseOrResume(false) => Change::Resume,
            Move::Reset => Change::Reset,
            Move::Guest(number) => {
                let guest = [Guest::Obeys, Guest::Refuses, Guest::Ignores][usize::from(number)];
                vm.qemu.model().guest = guest;
                continue;
            }
            Move::Fail(number) => {
                let commands = [
                    "blockdev-add",
                    "device_add",
                    "device_del",
                    "qom-list-types",
                    "system_reset",
                    "netdev_add",
                    "set_link",
                    "query-block",
                    "block_set_io_throttle",
                ];
                vm.qemu.fault(commands[usize::from(number)], Fault::Refuse("planned"));
                continue;
            }
            Move::Completion(milliseconds) => {
                tokio::time::sleep(Duration::from_millis(milliseconds.into())).await;
                continue;
            }
        };
        waiting.push(vm.begin(change));
    }
    for answer in waiting {
        // every request is answered, and none with the error that a running VM has ended
        if let Err(error) = answer.await.unwrap() {
            assert_ne!(error.kind, ErrorKind::NotRunning, "{error}");
        }
    }
}

pub(super) fn compare(status: &Status, model: &Model) {
    let inventory: BTreeSet<&str> = status.devices.iter().map(|entry| entry.id.as_str()).collect();
    let held: BTreeSet<&str> = model.devices.keys().map(String::as_str).collect();
    assert_eq!(inventory, held);
    assert!(status.devices.iter().all(|entry| entry.phase != Phase::Adding));
    let slots: BTreeSet<(&str, &str)> =
        status.slots.iter().filter_map(|(slot, device)| Some((slot.as_str(), device.as_deref()?))).collect();
    let plugged: BTreeSet<(&str, &str)> = model
        .devices
        .iter()
        .filter(|(_, device)| device.bus.starts_with("slot"))
        .map(|(id, device)| (device.bus.as_str(), id.as_str()))
        .collect();
    assert_eq!(slots, plugged);
    assert_eq!(status.slots_used, plugged.len());
    let drives = model.devices.values().filter_map(|device| device.drive.clone());
    let nodes: BTreeSet<String> = drives.flat_map(|drive| [format!("{drive}.file"), drive]).collect();
    assert_eq!(nodes, model.nodes.keys().cloned().collect());
    let netdevs: BTreeSet<&str> = status.nics().map(|(_, nic)| nic.netdev.as_str()).collect();
    assert_eq!(netdevs, model.netdevs.keys().map(String::as_str).collect());
    for (entry, nic) in status.nics() {
        assert_eq!(nic.link_up, !model.devices[entry.id.as_str()].link_down, "{entry:?}");
    }
    for entry in &status.devices {
        if let Kind::Disk(facts) = &entry.kind {
            let held = limits_of(&model.drive(entry.id.as_str()));
            assert_eq!(facts.limits, held, "{entry:?}");
            assert_eq!(facts.node, model.devices[entry.id.as_str()].drive, "{entry:?}");
        }
    }
    assert_eq!(status.run_state == RunState::Running, model.running, "{:?}", status.run_state);
    assert!(model.kept.descriptors.is_empty(), "{:?}", model.kept.descriptors);
    let forwards: BTreeSet<String> = status
        .forwards
        .iter()
        .map(|published| published.forward)
        .map(|f| format!("{}:{}:{}", f.protocol, f.address, f.host))
        .collect();
    assert_eq!(forwards, model.forwards.keys().cloned().collect());
}

fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_inventory_equals_what_qemu_holds(moves in moves()) {
        run(async {
            let vm = FakeVm::start().await;
            let planned = moves.iter().any(|one| matches!(one, Move::Fail(_)));
            play(&vm, moves).await;
            // abandoned commands, such as the closing of an image
            tokio::time::sleep(Duration::from_secs(60)).await;
            compare(&vm.status().await, &vm.qemu.model());
            let model = vm.qemu.model();
            // after a planned failure, what was sent with it fails too
            // and a card that was asked to go may go before its cable is pulled
            let raced = |why: &&String| {
                why.contains("in the process of unplug") || why.contains("set_link") && why.ends_with("not found")
            };
            let surprises = model.refused.iter().filter(|why| !planned && !raced(why));
            let surprises: Vec<_> = surprises.collect();
            assert!(surprises.is_empty(), "{surprises:#?}");
        });
    }

    #[test]
    fn every_request_is_answered_when_qemu_dies(moves in moves(), dies in 0u8..5) {
        run(async {
            let vm = FakeVm::start().await;
            let commands = ["blockdev-add", "device_add", "device_del", "blockdev-del", "human-monitor-command"];
            vm.qemu.fault(commands[usize::from(dies)], Fault::HangUpAfter);
            let mut waiting = Vec::new();
            for number in 0..4 {
                waiting.push(vm.begin(disk(vm.file(&format!("{number}.img")), DiskBus::Scsi, None)));
                waiting.push(vm.begin(forward(0, 80)));
                waiting.push(vm.begin(remove(&id(number))));
            }
            let extra = moves.len();
            waiting.extend((0..extra).map(|_| vm.begin(keyboard(None))));
            tokio::time::sleep(Duration::from_millis(u64::from(dies))).await;
            vm.exits(1).await;
            for answer in waiting {
                let _ = tokio::time::timeout(Duration::from_secs(1), answer).await.expect("an answer");
            }
        });
    }
}
