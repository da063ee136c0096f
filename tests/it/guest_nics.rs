//! Network cards that come and go while the guest runs, and their cables, seen from inside.

use std::process::Command;

use serde_json::Value;

use crate::support::http;
use crate::support::linux::{Linux, port, text};
use crate::support::sandbox::PATIENCE;

fn card(vm: &Linux, id: &str) -> Value {
    vm.list("nic-list").into_iter().find(|nic| nic["id"] == id).unwrap_or_else(|| panic!("no card {id}"))
}

/// The guest's name of the card with this address.
fn interface(vm: &Linux, mac: &str) -> String {
    vm.run(&format!(
        "cd /sys/class/net; for i in eth*; do read -r a < $i/address; [ $a != {mac} ] || echo $i; done"
    ))
}

fn carrier(vm: &Linux, interface: &str) -> String {
    vm.run(&format!("cat /sys/class/net/{interface}/carrier"))
}

#[test]
fn cards_come_and_go_with_their_forwards() {
    let vm = Linux::boot::<&str>([]);
    let first = vm.ctl(["port-add", "0:80"]);
    assert_eq!(vm.ctl(["nic-add", "user,mac=52:54:00:00:00:07,id=lan"]), "lan");
    vm.sees("add net eth1");
    assert_eq!(interface(&vm, "52:54:00:00:00:07"), "eth1");
    let lan = card(&vm, "lan");
    assert_eq!(
        (&lan["slot"], &lan["network"], &lan["link_up"]),
        (&"slot1".into(), &"user".into(), &true.into())
    );
    assert_eq!(vm.status()["slots_used"], 1);
    // forwards are made to the first card, as ever
    let second: u16 = vm.ctl(["port-add", "0:80"]).parse().unwrap();
    assert!(http::send(second, "GET", "/", "").unwrap().answer(PATIENCE).unwrap().contains("vmrun guest"));
    assert!(!vm.ctl(["hmp", "info", "usernet"]).split("(lan.net)").nth(1).unwrap().contains("HOST_FORWARD"));
    // a forward that was made by hand is removed with its card, and subscribers get the event
    let by_hand = vm.ctl(["hmp", "hostfwd_add", "lan.net", "tcp:127.0.0.1:0-:81"]);
    assert_eq!(by_hand, "");
    assert_eq!(vm.list("port-list").len(), 4);
    vm.ctl(["nic-remove", "lan"]);
    vm.sees("remove net eth1");
    assert_eq!(vm.ids("nic-list"), ["nic0"]);
    assert_eq!(vm.status()["slots_used"], 0);
    let left: Vec<u16> = vm.list("port-list").iter().map(port).collect();
    assert!(left.len() == 3 && left.contains(&first.parse().unwrap()), "{left:?}");
    assert!(!vm.ctl(["hmp", "info", "network"]).contains("lan.net"));

    // the guest's drivers of other cards
    for (model, id) in [("e1000", "7"), ("e1000e", "8"), ("rtl8139", "9"), ("vmxnet3", "10")] {
        let id = vm.ctl(["nic-add", &format!("user,model={model},id=card{id}")]);
        vm.sees("add net eth1");
        assert_eq!(card(&vm, &id)["driver"], model);
        assert_eq!(interface(&vm, &text(&card(&vm, &id)["mac"])), "eth1", "{model}");
        vm.ctl(["nic-remove", &id]);
        vm.sees("remove net eth1");
    }
    // an address stays with its id
    let mac = |vm: &Linux| text(&card(vm, "card7")["mac"]);
    vm.ctl(["nic-add", "user,id=card7"]);
    let before = mac(&vm);
    vm.ctl(["nic-remove", "card7"]);
    vm.ctl(["nic-add", "user,id=card7"]);
    assert_eq!(mac(&vm), before);
    vm.try_ctl(["nic-remove", "nic0"]).fails(4, &["'nic0' is built into the machine"]);
    assert_eq!(vm.run("echo still here"), "still here");
    vm.quit();
}

