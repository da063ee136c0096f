//! Clients with raw commands of their own, many at once: vmrun's own queries wait for none of them.

use serde_json::Value;

use crate::qemu::Command;
use crate::vm::Change;

use super::fake_vm::{FakeVm, spec};

/// How many clients at once.
const CROWD: usize = 100;
/// What the clients send; vmrun itself never does.
const RAW: &str = "query-name";

/// Waits until every client's request has gone as far as it can: QEMU stands still.
async fn until_all_wait(vm: &FakeVm) {
    for _ in 0..CROWD * 10 {
        tokio::task::yield_now().await;
    }
    assert!(vm.qemu.is_frozen());
}

/// How many raw commands QEMU saw before it saw `own`.
async fn raw_ones_before(vm: &FakeVm, own: &str) -> usize {
    vm.sees(own).await;
    let seen = vm.qemu.seen();
    seen.iter().take_while(|name| *name != own).filter(|name| *name == RAW).count()
}

#[tokio::test(start_paused = true)]
async fn a_query_of_status_passes_a_crowd_of_raw_clients() {
    let mut extra = spec();
    extra.extra = vec!["-rtc".into(), "base=utc".into()];
    for through_changes in [false, true] {
        let vm = FakeVm::start_with(extra.clone()).await;
        let status = vm.handle.status().await.unwrap();
        vm.qemu.freeze(true);
        let clients: Vec<_> = (0..CROWD)
            .map(|_| {
                let handle = vm.handle.clone();
                tokio::spawn(async move {
                    let command = Command::new(RAW, Value::Null);
                    match through_changes {
                        true => handle.change(Change::Qmp(command)).await.map(drop),
                        false => handle.client_qmp(command).await.map(drop).map_err(Into::into),
                    }
                })
            })
            .collect();
        until_all_wait(&vm).await;
        let handle = vm.handle.clone();
        let own = tokio::spawn(async move { handle.present(&status).await });
        until_all_wait(&vm).await;
        vm.qemu.freeze(false);
        let before = raw_ones_before(&vm, "query-memory-size-summary").await;
        assert!(before <= 2, "{before} commands of clients came first");
        own.await.unwrap().unwrap();
        for client in clients {
            client.await.unwrap().unwrap();
        }
    }
}

/// What was sent stays with QEMU: a client that gives up makes no room for the next one.
#[tokio::test(start_paused = true)]
async fn raw_clients_that_leave_do_not_pile_up_their_commands() {
    let vm = FakeVm::start().await;
    vm.qemu.freeze(true);
    for _ in 0..CROWD {
        let client = vm.begin(Change::Qmp(Command::new(RAW, Value::Null)));
        until_all_wait(&vm).await;
        client.abort();
    }
    let handle = vm.handle.clone();
    let own = tokio::spawn(async move { handle.qmp(Command::new("query-balloon", Value::Null)).await });
    until_all_wait(&vm).await;
    vm.qemu.freeze(false);
    let before = raw_ones_before(&vm, "query-balloon").await;
    assert!(before <= 2, "{before} commands of clients that are gone came first");
    own.await.unwrap().unwrap();
}
