//! Flags and commands that no other test runs: what each does is asked of QEMU, of the kernel or of the guest. `flags.txt` says which
//! test ran which flag.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::boot_sector::Guest;
use crate::support::linux::Linux;
use crate::support::processes::eventually;
use crate::support::pty::OnTerminal;
use crate::support::sandbox::{Done, Foreground, Sandbox};

/// What QEMU answers.
#[track_caller]
fn qmp(sandbox: &Sandbox, execute: &str, arguments: Value) -> Value {
    sandbox.ctl(["qmp", &json!({ "execute": execute, "arguments": arguments }).to_string()]).json()
}

fn property(sandbox: &Sandbox, path: &str, property: &str) -> Value {
    qmp(sandbox, "qom-get", json!({ "path": path, "property": property }))
}

/// A guest that idles, in the background.
fn idle(flags: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::IgnoresButton);
    sandbox.detached(flags.iter().map(|flag| (*flag).to_owned()).chain([image.display().to_string()]));
    sandbox
}

#[track_caller]
fn quit(sandbox: &Sandbox) {
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn the_machine_is_what_its_flags_say() {
    let uuid = "12345678-9abc-4def-8123-456789abcdef";
    let sandbox = idle(&[
        "--arch",
        "x86_64",
        "--accel",
        "tcg",
        "--machine",
        "pc",
        "--cpu",
        "qemu64",
        "--cpus",
        "3",
        "--mem",
        "384",
        "--uuid",
        uuid,
        "--device",
        "virtio-balloon-pci,id=mine",
        "--networking",
        "none",
        "--name",
        "machine",
        "--hotplug-slots",
        "0",
    ]);
    assert_eq!(qmp(&sandbox, "query-target", json!({}))["arch"], "x86_64");
    assert_eq!(qmp(&sandbox, "query-kvm", json!({}))["enabled"], false);
    let machine = property(&sandbox, "/machine", "type");
    assert!(machine.as_str().unwrap().starts_with("pc-i440fx-"), "{machine}");
    let cpus = qmp(&sandbox, "query-cpus-fast", json!({}));
    assert_eq!(cpus.as_array().unwrap().len(), 3);
    let model = property(&sandbox, cpus[0]["qom-path"].as_str().unwrap(), "type");
    assert_eq!(model, "qemu64-x86_64-cpu");
    assert_eq!(qmp(&sandbox, "query-memory-size-summary", json!({}))["base-memory"], 384 << 20);
    assert_eq!(qmp(&sandbox, "query-uuid", json!({}))["UUID"], uuid);
    assert_eq!(qmp(&sandbox, "query-name", json!({}))["name"], "machine");
    assert_eq!(property(&sandbox, "/machine/peripheral/mine", "type"), "virtio-balloon-pci");
    let tree = sandbox.ctl(["hmp", "info", "qtree"]).ok().stdout;
    assert!(!tree.contains("virtio-net"), "{tree}");
    quit(&sandbox);
}

#[test]
fn another_firmware_is_the_one_that_runs() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::PowersOff);
    let mut firmware = std::fs::read("/usr/share/seabios/bios-256k.bin").unwrap();
    let (theirs, ours) = (b"SeaBIOS (version", b"SeaBIOS (vmrun's");
    let at = firmware.windows(theirs.len()).position(|window| window == theirs).unwrap();
    firmware[at..at + ours.len()].copy_from_slice(ours);
    std::fs::write(sandbox.file("fw.bin"), firmware).unwrap();
    let vm = sandbox.foreground(["--fw".as_ref(), "fw.bin".as_ref(), image.as_os_str()]);
    vm.wait_for("SeaBIOS (vmrun's");
    assert_eq!(vm.end().code(), 0);
}

#[test]
fn a_file_of_metadata_is_on_the_guests_cd() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::IgnoresButton);
    std::fs::write(sandbox.file("data.txt"), "metadata of this very test").unwrap();
    sandbox.detached(["--data-file".as_ref(), "data.txt".as_ref(), image.as_os_str()]);
    let nodes = qmp(&sandbox, "query-named-block-nodes", json!({}));
    let cd = nodes.as_array().unwrap().iter().find(|node| node["node-name"] == "metadata").unwrap();
    let bytes = std::fs::read(cd["image"]["filename"].as_str().unwrap()).unwrap();
    assert!(bytes.windows(26).any(|window| window == b"metadata of this very test"));
    quit(&sandbox);
}

