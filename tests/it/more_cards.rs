//! Network cards from the start besides the one of `--networking`, their networks, and what is booted from.

use serde_json::Value;

use crate::support::boot_sector::{self, Guest};
use crate::support::http;
use crate::support::linux::{Linux, port, text};
use crate::support::orphan::kill_supervisor;
use crate::support::sandbox::{PATIENCE, Sandbox};

fn card(sandbox: &Sandbox, id: &str) -> Value {
    let nics = sandbox.ctl_json(["nic-list"]);
    nics.as_array()
        .unwrap()
        .iter()
        .find(|nic| nic["id"] == id)
        .unwrap_or_else(|| panic!("{id}: {nics}"))
        .clone()
}

/// What QEMU says of a back-end in `info network`.
fn network(sandbox: &Sandbox, netdev: &str) -> String {
    let all = sandbox.ctl(["hmp", "info network"]).ok().stdout;
    all.lines()
        .find(|line| line.contains(&format!("{netdev}: ")))
        .unwrap_or_else(|| panic!("{all}"))
        .to_owned()
}

#[test]
fn each_card_has_a_network_of_its_own_and_forwards() {
    let vm = Linux::boot([
        "--nic",
        "user,model=e1000,dns=10.0.3.9,hostname=outer,id=lan",
        "--nic",
        "user,net=192.168.77.0/24,hostname=inner,restrict=on",
    ]);
    assert_eq!(vm.ids("nic-list"), ["nic0", "lan", "nic1"]);
    for (id, net) in [("nic0", "10.0.2.0/24"), ("lan", "10.0.3.0/24"), ("nic1", "192.168.77.0/24")] {
        assert_eq!(card(&vm.sandbox, id)["net"], net);
        assert_eq!(card(&vm.sandbox, id)["network"], "user");
    }
    assert!(network(&vm.sandbox, "lan.net").contains("net=10.0.3.0"));
    assert!(network(&vm.sandbox, "nic1.net").contains("net=192.168.77.0"));
    assert_eq!(card(&vm.sandbox, "nic1")["restrict"], true);
    // the guest gets its addresses from those networks
    let inner = text(&card(&vm.sandbox, "nic1")["mac"]);
    let of = |mac: &str| {
        vm.run(&format!(
            "cd /sys/class/net; for i in eth*; do read -r a < $i/address; [ $a != {mac} ] || echo $i; done"
        ))
    };
    // which of two drivers is there first decides who is eth1
    let (lan, inner) = (of(&text(&card(&vm.sandbox, "lan")["mac"])), of(&inner));
    for (interface, address) in [(&lan, "10.0.3.15"), (&inner, "192.168.77.15")] {
        vm.run(&format!("ip link set {interface} up; udhcpc -i {interface} -n -q -f -s /bin/true"));
        let leased = vm.run(&format!(
            "printf '#!/bin/sh\\n[ \"$1\" != bound ] || echo $ip $dns $hostname\\n' > /tmp/s; chmod +x /tmp/s; \
             udhcpc -i {interface} -n -q -f -O hostname -s /tmp/s 2>/dev/null"
        ));
        // a restricted guest gets no name server
        let rest = if *interface == inner { "inner" } else { "10.0.3.9 outer" };
        assert_eq!(leased, format!("{address} {rest}"));
        vm.run(&format!("ip addr replace {address}/24 dev {interface}"));
    }
    // forwards work on each
    for nic in ["nic0", "lan", "nic1"] {
        let host: u16 = vm.ctl(["port-add", "0:80", "--nic", nic]).parse().unwrap();
        let answer = http::send(host, "GET", "/", "").unwrap().answer(PATIENCE).unwrap();
        assert!(answer.contains("vmrun guest"), "{nic}");
    }
    // a plugged one finds the next, and overlapping is refused before anything changes
    vm.ctl(["nic-add", "user,id=hot"]);
    assert_eq!(card(&vm.sandbox, "hot")["net"], "10.0.4.0/24");
    assert!(network(&vm.sandbox, "hot.net").contains("net=10.0.4.0"));
    let used = vm.status()["slots_used"].clone();
    let words = ["net=10.0.0.0/16 overlaps 10.0.2.0/24, the network of card 'nic0'", "hint: "];
    vm.try_ctl(["nic-add", "user,net=10.0.0.0/16"]).fails(4, &words);
    assert_eq!(vm.status()["slots_used"], used);
    assert_eq!(vm.ids("nic-list").len(), 4);
    vm.try_ctl(["nic-remove", "lan"]).fails(4, &["'lan' is built into the machine"]);
    vm.quit();
}

