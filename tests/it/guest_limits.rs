//! Limits on disks, and what is counted.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::linux::Linux;
use crate::support::pty::OnTerminal;

/// How long the guest takes to read so many blocks of 64 KiB past its cache.
fn read(vm: &Linux, disk: &str, blocks: u32, skip: u32) -> Duration {
    let before = Instant::now();
    vm.run(&format!("dd if=/dev/{disk} of=/dev/null bs=64k count={blocks} skip={skip} iflag=direct"));
    before.elapsed()
}

fn limits(vm: &Linux, id: &str) -> Value {
    let disks = vm.list("disk-list");
    disks.iter().find(|disk| disk["id"] == id).unwrap_or_else(|| panic!("no disk {id}"))["limits"].clone()
}

#[test]
fn a_limit_slows_the_guest_down() {
    let vm = Linux::boot(["--disk", "sata.img,size=16M,bus=sata,serial=S-sata,id=d-sata"]);
    for bus in ["virtio", "scsi", "usb", "nvme", "sata"] {
        let id = format!("d-{bus}");
        if bus != "sata" {
            vm.ctl(["disk-add", &format!("{bus}.img,size=16M,bus={bus},serial=S-{bus},id={id}")]);
        }
        let (disk, _) = vm.sees_disk(&format!("S-{bus}"));
        vm.ctl(["disk-throttle", &id, "--bps-read", "1M"]);
        assert_eq!(limits(&vm, &id), json!({ "bytes_per_s_read": 1 << 20 }), "{bus}");
        // 3 MiB at 1 MiB/s; QEMU lets a tenth of a second's worth through at once
        let took = read(&vm, &disk, 48, 0);
        assert!(took >= Duration::from_millis(2500), "{bus}: {took:?}");
        let block = vm.sandbox.ctl_json(["qmp", "query-block"]);
        let held =
            block.as_array().unwrap().iter().find(|block| block["inserted"]["node-name"] == id.as_str());
        assert_eq!(held.unwrap()["inserted"]["bps_rd"], 1 << 20, "{bus}");
        vm.ctl(["disk-throttle", &id, "--iops", "1000", "--bps-write", "2M"]);
        assert_eq!(limits(&vm, &id), json!({ "iops": 1000, "bytes_per_s_write": 2 << 20 }), "{bus}");
        assert!(vm.ctl(["disk-list"]).contains("1000 iops, write 2 MiB/s"));
        assert_eq!(vm.ctl(["disk-throttle", &id, "--off"]), format!("{id} has no limits now"));
        assert_eq!(limits(&vm, &id), Value::Null, "{bus}");
    }
    // operations: 20 reads at 10 a second
    let id = "d-virtio";
    vm.ctl(["disk-throttle", id, "--iops", "10"]);
    let took = read(&vm, "vda", 20, 100);
    assert!(took >= Duration::from_millis(1500), "{took:?}");
    // by hand, too: the inventory follows
    let by_hand = json!({ "execute": "block_set_io_throttle", "arguments": {
        "id": "/machine/peripheral/d-virtio/virtio-backend",
        "iops": 0, "iops_rd": 0, "iops_wr": 77, "bps": 0, "bps_rd": 0, "bps_wr": 0,
    }});
    vm.ctl(["qmp", &by_hand.to_string()]);
    assert_eq!(limits(&vm, id), json!({ "iops_write": 77 }));
    vm.quit();
}

fn disk<'a>(stats: &'a Value, id: &str) -> &'a Value {
    stats["disks"].as_array().unwrap().iter().find(|disk| disk["id"] == id).unwrap()
}

