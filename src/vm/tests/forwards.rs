//! Forwards, whose QMP reply is a success either way.

use std::time::Duration;

use std::net::{Ipv4Addr, TcpListener};

use crate::spec::{Forward, Networking, Protocol, VmSpec};
use crate::vm::{Change, Done, ErrorKind, ForwardPattern, Published};

use super::fake_qemu::Fault;
use super::fake_vm::{FakeVm, forward, spec};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn end(host: u16) -> Change {
    Change::RemoveForward(ForwardPattern { host, guest: None, address: None, protocol: None })
}

#[tokio::test(start_paused = true)]
async fn port_0_answers_the_port_that_was_got() {
    let vm = FakeVm::start().await;
    for port in [40_001, 40_002] {
        let wanted = Forward { address: Ipv4Addr::LOCALHOST, host: port, guest: 80, protocol: Protocol::Tcp };
        assert_eq!(
            vm.change(forward(0, 80)).await,
            Ok(Done::Forward(Published { forward: wanted, nic: Some("nic0".to_owned()) }))
        );
    }
    assert_eq!(vm.status().await.forwards.len(), 2);
    vm.change(end(40_001)).await.unwrap();
    assert_eq!(vm.status().await.forwards.len(), 1);
    assert_eq!(vm.qemu.model().forwards.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn several_at_once_each_get_their_own_port() {
    let vm = FakeVm::start().await;
    let adds: Vec<_> = (0..8).map(|_| vm.begin(forward(0, 80))).collect();
    let mut ports = std::collections::BTreeSet::new();
    for add in adds {
        let Ok(Done::Forward(forward)) = add.await.unwrap() else { panic!() };
        ports.insert(forward.forward.host);
    }
    assert_eq!(ports.len(), 8);
}

#[tokio::test(start_paused = true)]
async fn qemus_words_are_the_error() {
    let vm = FakeVm::start().await;
    for port in [0, free_port()] {
        vm.qemu.fault("human-monitor-command", Fault::Say("unrecognized netdev id 'net0'\r\n"));
        if port == 0 {
            // the first look; the add itself is next
            vm.qemu
                .fault("human-monitor-command", Fault::Say("Could not set up host forwarding rule 'x'\r\n"));
        }
        let error = vm.change(forward(port, 80)).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::RefusedByQemu { .. }), "{error:?}");
        assert!(vm.status().await.forwards.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_is_given_once() {
    let vm = FakeVm::start().await;
    let port = free_port();
    vm.qemu.freeze(true);
    let first = vm.begin(forward(port, 80));
    while vm.status().await.forwards.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let error = vm.change(forward(port, 81)).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::AlreadyThere { .. }), "{error:?}");
    vm.qemu.freeze(false);
    first.await.unwrap().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = vm.change(forward(taken.local_addr().unwrap().port(), 80)).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::AlreadyThere { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_forward_that_qemu_does_not_have_is_struck_off() {
    let vm = FakeVm::start().await;
    vm.change(forward(0, 80)).await.unwrap();
    vm.qemu.model().forwards.clear();
    let error = vm.change(end(40_001)).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NoSuchThing { .. }), "{error:?}");
    assert!(vm.status().await.forwards.is_empty());
    let error = vm.change(end(40_001)).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NoSuchThing { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn without_user_networking_there_are_none() {
    let vm = FakeVm::start_with(VmSpec { networking: Networking::None, ..spec() }).await;
    for change in [forward(0, 80), end(1)] {
        assert_eq!(vm.change(change).await.unwrap_err().kind, ErrorKind::NotSupported);
    }
    assert!(vm.qemu.seen().is_empty());
}