#[test]
fn linuxkits_habits_are_a_flag() {
    let sandbox = idle(&["--linuxkit", "--publish", "0:80"]);
    let tree = sandbox.ctl(["hmp", "info", "qtree"]).ok().stdout;
    assert!(tree.contains("dev: ide-hd, id \"disk0\""), "{tree}");
    assert_eq!(sandbox.ctl_json(["port-list"])[0]["address"], "0.0.0.0");
    assert!(sandbox.file("guest.img-state").is_dir());
    quit(&sandbox);
}

#[test]
fn messages_are_as_many_and_in_the_form_that_is_wanted() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::PowersOff);
    // warnings are shown
    let run = |flags: &[&str]| {
        let ended = sandbox.foreground([flags, &["guest.img,size=2M"]].concat()).end();
        assert_eq!(ended.code(), 0, "{ended:#?}");
        ended.stderr
    };
    let usual = run(&[]);
    assert!(usual.contains("vmrun: warning: ") && !usual.contains("QEMU answers"), "{usual}");
    for flag in ["-v", "--verbose"] {
        let more = run(&[flag]);
        assert!(more.contains("vmrun: QEMU answers") && !more.contains("query-"), "{more}");
    }
    assert!(run(&["-v", "-v"]).contains("qmp_capabilities"));
    for flag in ["-q", "--quiet"] {
        assert_eq!(run(&[flag]), "");
    }
    let told = run(&["--verbose", "--log-format", "json"]);
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |level: &str| lines.iter().filter(|line| line["level"] == level).count();
    assert!(of("info") > 0 && of("warn") == 1 && of("info") + of("warn") == lines.len(), "{told}");
}

#[test]
fn devices_behind_the_dashes_are_listed_without_an_id_too() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("extra.img"), vec![0; 1 << 20]).unwrap();
    sandbox.boot_sector(Guest::IgnoresButton);
    let drive =
        ["-drive", "if=none,id=extra,file=extra.img,format=raw", "-device", "virtio-blk-pci,drive=extra"];
    let card = ["-netdev", "user,id=second", "-device", "virtio-net-pci,netdev=second"];
    sandbox.detached([&["--usb", "guest.img", "--"][..], &drive, &card, &["-device", "usb-tablet"]].concat());
    // none of them has an id in QEMU
    let tree = sandbox.ctl(["hmp", "info", "qtree"]).ok().stdout;
    for driver in ["virtio-blk-pci", "virtio-net-pci", "usb-tablet"] {
        assert!(tree.contains(&format!("dev: {driver}, id \"\"")), "{tree}");
    }
    let listed = || {
        let status = sandbox.ctl_json(["status"]);
        let ids = |kind: &str| -> Vec<String> {
            let devices = status[kind].as_array().unwrap().iter();
            devices.map(|device| device["id"].as_str().unwrap().to_owned()).collect()
        };
        ["disks", "nics", "usb"].map(ids)
    };
    let all = [vec!["disk0", "extra"], vec!["nic0", "second"], vec!["usb-tablet.0"]];
    assert_eq!(listed(), all);
    sandbox.ctl(["disk-remove", "extra"]).fails(4, &["'extra' was given no id", "id=ID"]);
    // a new supervisor finds the same
    let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].to_string();
    assert!(Command::new("kill").args(["-9", &supervisor]).status().unwrap().success());
    assert_eq!(listed(), all);
    quit(&sandbox);
}

