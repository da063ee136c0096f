//! What becomes of a VM's devices and forwards, and of changes that are half done, when its supervisor is killed.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::boot_sector::Guest;
use crate::support::cd;
use crate::support::chance::{Chance, repetitions};
use crate::support::orphan::{detached, kill, kill_supervisor, lasting, shuts_down_clean};
use crate::support::processes::eventually;
use crate::support::sandbox::{Foreground, Sandbox, wait_with_patience};

#[test]
fn the_books_are_the_same_after_a_takeover() {
    let sandbox = detached(Guest::ReactsToButton, &["--publish", "0:22", "--publish", "0:53/udp"]);
    std::fs::write(sandbox.file("stick.img"), [0; 4096]).unwrap();
    for change in [
        &["usb-add", "usb-kbd,serial=abc", "--id", "keys"][..],
        &["usb-add", "file=stick.img", "--id", "stick"],
        &["disk-add", "one.qcow2,size=2M,id=one,serial=S1"],
        &["disk-add", "two.raw,size=1M,id=two,bus=scsi,format=raw"],
        &["disk-add", "three.qcow2,size=1M,id=three,bus=usb,readonly=off"],
        &["device-add", "virtio-rng-pci,id=rng"],
        &["nic-add", "user,id=lan"],
        &["nic-add", "user,id=wan,model=e1000e"],
        &["link", "down", "lan"],
        &["link", "down", "nic0"],
        &["disk-throttle", "one", "--iops", "100"],
        &["disk-throttle", "two", "--bps-read", "5M"],
        &["disk-throttle", "three", "--bps", "7M", "--iops-write", "3"],
        &["port-add", "0:80"],
        &["port-add", "0:80", "--nic", "lan"],
        &["pause"],
    ] {
        sandbox.ctl(change).ok();
    }
    let before = lasting(sandbox.ctl_json(["status"]));
    for _ in 0..2 {
        let killed = kill_supervisor(&sandbox);
        let status = sandbox.ctl_json(["status"]);
        assert_ne!(status["supervisor_pid"], killed);
        assert_eq!(lasting(status), before);
    }
    // everything can still be changed
    for change in [
        &["usb-remove", "keys"][..],
        &["usb-remove", "stick"],
        &["disk-remove", "two"],
        &["disk-remove", "three"],
        &["disk-resize", "one", "3M"],
        &["resume"],
        &["disk-add", "two.raw,id=two,bus=scsi"],
        &["disk-throttle", "one", "--off"],
        &["link", "up", "lan"],
    ] {
        sandbox.ctl(change).ok();
    }
    let forwards = sandbox.ctl_json(["port-list"]);
    let forwards = forwards.as_array().unwrap();
    let cards: Vec<&str> = forwards.iter().map(|forward| forward["nic"].as_str().unwrap()).collect();
    assert_eq!(cards.iter().filter(|card| **card == "nic0").count(), 3, "{cards:?}");
    assert_eq!(cards.iter().filter(|card| **card == "lan").count(), 1, "{cards:?}");
    for forward in forwards {
        sandbox
            .ctl([
                "port-remove",
                &format!(
                    "{}:{}/{}",
                    forward["host_port"],
                    forward["guest_port"],
                    forward["protocol"].as_str().unwrap()
                ),
            ])
            .ok();
    }
    shuts_down_clean(&sandbox);
}

#[test]
fn drives_are_told_of_as_before() {
    let sandbox = detached(
        Guest::ReactsToButton,
        &["--ephemeral", "--data", "for the CD", "--disk", "plain.img,size=1M,bus=sata"],
    );
    let same = || {
        let before = lasting(sandbox.ctl_json(["status"]));
        kill_supervisor(&sandbox);
        assert_eq!(lasting(sandbox.ctl_json(["status"])), before);
        before["disks"].clone()
    };
    let disks = same();
    let cd = disks.as_array().unwrap().iter().find(|disk| disk["id"] == "metadata").unwrap();
    assert_eq!((cd.get("serial"), &cd["readonly"]), (None, &json!(true)), "{disks}");
    assert!(disks[0]["file"].as_str().unwrap().ends_with("/guest.img"), "{disks}");
    sandbox.ctl(["media-eject", "metadata", "--force"]).ok();
    same();
    sandbox.ctl(["shutdown", "--force"]);
    sandbox.is_clean();
}

