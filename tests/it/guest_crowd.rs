//! Ten clients at once: afterwards QEMU, the inventory and the guest agree, and no command to QEMU has failed.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::linux::{Linux, port, text};
use crate::support::sandbox::Sandbox;

const CLIENTS: usize = 10;
/// Of one client: each adds and removes a USB device and a forward.
const ROUNDS: usize = 10;

/// One client's life. It leaves one device and one forward, for the comparison.
fn client(sandbox: &Sandbox, number: usize) -> (String, String) {
    let driver = ["usb-kbd", "usb-mouse", "usb-tablet"][number % 3];
    let ctl = |arguments: &[&str]| sandbox.ctl(arguments).line();
    for _ in 0..ROUNDS {
        let device = ctl(&["usb-add", driver]);
        let host = ctl(&["port-add", "0:80"]);
        ctl(&["port-remove", &host]);
        ctl(&["usb-remove", &device]);
    }
    (ctl(&["usb-add", driver, "--id", &format!("last{number}")]), ctl(&["port-add", "0:80"]))
}

#[test]
fn ten_clients_at_once_leave_everything_in_agreement() {
    let vm = Linux::boot(["--qmp-log", "qmp.log"]);
    let (devices, ports): (BTreeSet<String>, BTreeSet<String>) = std::thread::scope(|scope| {
        let sandbox = &vm.sandbox;
        let clients: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || client(sandbox, number))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).unzip()
    });
    assert_eq!((devices.len(), ports.len()), (CLIENTS, CLIENTS));

    let status = vm.status();
    let ids =
        |list: &Value| list.as_array().unwrap().iter().map(|item| text(&item["id"])).collect::<BTreeSet<_>>();
    assert_eq!(ids(&status["usb"]), devices);
    assert_eq!(ids(&status["devices"]), ["vmrun-usb".to_owned()].into());
    assert_eq!(status["slots_used"], 1);
    let known: Vec<String> = vm.list("port-list").iter().map(|forward| port(forward).to_string()).collect();
    assert_eq!(known.len(), CLIENTS + 1, "and the one from the start");
    assert!(ports.iter().all(|port| known.contains(port)));

    // QEMU's own lists
    let query = r#"{"execute": "qom-list", "arguments": {"path": "/machine/peripheral"}}"#;
    let peripherals: Value = serde_json::from_str(&vm.ctl(["qmp", query])).unwrap();
    let of_kind = |kind: &str| {
        let all = peripherals.as_array().unwrap().iter();
        let kind = format!("child<{kind}");
        all.filter(|item| text(&item["type"]).starts_with(&kind))
            .map(|item| text(&item["name"]))
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(of_kind("usb-"), devices);
    assert_eq!(of_kind("qemu-xhci").len(), 1);
    let usernet = vm.ctl(["hmp", "info", "usernet"]);
    let forwards: BTreeSet<&str> = usernet
        .lines()
        .filter(|line| line.contains("HOST_FORWARD"))
        .map(|line| line.split_whitespace().nth(3).unwrap())
        .collect();
    assert_eq!(forwards, known.iter().map(String::as_str).collect());

    // and the guest's
    vm.until("the guest has all of them", |vm| {
        vm.sh("cat /sys/bus/usb/devices/*/product | grep -Ec 'Keyboard|Mouse|Tablet'").1
            == CLIENTS.to_string()
    });

    let log = std::fs::read_to_string(vm.file("qmp.log")).unwrap();
    let messages = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    // not of QEMU: the guest agent's answer to the byte that begins `guest-sync-delimited`
    let is_agents =
        |error: &Value| error["desc"].as_str().is_some_and(|desc| desc.contains("stray '\u{fffd}'"));
    let errors: Vec<Value> =
        messages.filter(|line| line["msg"].get("error").is_some_and(|error| !is_agents(error))).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    vm.quit();
}