#[test]
fn a_clients_request_can_be_followed_through_the_log() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::IgnoresButton);
    let running = sandbox.foreground(["-v", "-v", "--log-format", "json", "guest.img,size=2M"]);
    eventually("it runs", || sandbox.ctl(["wait", "running"]).code == 0);
    let both: Vec<_> = ["virtio-balloon-pci,id=one", "no-such-device,id=two"]
        .map(|device| {
            sandbox
                .vmrun()
                .args(["ctl", "device-add", device])
                .stderr(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .into_iter()
        .map(|mut child| child.wait().unwrap().success())
        .collect();
    assert_eq!(both, [true, false]);
    quit(&sandbox);
    let told = running.end().stderr;
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let requests = || lines.iter().filter(|line| line["message"] == "request: AddDevice");
    assert_eq!(requests().count(), 2, "{told}");
    let of = |request: &Value| -> Vec<&str> {
        let same = |line: &&Value| ["connection", "request"].iter().all(|id| line[*id] == request[*id]);
        lines.iter().filter(same).filter_map(|line| line["message"].as_str()).collect()
    };
    // what QEMU was told for one of them is found by QEMU's own number of the command, which the transcript has
    let plugged: Vec<_> =
        requests().map(of).filter(|of| of.iter().any(|line| line.starts_with("answered"))).collect();
    let [plugged] = plugged.as_slice() else { panic!("{told}") };
    let number =
        plugged.iter().find_map(|line| line.strip_prefix("QMP command ")?.strip_suffix(": device_add"));
    let number = number.unwrap_or_else(|| panic!("{plugged:#?}"));
    let sent = format!("\"id\":{number}");
    assert!(
        lines
            .iter()
            .filter_map(|line| line["message"].as_str())
            .any(|line| line.contains(&sent) && line.contains("one")),
        "{told}"
    );
    // and QEMU's own messages, which tasks of the connection to QEMU write to the log, have the ids, too
    for (direction, what) in [("out", "execute"), ("in", "return")] {
        let is_it = |line: &&str| {
            line.contains(&format!("\"dir\":\"{direction}\""))
                && line.contains(what)
                && line.replace(' ', "").contains(&sent)
        };
        assert_eq!(plugged.iter().copied().filter(is_it).count(), 1, "{direction}: {plugged:#?}");
    }
    let refused: Vec<_> =
        requests().map(of).filter(|of| !of.iter().any(|line| line.starts_with("answered"))).collect();
    assert!(refused.len() == 1 && refused[0].iter().any(|line| line.contains("no-such-device")), "{told}");
}

#[test]
fn usb_devices_of_the_host_are_those_of_the_kernel() {
    let sandbox = idle(&[]);
    let listed = sandbox.ctl_json(["usb-list", "--host"]);
    let entries = std::fs::read_dir("/sys/bus/usb/devices").into_iter().flatten().flatten();
    let is_device = |entry: &std::fs::DirEntry| {
        let class = std::fs::read_to_string(entry.path().join("bDeviceClass")).unwrap_or_default();
        entry.path().join("idVendor").exists() && class.trim() != "09"
    };
    assert_eq!(listed.as_array().unwrap().len(), entries.filter(is_device).count(), "{listed}");
    quit(&sandbox);
}

#[test]
fn a_removal_waits_as_long_as_it_is_told() {
    let sandbox = idle(&[]);
    sandbox.ctl(["nic-add", "user,id=card"]).ok();
    sandbox.ctl(["device-add", "virtio-balloon-pci,id=balloon"]).ok();
    // a stopped process answers no client
    sandbox.ctl(["pause"]).ok();
    for (command, id) in [("nic-remove", "card"), ("device-remove", "balloon")] {
        let began = Instant::now();
        sandbox.ctl([command, id, "--timeout", "700ms"]).fails(5, &[id]);
        assert!(began.elapsed() >= Duration::from_millis(700), "{command}: {:?}", began.elapsed());
        let tree = sandbox.ctl(["hmp", "info", "qtree"]).ok().stdout;
        assert!(tree.contains(&format!("id \"{id}\"")), "{tree}");
    }
    quit(&sandbox);
}

#[test]
fn every_limit_of_a_disk_is_qemus() {
    let sandbox = idle(&[]);
    let limits = |words: &[&str]| {
        sandbox.ctl([&["disk-throttle", "disk0"], words].concat()).ok();
        let inserted = &qmp(&sandbox, "query-block", json!({}))[0]["inserted"];
        ["iops", "iops_rd", "iops_wr", "bps", "bps_rd", "bps_wr"]
            .map(|limit| inserted[limit].as_u64().unwrap())
    };
    assert_eq!(limits(&["--iops", "100", "--bps", "1M"]), [100, 0, 0, 1 << 20, 0, 0]);
    let each = ["--iops-read", "10", "--iops-write", "20", "--bps-read", "3M", "--bps-write", "4M"];
    assert_eq!(limits(&each), [0, 10, 20, 0, 3 << 20, 4 << 20]);
    assert_eq!(limits(&["--off"]), [0; 6]);
    quit(&sandbox);
}

#[test]
fn any_of_many_conditions_or_all_of_them() {
    let sandbox = idle(&[]);
    let any = sandbox.ctl(["wait", "--any", "running", "event=STOP", "--timeout", "100s"]).ok();
    assert!(any.stdout.contains("running") && !any.stdout.contains("STOP"), "{any:#?}");
    sandbox.ctl(["wait", "--all", "running", "event=STOP", "--timeout", "300ms"]).fails(5, &["'event=STOP'"]);
    let mut command = sandbox.vmrun();
    command.args(["ctl", "wait", "--all", "paused", "running", "--timeout", "100s"]);
    let all = Foreground::start(command);
    // both come true, one after the other
    sandbox.ctl(["pause"]).ok();
    sandbox.ctl(["wait", "paused"]).ok();
    sandbox.ctl(["resume"]).ok();
    let ended = all.end();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    quit(&sandbox);
}

#[test]
fn what_needs_an_agent_waits_for_it_as_long_as_it_is_told() {
    let sandbox = idle(&[]);
    std::fs::write(sandbox.file("a"), "a").unwrap();
    for words in [&["copy-to", "a", "/b"][..], &["copy-from", "/b", "c"], &["agent", "guest-ping"]] {
        let began = Instant::now();
        let refused = sandbox.ctl(words.iter().chain(&["--agent-timeout", "300ms"]));
        refused.fails(4, &["agent"]);
        let waited = began.elapsed();
        assert!(
            waited >= Duration::from_millis(300) && waited < Duration::from_secs(9),
            "{words:?}: {waited:?}"
        );
    }
    assert!(!sandbox.file("c").exists());
    quit(&sandbox);
}

/// When QEMU got the key presses, in milliseconds.
fn key_times(log: &Path) -> Vec<f64> {
    let log = std::fs::read_to_string(log).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let keys = lines.filter(|line| line["dir"] == "out" && line["msg"]["execute"] == "send-key");
    keys.map(|line| line["at"].as_f64().unwrap()).collect()
}

#[test]
fn keys_come_at_the_pace_that_is_wanted() {
    let sandbox = idle(&["--display", "headless", "--qmp-log", "qmp.log"]);
    for words in [&["send-key", "a", "b", "c"][..], &["type", "abc"]] {
        let began = Instant::now();
        sandbox.ctl(words.iter().chain(&["--delay", "300ms"])).ok();
        assert!(began.elapsed() >= Duration::from_millis(600), "{words:?}: {:?}", began.elapsed());
    }
    assert_eq!(key_times(&sandbox.file("qmp.log")).len(), 6);
    quit(&sandbox);
}

#[test]
fn a_consoles_escape_key_can_be_another() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::EchoesConsole);
    sandbox.detached([&image]);
    let mut command = sandbox.vmrun();
    command.args(["console", "--escape", "ctrl-b"]);
    let mut console = OnTerminal::start(&command);
    console.shows(Guest::EchoesConsole.greeting());
    // the usual one is the guest's, who sends it back
    console.press("\x01dz");
    console.shows("DZ");
    console.press("\x02d");
    assert_eq!(console.end().code(), Some(0));
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    quit(&sandbox);
}