#[test]
fn a_paused_vm_that_was_reset_stays_paused() {
    let sandbox = detached(Guest::ReactsToButton, &[]);
    for change in ["pause", "reset"] {
        sandbox.ctl([change]).ok();
    }
    // QEMU's own word for it is that of a VM that has never run
    assert_eq!(sandbox.ctl_json(["qmp", "query-status"])["status"], "prelaunch");
    let before = lasting(sandbox.ctl_json(["status"]));
    assert_eq!(before["state"], "paused");
    for _ in 0..2 {
        kill_supervisor(&sandbox);
        assert_eq!(lasting(sandbox.ctl_json(["status"])), before);
    }
    assert_eq!(sandbox.ctl_json(["qmp", "query-status"])["running"], false);
    sandbox.ctl(["resume"]).ok();
    assert_eq!(sandbox.ctl_json(["qmp", "query-status"])["running"], true);
    sandbox.ctl(["shutdown", "--force"]);
    sandbox.is_clean();
}

#[test]
fn media_can_be_changed_again_and_again() {
    let sandbox = detached(Guest::ReactsToButton, &["--data", "first"]);
    let change = |name: &str| {
        cd::write(Guest::Halted, &sandbox.file(name));
        sandbox.ctl(["media-change", "metadata", name]).ok();
        let disks = sandbox.ctl_json(["disk-list"]);
        assert!(disks.to_string().contains(name), "{disks}");
    };
    change("one.iso");
    change("two.iso");
    for name in ["three.iso", "four.iso"] {
        kill_supervisor(&sandbox);
        change(name);
    }
    shuts_down_clean(&sandbox);
}

/// It has a forward of its own, which is not the user's.
#[test]
fn a_wait_for_a_port_shows_no_forward_and_leaves_none() {
    let sandbox = detached(Guest::ReactsToButton, &["--publish", "0:22"]);
    let before = sandbox.ctl_json(["port-list"]);
    let listening = || {
        let text = sandbox.ctl(["hmp", "info usernet"]).ok().stdout.clone();
        text.lines().filter(|line| line.contains("HOST_FORWARD")).map(str::to_owned).collect::<Vec<_>>()
    };
    for way in ["given up", "killed", "removed"] {
        let mut waiting = sandbox.vmrun();
        waiting.args(["ctl", "--vm", "orphan", "wait", "port=81"]).stderr(Stdio::null());
        let mut waiting = waiting.spawn().unwrap();
        eventually("it has a forward", || listening().len() == 2);
        assert_eq!(sandbox.ctl_json(["port-list"]), before, "{way}");
        match way {
            "given up" => waiting.kill().unwrap(),
            // the command goes on with a new supervisor, which has a forward of its own
            "killed" => {
                let _ = kill_supervisor(&sandbox);
                waiting.kill().unwrap();
            }
            _ => {
                let probe = listening().into_iter().find(|line| line.contains(" 81 ")).unwrap();
                let port = probe.split_whitespace().nth(3).unwrap();
                sandbox.ctl(["port-remove", port]).fails(4, &["no forward"]);
                sandbox.ctl(["port-remove", &format!("{port}:81")]).fails(4, &["no forward"]);
                waiting.kill().unwrap();
            }
        }
        waiting.wait().unwrap();
        eventually("it is gone", || listening().len() == 1);
        assert_eq!(sandbox.ctl_json(["port-list"]), before, "{way}");
    }
    let mut events = sandbox.vmrun();
    events.args(["ctl", "events", "--since", "0"]);
    let events = Foreground::start(events);
    sandbox.ctl(["pause"]).ok();
    events.wait_for("paused");
    shuts_down_clean(&sandbox);
    let told = events.end().stdout;
    assert!(!told.contains("VMRUN_FORWARD"), "{told}");
}

/// Kills the supervisor at random while `change` adds something: afterwards it exists completely, or not at all. `check` gets
/// which, and inspects more.
fn half_added(
    change: [&str; 2],
    longest: Duration,
    is_there: impl Fn(&Value) -> bool,
    check: impl Fn(&Sandbox, bool),
) {
    let mut chance = Chance::new();
    for round in 0..repetitions(4) {
        let sandbox = detached(Guest::ReactsToButton, &[]);
        let before = sandbox.ctl_json(["status"]);
        let supervisor = i32::try_from(before["supervisor_pid"].as_i64().unwrap()).unwrap();
        let before = lasting(before);
        let mut adding = sandbox.vmrun();
        adding.arg("ctl").args(change).stdout(Stdio::null()).stderr(Stdio::null());
        let mut adding = adding.spawn().unwrap();
        let delay = chance.delay(longest);
        println!("round {round}: killed after {delay:?}");
        std::thread::sleep(delay);
        kill(supervisor);
        let told = wait_with_patience(&mut adding).success();
        let after = lasting(sandbox.ctl_json(["status"]));
        let there = is_there(&after);
        assert!(there || !told, "it was told that it is there: {after}");
        check(&sandbox, there);
        if !there {
            assert_eq!(after, before);
            sandbox.ctl(change).ok();
        }
        shuts_down_clean(&sandbox);
    }
}