#[test]
fn cards_stay_the_same_through_takeover_save_and_a_new_start() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let image = image.to_str().unwrap();
    let start = [
        "--name",
        "vm",
        "--nic",
        "user,restrict=on",
        "--nic",
        "user,net=10.9.0.0/16,model=e1000e,id=b",
        image,
    ];
    sandbox.detached(start);
    sandbox.booted("vm");
    sandbox.ctl(["nic-add", "user,net=10.8.0.0/16,hostname=x,id=hot"]).ok();
    let seen = || {
        let mut nics = sandbox.ctl_json(["nic-list"]);
        nics.as_array_mut().unwrap().iter_mut().for_each(|nic| {
            nic.as_object_mut().unwrap().remove("taken");
        });
        let qemu = ["net0", "nic1.net", "b.net", "hot.net"].map(|netdev| network(&sandbox, netdev));
        (nics, qemu.map(|line| line.split_once("type=").unwrap().1.to_owned()))
    };
    let before = seen();
    kill_supervisor(&sandbox);
    assert_eq!(seen(), before);
    sandbox.ctl(["save", "vm.saved"]).ok();
    sandbox
        .run(["qemu", "--restore", "vm.saved", "--networking", "user,net=10.8.0.0/16"])
        .fails(2, &["overlaps", "'hot'"]);
    sandbox.run(["qemu", "--restore", "vm.saved", "--nic", "user,id=none"]).fails(2, &["has no such card"]);
    sandbox.detached(["--restore", "vm.saved"]);
    assert_eq!(seen(), before);
    sandbox.ctl(["shutdown", "--force"]).ok();
    // the addresses are the state directory's
    sandbox.detached(start);
    for (id, before) in [("nic0", &before.0[0]), ("b", &before.0[1]), ("nic1", &before.0[3])] {
        assert_eq!((&before["id"], &before["mac"]), (&id.into(), &card(&sandbox, id)["mac"]));
    }
    sandbox.ctl(["shutdown", "--force"]).ok();
    for (arguments, why) in [
        (&["--nic", "user,net=10.0.2.0/25", "--networking", "user,net=10.0.2.0/24"][..], "overlaps"),
        (&["--nic", "user,id=disk0"], "'disk0' is given twice"),
        (&["--nic", "none"], "needs a network"),
        (&["--networking", "none", "--publish", "0:22"], "can only be published with user networking"),
    ] {
        sandbox.run([&["qemu", "--detached", image], arguments].concat()).fails(2, &[why]);
    }
    // what is published leads to the first card with user networking
    sandbox.detached(["--networking", "none", "--nic", "user,id=only", "--publish", "0:22", image]);
    let forwards = sandbox.ctl_json(["port-list"]);
    assert_eq!(forwards[0]["nic"], "only");
    assert!(port(&forwards[0]) > 0);
    sandbox.ctl(["shutdown", "--force"]).ok();
}

/// The network is tried before a disk that boots, on the console.
#[test]
fn the_boot_order_is_what_was_said() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let image = image.to_str().unwrap();
    sandbox.detached(["--boot", "net,disk", image]);
    sandbox.ctl(["wait", "console=iPXE", "--timeout", "100s"]).ok();
    // there is no boot server, so the disk is next
    sandbox.ctl(["wait", &format!("console={}", Guest::ReactsToButton.greeting()), "--timeout", "180s"]).ok();
    sandbox.ctl(["shutdown", "--force"]).ok();

    let other = sandbox.file("other.img");
    boot_sector::write(Guest::EchoesConsole, &other);
    for (arguments, why) in [
        (&["--boot", "net", "--networking", "none"][..], "no network card to boot from"),
        (&["--boot", "cdrom"], "no CD to boot from"),
        (&["--boot", "net,disk", "--disk", "other.img,boot=1"], "use one of them"),
        (&["--boot", "floppy"], "unknown boot device"),
    ] {
        sandbox.run([&["qemu", "--detached", image], arguments].concat()).fails(2, &[why]);
    }
    let kernel = crate::support::sandbox::linux_guest();
    let kernel =
        sandbox.run(["qemu", "--detached", "--state", "state", "--boot", "net", kernel.to_str().unwrap()]);
    kernel.fails(2, &["QEMU loads a kernel"]);
}