#[test]
fn what_the_guest_does_is_counted() {
    let vm = Linux::boot(["--disk", "data.img,size=16M,serial=DATA,id=data", "--cpus", "2"]);
    let (name, _) = vm.sees_disk("DATA");
    vm.ctl(["wait", "agent", "--timeout", "2m"]);
    let before = vm.sandbox.ctl_json(["stats"]);
    assert_eq!(before["memory_bytes"], 256 << 20);
    assert_eq!(before["balloon_bytes"], Value::Null);
    assert_eq!(before["vcpus"].as_array().unwrap().len(), 2);
    assert!(before["resident_bytes"].as_u64().unwrap() > 1 << 20, "{before}");
    read(&vm, &name, 16, 0);
    vm.run(&format!("dd if=/dev/zero of=/dev/{name} bs=64k count=8 oflag=direct conv=notrunc,fsync"));
    let after = vm.sandbox.ctl_json(["stats"]);
    let grown = |id: &str, field: &str| {
        disk(&after, id)[field].as_u64().unwrap() - disk(&before, id)[field].as_u64().unwrap()
    };
    assert_eq!((grown("data", "read_bytes"), grown("data", "write_bytes")), (1 << 20, 1 << 19));
    assert!(grown("data", "read_operations") >= 1 && grown("data", "flush_operations") >= 1);
    assert_eq!(grown("data", "read_errors"), 0);
    let cpu = |stats: &Value| stats["cpu_time_ms"].as_u64().unwrap();
    let vcpus = |stats: &Value| -> u64 {
        stats["vcpus"].as_array().unwrap().iter().map(|vcpu| vcpu["cpu_time_ms"].as_u64().unwrap()).sum()
    };
    assert!(cpu(&after) >= cpu(&before) && vcpus(&after) >= vcpus(&before) && cpu(&after) >= vcpus(&after));
    // the guest counts packets
    let nic = &after["nics"][0];
    assert_eq!((&nic["id"], &nic["source"]), (&"nic0".into(), &"agent".into()), "{nic}");
    assert!(nic["rx_bytes"].as_u64().unwrap() > before["nics"][0]["rx_bytes"].as_u64().unwrap(), "{nic}");
    let shown = vm.ctl(["stats"]);
    for word in ["cpu time:", "resident:", "disks\n", "network cards\n", "agent"] {
        assert!(shown.contains(word), "no '{word}' in {shown}");
    }
    // a guest that stands still cannot count
    vm.ctl(["pause"]);
    let paused = vm.sandbox.ctl_json(["stats"]);
    assert_eq!(paused["nics"][0].get("source"), None);
    assert!(paused["nics"][0]["reason"].as_str().unwrap().contains("QEMU does not count"), "{paused}");
    vm.quit();
}

#[test]
fn watching_lasts_until_the_end() {
    let vm = Linux::boot::<&str>([]);
    let mut command = vm.sandbox.vmrun();
    command.args(["ctl", "--json", "stats", "--watch", "100ms"]).stdout(Stdio::piped());
    let mut watcher = command.spawn().unwrap();
    let mut lines = BufReader::new(watcher.stdout.take().unwrap()).lines();
    let mut looks: Vec<Value> = Vec::new();
    while looks.len() < 3 {
        looks.push(serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap());
    }
    let time = |look: &Value| look["time_unix_ms"].as_u64().unwrap();
    // never sooner than it was asked for (the clocks of the pause and of the time are not the same one)
    assert!(time(&looks[2]) >= time(&looks[0]) + 190, "{looks:?}");
    // on a terminal each sample is drawn over the one before, with what the counters have grown by
    let mut command = vm.sandbox.vmrun();
    command.args(["ctl", "stats", "--watch", "100ms"]);
    let mut terminal = OnTerminal::start(&command);
    for text in ["\u{1b}[Huptime:", "\u{1b}[K", "\u{1b}[J", "\u{1b}[Huptime:", "cpu load", "/s)", "\u{1b}[J"]
    {
        terminal.shows(text);
    }
    terminal.press("\u{3}");
    assert_eq!(terminal.end().signal(), Some(nix::libc::SIGINT));
    vm.try_ctl(["stats", "--watch", "1ms"]).fails(2, &["100 ms"]);
    vm.try_ctl(["stats", "--watch", "soon"]).fails(2, &["not a duration"]);
    let _ = vm.quit();
    for line in lines {
        let _: Value = serde_json::from_str(&line.unwrap()).unwrap();
    }
    assert_eq!(watcher.wait().unwrap().code(), Some(0));
}