#[test]
fn a_card_that_was_half_added_is_taken_back() {
    half_added(
        ["nic-add", "user,id=lan"],
        Duration::from_millis(40),
        |status| status["nics"].as_array().unwrap().len() == 2,
        |sandbox, there| {
            let network = sandbox.ctl(["hmp", "info", "network"]).line();
            assert_eq!(network.contains("lan.net"), there, "{network}");
        },
    );
}

#[test]
fn a_disk_that_was_half_added_is_taken_back() {
    half_added(
        ["disk-add", "new.qcow2,size=4M,id=new"],
        Duration::from_millis(80),
        |status| status["disks"].as_array().unwrap().iter().any(|disk| disk["id"] == "new"),
        |sandbox, there| {
            assert_eq!(sandbox.file("new.qcow2").exists(), there, "the image was taken back");
            let nodes = sandbox.ctl(["qmp", "query-named-block-nodes"]).ok().stdout;
            assert_eq!(nodes.contains("new.qcow2"), there, "{nodes}");
        },
    );
}

/// As if the supervisor had died between the two steps of a plug.
#[test]
fn a_back_end_without_its_card_is_closed() {
    let sandbox = detached(Guest::ReactsToButton, &[]);
    let pending = sandbox.runtime().join("orphan/pending.json");
    sandbox.ctl(["link", "down"]).ok();
    let mut journal: Value = serde_json::from_slice(&std::fs::read(&pending).unwrap()).unwrap();
    journal["cards"]["lan"] = json!({ "network": { "mode": "user" }, "interface": null, "link_up": true });
    std::fs::write(&pending, journal.to_string()).unwrap();
    sandbox.ctl(["qmp", r#"{"execute":"netdev_add","arguments":{"type":"user","id":"lan.net"}}"#]).ok();
    kill_supervisor(&sandbox);
    let status = sandbox.ctl_json(["status"]);
    assert_eq!(status["nics"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(status["nics"][0]["link_up"], false);
    assert!(!sandbox.ctl(["hmp", "info", "network"]).line().contains("lan.net"));
    // and forgotten
    let journal: Value = serde_json::from_slice(&std::fs::read(&pending).unwrap()).unwrap();
    assert_eq!(journal["cards"].as_object().unwrap().len(), 1, "{journal}");
    shuts_down_clean(&sandbox);
}

#[test]
fn a_removal_that_waits_for_the_guest_outlives_the_supervisor() {
    let sandbox = detached(Guest::ReactsToButton, &[]);
    sandbox.ctl(["disk-add", "data.qcow2,size=1M,id=data"]).ok();
    // this guest never answers
    sandbox.ctl(["disk-remove", "data", "--timeout", "100ms"]).fails(5, &["data"]);
    let before = lasting(sandbox.ctl_json(["status"]));
    kill_supervisor(&sandbox);
    let after = lasting(sandbox.ctl_json(["status"]));
    assert_eq!(after, before);
    let data = after["disks"].as_array().unwrap().iter().find(|disk| disk["id"] == "data").unwrap();
    assert_eq!(data["phase"], "removing");
    // a reset takes the device away without asking
    let mut events = sandbox.vmrun();
    events.args(["ctl", "events", "--since", "0", "--filter", "VMRUN_DEVICE_REMOVED"]);
    let events = Foreground::start(events);
    sandbox.ctl(["reset"]).ok();
    events.wait_for("data");
    let disks = sandbox.ctl_json(["disk-list"]);
    assert!(!disks.as_array().unwrap().iter().any(|disk| disk["id"] == "data"), "{disks}");
    assert!(!sandbox.ctl(["qmp", "query-named-block-nodes"]).ok().stdout.contains("data.qcow2"));
    // a power button that is pressed sooner is lost
    let greeting = Guest::ReactsToButton.greeting();
    eventually("it has booted again", || {
        let log = std::fs::read_to_string(sandbox.file("guest-state/console.log")).unwrap();
        log.matches(greeting).count() == 2
    });
    shuts_down_clean(&sandbox);
}