#[test]
fn cables_are_pulled_and_plugged() {
    let vm = Linux::boot::<&str>([]);
    // through the agent: the web server is behind the cable
    let carrier_of_nic0 = |vm: &Linux| vm.ctl(["exec", "cat", "/sys/class/net/eth0/carrier"]);
    vm.ctl(["wait", "agent", "--timeout", "2m"]);
    assert_eq!(carrier_of_nic0(&vm), "1");
    assert_eq!(vm.ctl(["link", "down"]), "nic0 is down");
    vm.until("the carrier is gone", |vm| carrier_of_nic0(vm) == "0");
    assert_eq!(card(&vm, "nic0")["link_up"], false);
    assert!(vm.ctl(["nic-list"]).contains(" down "));
    assert_eq!(vm.ctl(["link", "up", "nic0"]), "nic0 is up");
    vm.until("the carrier is back", |vm| carrier_of_nic0(vm) == "1");
    vm.ctl(["nic-add", "user,id=lan"]);
    vm.sees("add net eth1");
    vm.try_ctl(["link", "down"]).fails(2, &["several network cards: nic0, lan", "hint: say which"]);
    vm.try_ctl(["link", "down", "lam"]).fails(4, &["no network card 'lam'", "did you mean 'lan'?"]);
    vm.ctl(["link", "down", "lan"]);
    vm.until("only its own carrier is gone", |vm| carrier(vm, "eth1") == "0" && carrier(vm, "eth0") == "1");
    // by hand, too: the inventory follows
    vm.ctl(["hmp", "set_link", "lan", "on"]);
    assert_eq!(card(&vm, "lan")["link_up"], true);
    vm.until("the carrier is back", |vm| carrier(vm, "eth1") == "1");
    vm.quit();
}

/// A tap device of a name of its own; gone when this is dropped.
struct Tap(String);

impl Tap {
    fn make() -> Self {
        let name = format!("vt{}", std::process::id());
        let made = Command::new("ip").args(["tuntap", "add", "dev", &name, "mode", "tap"]).output();
        assert!(made.is_ok_and(|made| made.status.success()), "this user may not make tap devices");
        Self(name)
    }

    fn ip(&self, arguments: &[&str]) {
        let done = Command::new("ip").args(arguments).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {done:?}");
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.0]).output();
    }
}

#[test]
#[cfg_attr(lacks = "tap", ignore = "needs tap")]
fn a_card_on_a_tap_device_talks_to_the_host() {
    let tap = Tap::make();
    tap.ip(&["addr", "add", "198.51.100.1/24", "dev", &tap.0]);
    tap.ip(&["link", "set", &tap.0, "up"]);
    let vm = Linux::boot::<&str>([]);
    vm.ctl(["nic-add", &format!("tap,{},id=lan", tap.0)]);
    vm.sees("add net eth1");
    // QEMU is still in its sandbox: it was given the open device
    assert_eq!(vm.status()["sandbox"], true);
    vm.run("ip addr add 198.51.100.2/24 dev eth1; ip link set eth1 up; ping -c 1 -W 20 198.51.100.1");
    let lan = card(&vm, "lan");
    assert_eq!(
        (&lan["network"], &lan["interface"]),
        (&format!("tap,{}", tap.0).into(), &tap.0.as_str().into())
    );
    let stats = vm.sandbox.ctl_json(["stats"]);
    let counted = stats["nics"].as_array().unwrap().iter().find(|nic| nic["id"] == "lan").unwrap();
    assert_eq!(counted["source"], "host");
    // at least the question and the answer of the ping, as the guest sees them
    assert!(
        counted["tx_packets"].as_u64().unwrap() >= 1 && counted["rx_packets"].as_u64().unwrap() >= 1,
        "{counted}"
    );
    // no other client gets it meanwhile, and nothing of the attempt stays
    vm.try_ctl(["nic-add", &format!("tap,{},id=twice", tap.0)])
        .fails(1, &[&tap.0, "in use by another process"]);
    assert_eq!(vm.status()["slots_used"], 1);
    vm.ctl(["nic-remove", "lan"]);
    vm.sees("remove net eth1");
    // it is free again
    vm.ctl(["nic-add", &format!("tap,{},id=again", tap.0)]);
    vm.quit();
}
