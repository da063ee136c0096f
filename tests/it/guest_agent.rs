//! What vmrun reports of the agent of a real guest, whatever happens to the guest.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::guest_exec::with_agent;
use crate::guest_shutdown::KILL_AGENT;
use crate::support::linux::Linux;
use crate::support::pty::OnTerminal;

const SLOW: [&str; 3] = ["exec", "--agent-timeout", "2m"];

#[track_caller]
fn runs(vm: &Linux, command: &[&str]) {
    vm.try_ctl([&SLOW[..], &["--"], command].concat()).ok();
}

#[test]
fn commands_wait_for_the_agent_of_the_guests_new_life() {
    let vm = with_agent(&["--disk", "disk.qcow2,size=1G"]);
    vm.ctl(["snapshot-save", "first"]);
    for _ in 0..3 {
        vm.ctl(["snapshot-load", "first"]);
        vm.try_ctl(["exec", "--", "true"]).ok();
    }
    // the agent that answers is that of the guest that was reset, whose memory is new
    runs(&vm, &["sh", "-c", "mkdir -p /tmp; echo old > /tmp/life"]);
    vm.ctl(["reset"]);
    runs(&vm, &["test", "!", "-e", "/tmp/life"]);
    runs(&vm, &["sh", "-c", "mkdir -p /tmp; echo old > /tmp/life"]);
    vm.ctl(["reset"]);
    vm.ctl(["wait", "agent", "--timeout", "2m"]);
    runs(&vm, &["test", "!", "-e", "/tmp/life"]);
    // without its port there is none
    vm.ctl(["qmp", "{\"execute\":\"device_del\",\"arguments\":{\"id\":\"vmrun-agent\"}}"]);
    vm.try_ctl(["wait", "event=DEVICE_DELETED", "--timeout", "1s"]);
    vm.try_ctl(["wait", "agent", "--timeout", "300ms"]).fails(5, &["'agent'"]);
    vm.try_ctl(["exec", "--agent-timeout", "100ms", "--", "true"]).fails(4, &["unplugged"]);
    vm.quit();
}

/// The guest's clock in seconds, as it tells it itself.
fn guests_clock(vm: &Linux) -> i64 {
    vm.run("date +%s").parse().unwrap()
}

fn ours() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

/// How far the guest's clock may be off that was set just now, on a machine with much to do.
const RIGHT: i64 = 5;

#[test]
fn a_clock_that_stood_still_is_set() {
    let vm = with_agent(&["--disk", "disk.qcow2,size=64M"]);
    let put_back = "date -s @1000000000 > /dev/null";
    vm.run(put_back);
    let told = vm.sandbox.ctl_json(["set-time"]);
    assert!(told["set"] == true && told["behind_ms"].as_i64().unwrap() > 1_000_000_000, "{told}");
    assert!((guests_clock(&vm) - ours()).abs() < RIGHT);
    assert_eq!(vm.ctl(["set-time"]), "the guest's clock is right");
    for sync in [true, false] {
        vm.run(put_back);
        vm.ctl(["pause"]);
        let done = vm.ctl(if sync { &["resume"][..] } else { &["resume", "--no-time-sync"] });
        assert_eq!(
            (done.contains("behind and was set"), (guests_clock(&vm) - ours()).abs() < RIGHT),
            (sync, sync),
            "{done}"
        );
    }
    // the clock of the snapshot's time
    vm.run(put_back);
    vm.ctl(["snapshot-save", "past"]);
    vm.ctl(["set-time"]);
    let done = vm.ctl(["snapshot-load", "past"]);
    assert!(
        done.starts_with("loaded past; the guest's clock was") && done.ends_with("behind and was set"),
        "{done}"
    );
    assert!((guests_clock(&vm) - ours()).abs() < RIGHT);
    // why not, and no failure for that
    vm.ctl(["pause"]);
    vm.try_ctl(["set-time"]).fails(4, &["paused", "resume"]);
    vm.ctl(["resume"]);
    vm.run(KILL_AGENT);
    vm.until("its end is known", |vm| vm.try_ctl(["wait", "agent", "--timeout", "100ms"]).code == 5);
    vm.ctl(["pause"]);
    let done = vm.ctl(["resume"]);
    assert!(done.starts_with("running; the guest's clock was not set: the guest agent has ended"), "{done}");
    vm.try_ctl(["set-time", "--agent-timeout", "100ms"]).fails(4, &["agent has ended"]);
    vm.quit();
}