#[test]
fn the_doctor_tells_the_qemu_that_is_there() {
    let sandbox = Sandbox::new();
    let findings = sandbox.run(["doctor", "--json"]).ok().json();
    let qemu =
        findings.as_array().unwrap().iter().find(|finding| finding["what"] == "qemu").unwrap().to_string();
    let version = Command::new("qemu-system-x86_64").arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let number =
        version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap();
    assert!(qemu.contains(number), "{number}: {qemu}");
}

#[test]
fn a_shell_completes_what_there_is() {
    let sandbox = Sandbox::new();
    let script = "source <(\"$0\" completions bash); PATH=${0%/*}:$PATH COMP_WORDS=(vmrun ctl disk-a); COMP_CWORD=2 COMP_LINE=\"vmrun ctl disk-a\" COMP_POINT=16; _vmrun vmrun disk-a ctl; echo \"${COMPREPLY[@]}\"";
    let done = sandbox.program("bash").args(["-c", script, env!("CARGO_BIN_EXE_vmrun")]).output().unwrap();
    assert_eq!(Done::of(done).line(), "disk-add");
}

#[test]
fn a_clock_may_stay_where_it_was() {
    let vm = Linux::boot(["--disk", "disk.qcow2,size=64M"]);
    let is_past = |clock: &str| clock.parse::<u64>().unwrap() < 1_100_000_000;
    vm.run("date -s @1000000000 > /dev/null");
    vm.ctl(["snapshot-save", "past"]);
    vm.ctl(["snapshot-load", "past", "--no-time-sync"]);
    assert!(is_past(&vm.run("date +%s")));
    vm.ctl(["save", "vm.saved"]);
    let (ended, sandbox) = vm.end();
    assert_eq!(ended.code(), 0);
    sandbox.detached(["--restore", "vm.saved", "--no-time-sync", "--state", "state"]);
    sandbox.ctl(["wait", "agent", "--timeout", "60s"]).ok();
    assert!(is_past(&sandbox.ctl(["exec", "--", "date", "+%s"]).line()));
    quit(&sandbox);
}
