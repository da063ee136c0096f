//! Network cards, cables, limits and counters that make no sense.

use serde_json::json;

use super::Bad;
use crate::support::varlink::Raw;

#[test]
fn cards_that_cannot_be_plugged_or_removed() {
    let bad = Bad::running();
    let mac = bad.sandbox.ctl_json(["nic-list"])[0]["mac"].as_str().unwrap().to_owned();
    let taken = format!("user,mac={mac}");
    for (arguments, code, words) in [
        (&["nic-add", ""][..], 2, &["unknown networking mode"][..]),
        (&["nic-add", "none"], 2, &["needs a network"]),
        (&["nic-add", "tap"], 2, &["tap networking needs a name"]),
        (&["nic-add", "usre"], 2, &["did you mean 'user'?"]),
        (&["nic-add", "user,mac=52:54"], 2, &["'52:54' is not a MAC address"]),
        (&["nic-add", "user,mac=ff:ff:ff:ff:ff:ff"], 2, &["multicast"]),
        (&["nic-add", "user,model=e100"], 2, &["did you mean 'e1000'?"]),
        (&["nic-add", "user,bus=slot1"], 2, &["unknown option 'bus'"]),
        (&["nic-add", "user,id=a,id=b"], 2, &["'id' is given twice"]),
        (&["nic-add", "user,id=nic1.net"], 2, &["'nic1.net' ends in '.net'"]),
        (&["nic-add", "tap,a/b"], 2, &["'a/b' is not a network interface's name"]),
        (&["nic-add", &taken], 4, &["is in use already, by 'nic0'"]),
        (&["nic-add", "user,id=disk0"], 4, &["'disk0' is taken"]),
        (&["nic-add", "user,id=nic0"], 4, &["'nic0' is taken"]),
        (
            &["nic-add", "tap,no-such"],
            1,
            &["no network interface 'no-such'", "hint: ", "ip tuntap add dev no-such"],
        ),
        (&["nic-add", "tap,lo"], 1, &["'lo' is no tap device"]),
        (&["nic-add", "bridge,lo"], 1, &["'lo' is no bridge"]),
        (&["nic-remove", "none"], 4, &["no network card 'none'", "hint: it has nic0"]),
        (&["nic-remove", "nic1"], 4, &["no network card 'nic1'", "did you mean 'nic0'?"]),
        (&["nic-remove", "disk0"], 4, &["no network card 'disk0'"]),
        (&["nic-remove", "nic0"], 4, &["'nic0' is built into the machine", "hint: "]),
        (&["disk-remove", "nic0"], 4, &["no disk 'nic0'"]),
        (&["link", "left"], 2, &["left"]),
        (&["link", "down", "none"], 4, &["no network card 'none'"]),
        (&["link", "down", "net0"], 4, &["no network card 'net0'"]),
        (&["link", "down", "disk0"], 4, &["no network card 'disk0'"]),
        (&["stats", "--watch", "99ms"], 2, &["100 ms"]),
        (&["stats", "--watch", "0"], 2, &["must be more than 0"]),
    ] {
        bad.ctl(arguments, code, words);
    }
    let status = bad.sandbox.ctl_json(["status"]);
    assert_eq!(
        (&status["slots_used"], status["nics"].as_array().unwrap().len()),
        (&json!(0), 1),
        "{status:#}"
    );
    let network = bad.sandbox.ctl(["hmp", "info", "network"]).line();
    assert_eq!(network.lines().count(), 2, "{network}");
}

#[test]
fn a_device_without_a_free_slot_under_any_of_its_names() {
    let bad = Bad::new();
    bad.sandbox.detached(["--hotplug-slots", "1", "guest.img"]);
    // nothing goes into the machine's own bus while it runs, and that is said before QEMU is asked
    let root_bus = &["QEMU plugs nothing into 'pcie.0'", "hint: ", "--hotplug-slots"];
    bad.ctl(&["device-add", "virtio-rng-pci,bus=pcie.0"], 4, root_bus);
    bad.ctl(&["device-add", "pcie-root-port,bus=pcie.0"], 4, root_bus);
    // QEMU's short name is as good as the full one
    let id = bad.sandbox.ctl(["device-add", "virtio-rng,max-bytes=1024"]).line();
    let tree = bad.sandbox.ctl(["hmp", "info", "qtree"]).line();
    assert!(tree.contains(&format!("dev: virtio-rng-pci, id \"{id}\"")), "{tree}");
    let device = &bad.sandbox.ctl_json(["status"])["devices"][0];
    assert_eq!((&device["driver"], &device["slot"]), (&json!("virtio-rng-pci"), &json!("slot1")));
    for driver in ["virtio-rng", "virtio-rng-pci", "virtio-net", "virtio-scsi", "e1000", "qemu-xhci"] {
        bad.ctl(&["device-add", driver], 4, &["all 1 hot-plug slots are in use", "--hotplug-slots N"]);
    }
}