#[test]
fn a_reboot_is_over_when_the_guest_is_up_again() {
    let vm = with_agent(&[]);
    let boot = |vm: &Linux| vm.run("cat /proc/sys/kernel/random/boot_id");
    let first = boot(&vm);
    vm.ctl(["reboot", "--timeout", "120s"]);
    // the agent answers, and it is another life
    assert_eq!(vm.ctl(["exec", "echo", "hello"]), "hello");
    let second = vm.ctl(["exec", "cat", "/proc/sys/kernel/random/boot_id"]);
    assert_ne!(first, second);
    let told = vm.sandbox.ctl_json([
        "reboot",
        "--force",
        "--until",
        "console=vmrun-guest: ready",
        "--timeout",
        "120s",
    ]);
    assert_eq!(told["condition"], "console=vmrun-guest: ready", "{told}");
    vm.ctl(["wait", "agent", "--timeout", "60s"]);
    let third = vm.ctl(["exec", "cat", "/proc/sys/kernel/random/boot_id"]);
    assert_ne!(second, third);
    // what does not come true is said with how far it got
    vm.try_ctl(["reboot", "--force", "--until", "event=NEVER", "--timeout", "2s"])
        .fails(5, &["was reset", "event=NEVER"]);
    vm.ctl(["wait", "agent", "--timeout", "60s"]);
    vm.sees("vmrun-guest: ready");
    vm.until("its shell answers", |vm| vm.sh("true").0 == 0);
    vm.run(KILL_AGENT);
    vm.until("its end is known", |vm| vm.try_ctl(["wait", "agent", "--timeout", "100ms"]).code == 5);
    vm.try_ctl(["reboot", "--agent-timeout", "100ms"]).fails(4, &["agent has ended", "--force"]);
    vm.quit();
}

#[test]
fn any_command_of_the_agent_can_be_run() {
    let vm = with_agent(&[]);
    let name = vm.sandbox.ctl_json(["agent", "guest-get-host-name"]);
    assert_eq!(name["host-name"], vm.run("hostname").as_str(), "{name}");
    let opened = vm.ctl(["agent", "guest-file-open", r#"{"path": "/tmp/x", "mode": "w"}"#]);
    vm.ctl(["agent", "guest-file-close", &format!("{{\"handle\": {opened}}}")]);
    assert_eq!(vm.run("ls /tmp/x"), "/tmp/x");
    vm.try_ctl(["agent", "guest-file-open", r#"{"path": "/no/such"}"#]).fails(4, &["No such file"]);
    vm.try_ctl(["agent", "no-such-command"]).fails(4, &["no-such-command"]);
    vm.try_ctl(["agent", "guest-ping", "[]"]).fails(2, &["object"]);
    vm.try_ctl(["agent", "guest-sync", r#"{"id": 1}"#]).fails(2, &["in step"]);
    assert_eq!(vm.ctl(["exec", "echo", "hello"]), "hello");

    // the console's size, of a terminal that is not the usual one
    let mut command = vm.sandbox.vmrun();
    command.arg("console");
    let mut console = OnTerminal::start_with_size(&command, 40, 132);
    console.shows("vmrun-guest");
    console.press("\x01w");
    console.shows("40 rows and 132 columns");
    assert_eq!(vm.run("stty size < /dev/console"), "40 132");
    vm.run(KILL_AGENT);
    console.press("\x01w");
    console.shows("was typed");
    console.press("\x01d");
    let _ = console.end();
    vm.sees("stty rows 40 cols 132");
    // it ends with no answer when it works
    vm.quit();
}

fn is_there(vm: &Linux, path: &str) -> bool {
    vm.sh(&format!("test -e {path}")).0 == 0
}

/// Writes to the file system on the disk, and makes a file elsewhere when that is done.
fn write_to_disk(vm: &Linux, done: &str) {
    vm.run(&format!("(echo x > /mnt/x; echo x > {done}) < /dev/null > /dev/null 2>&1 &"));
}

#[test]
fn frozen_file_systems_stand_still_and_thaw() {
    let vm = with_agent(&[]);
    // only file systems on disks can be frozen
    assert_eq!(vm.ctl(["freeze-fs"]), "no file systems were frozen");
    assert_eq!(vm.ctl(["thaw-fs"]), "no file systems were thawed");
    vm.ctl(["disk-add", "data.img,size=64M,serial=DATA,id=data"]);
    let (disk, _) = vm.sees_disk("DATA");
    vm.run(&format!(
        "mkdir -p /mnt /tmp; mke2fs /dev/{disk} > /dev/null 2>&1 && mount -t ext4 /dev/{disk} /mnt"
    ));
    vm.try_ctl(["freeze-fs", "--for", "0"]).fails(2, &["more than 0"]);

    // a writer stands still, and nothing else can be begun
    assert_eq!(vm.ctl(["freeze-fs", "--for", "10m", "--agent-timeout", "10s"]), "1 file system was frozen");
    assert_eq!(vm.ctl(["agent", "guest-fsfreeze-status"]), "\"frozen\"");
    write_to_disk(&vm, "/tmp/first");
    vm.until("the writer waits in the kernel", |vm| vm.sh("grep -q '^State:.D' /proc/[0-9]*/status").0 == 0);
    for refused in [&["exec", "true"][..], &["set-time"], &["freeze-fs"], &["disk-remove", "data"]] {
        vm.try_ctl(refused).fails(4, &["frozen, for", "ctl thaw-fs"]);
    }
    assert_eq!(vm.status()["state"], "running");
    assert!(!is_there(&vm, "/tmp/first"));
    assert_eq!(vm.ctl(["thaw-fs", "--agent-timeout", "10s"]), "1 file system was thawed");
    vm.until("the writer goes on", |vm| is_there(vm, "/tmp/first"));
    assert_eq!(vm.ctl(["exec", "cat", "/mnt/x"]), "x");

    // their time is over
    vm.ctl(["freeze-fs", "--for", "1s"]);
    write_to_disk(&vm, "/tmp/second");
    vm.until("they thaw by themselves", |vm| is_there(vm, "/tmp/second"));
    vm.try_ctl(["thaw-fs"]).fails(4, &["not frozen any more", "1s were over", "--for"]);
    assert_eq!(vm.ctl(["thaw-fs"]), "no file systems were thawed");

    // a command of the agent does the same, and vmrun knows
    vm.ctl(["freeze-fs", "--for", "10m"]);
    vm.ctl(["agent", "guest-fsfreeze-thaw"]);
    vm.ctl(["exec", "true"]);
    vm.ctl(["agent", "guest-fsfreeze-freeze"]);
    vm.try_ctl(["exec", "true"]).fails(4, &["frozen", "ctl thaw-fs"]);
    assert_eq!(vm.ctl(["thaw-fs"]), "1 file system was thawed");

    // a VM that shuts down is thawed first
    vm.ctl(["freeze-fs", "--for", "10m"]);
    let done = vm.try_ctl(["shutdown", "--timeout", "2m"]);
    assert!(done.stdout.contains("followed its agent's shutdown"), "{done:#?}");
    vm.end();
}