#[test]
fn a_machine_without_a_network_or_pci() {
    let bad = Bad::new();
    bad.sandbox.detached(["--networking", "none", "guest.img"]);
    bad.ctl(&["link", "up"], 4, &["no network card", "hint: `nic-add user`"]);
    assert_eq!(bad.sandbox.ctl_json(["nic-list"]), json!([]));
    bad.ctl(&["port-add", "0:80"], 4, &["no port forwards", "hint: ", "nic-add user"]);
    // the hint is true
    bad.sandbox.ctl(["nic-add", "user"]).ok();
    bad.sandbox.ctl(["port-add", "0:80"]).ok();
    bad.sandbox.ctl(["shutdown", "--force"]);
    bad.sandbox.detached(["--machine", "microvm", "guest.img"]);
    bad.ctl(&["nic-add", "user,model=e1000"], 4, &["microvm", "virtio network cards only"]);
    bad.ctl(&["nic-add", "user"], 4, &["cannot take devices while it runs"]);
}

#[test]
fn limits_that_cannot_be_set() {
    let bad = Bad::running();
    for (arguments, code, words) in [
        (&["disk-throttle", "disk0"][..], 2, &["--iops"][..]),
        (&["disk-throttle", "disk0", "--iops", "0"], 2, &["--iops", "must be more than 0"]),
        (&["disk-throttle", "disk0", "--iops", "-1"], 2, &["--iops", "not a whole number"]),
        (&["disk-throttle", "disk0", "--iops", "1K"], 2, &["--iops", "not a whole number"]),
        (&["disk-throttle", "disk0", "--bps", "0M"], 2, &["--bps", "must be more than 0"]),
        (&["disk-throttle", "disk0", "--bps", "-1M"], 2, &["--bps", "negative"]),
        (&["disk-throttle", "disk0", "--bps", "1000"], 2, &["--bps", "'1000' has no unit"]),
        (&["disk-throttle", "disk0", "--bps", "10X"], 2, &["--bps", "unknown unit 'X'"]),
        (&["disk-throttle", "disk0", "--bps-read", "1P"], 2, &["--bps-read", "at most 1000000000000000"]),
        (&["disk-throttle", "disk0", "--iops", "1", "--iops-read", "1"], 2, &["--iops", "--iops-read"]),
        (&["disk-throttle", "disk0", "--off", "--iops", "1"], 2, &["--off", "--iops"]),
        (&["disk-throttle", "disk1", "--iops", "1"], 4, &["no disk 'disk1'", "did you mean 'disk0'?"]),
        (&["disk-throttle", "nic0", "--off"], 4, &["no disk 'nic0'", "it has disk0"]),
    ] {
        bad.ctl(arguments, code, words);
    }
    assert_eq!(bad.sandbox.ctl_json(["disk-list"])[0].get("limits"), None);
}

/// What other clients than ours may get wrong.
#[test]
fn methods_over_the_socket() {
    let bad = Bad::running();
    let mut raw = Raw::connect(&bad.sandbox.runtime().join("vm/control"));
    for (method, parameters, parameter) in [
        ("AddNic", json!({ "network": "none" }), "network"),
        ("AddNic", json!({ "network": "tap" }), "network"),
        ("AddNic", json!({ "network": "user", "mac": "x" }), "mac"),
        ("AddNic", json!({ "network": "user", "model": "ne2k" }), "model"),
        ("AddNic", json!({ "network": "user", "id": "a.net" }), "id"),
        ("ThrottleDisk", json!({ "id": "disk0" }), "limits"),
        ("ThrottleDisk", json!({ "id": "disk0", "iops": 0 }), "limits"),
        ("ThrottleDisk", json!({ "id": "disk0", "iops": 1, "iops_read": 1 }), "limits"),
        ("ThrottleDisk", json!({ "id": "disk0", "bytes_per_s_write": -1 }), "bytes_per_s_write"),
        ("ThrottleDisk", json!({ "id": "disk0", "off": true, "iops": 1 }), "off"),
        ("WatchStats", json!({ "interval_ms": -1 }), "interval_ms"),
        ("WatchStats", json!({ "interval_ms": 1 }), "interval_ms"),
        ("WatchStats", json!({ "interval_ms": i64::MAX }), "interval_ms"),
        ("RemoveNic", json!({ "id": "nic0", "timeout_ms": -1 }), "timeout_ms"),
    ] {
        let answer = raw.call(&format!("io.vmrun.Machine.{method}"), parameters.clone());
        assert_eq!(answer["error"], "io.vmrun.Machine.InvalidArgument", "{method} {parameters} {answer}");
        assert_eq!(answer["parameters"]["parameter"], parameter, "{method} {parameters} {answer}");
    }
    // a stream wants `more`
    let answer = raw.call("io.vmrun.Machine.WatchStats", json!({}));
    assert_eq!(answer["error"], "org.varlink.service.ExpectedMore", "{answer}");
}
