//! `--detached` from everywhere that programs are started from, and names.

use std::process::Stdio;

use crate::support::boot_sector::Guest;
use crate::support::processes::of;
use crate::support::sandbox::{Done, Foreground, Sandbox, wait_with_patience};

const VMRUN: &str = env!("CARGO_BIN_EXE_vmrun");

/// Runs a line of shell in which `$0` is vmrun and `$1` the image, then shuts the VM down.
#[track_caller]
fn starts_with(line: &str) {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let wait = format!("console={}", Guest::ReactsToButton.greeting());
    let mut command = sandbox.program("sh");
    let line = line.replace("START", "\"$0\" qemu --detached --name bg --wait \"$2\" \"$1\"");
    let mut shell = command.args(["-c", &line]).arg(VMRUN).arg(&image).arg(&wait);
    shell = shell.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(wait_with_patience(&mut shell.spawn().unwrap()).success(), "{line}");
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running", "{line}");
    sandbox.ctl(["disk-add", "data.qcow2,size=1M"]).ok();
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    sandbox.is_clean();
}

#[test]
fn it_starts_with_closed_streams() {
    starts_with("exec START <&- >&- 2>&-");
}

#[test]
fn it_starts_under_nohup_and_in_a_pipeline() {
    starts_with("nohup START");
    // cat ends only when no process holds its pipe any more
    starts_with("START 2>&1 | cat");
}

#[test]
fn it_starts_with_few_descriptors() {
    starts_with("ulimit -n 64; exec START");
}

#[test]
fn it_starts_under_any_umask() {
    starts_with("umask 0; exec START");
    starts_with("umask 077; exec START");
}

#[test]
fn it_starts_without_a_home_and_an_empty_environment() {
    starts_with("unset HOME USER LOGNAME SHELL TERM XDG_RUNTIME_DIR; exec START");
    starts_with(
        "exec env -i PATH=\"$PATH\" HOME=/nonexistent VMRUN_RUNTIME_DIR=\"$VMRUN_RUNTIME_DIR\" VMRUN_ACCEL=tcg START",
    );
}

#[test]
fn it_starts_with_signals_ignored() {
    starts_with("trap '' HUP INT TERM PIPE; exec START");
}

#[test]
fn it_lives_on_when_its_group_is_killed() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let mut command = sandbox.program("setsid");
    command.args(["--wait", "sh", "-c", "\"$0\" qemu --detached \"$1\" && kill -TERM 0; exit 3"]);
    let mut shell = command.arg(VMRUN).arg(&image).stdout(Stdio::null()).spawn().unwrap();
    assert!(!wait_with_patience(&mut shell).success());
    let name = sandbox.ctl_json(["status"])["name"].as_str().unwrap().to_owned();
    sandbox.booted(&name);
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    sandbox.is_clean();
}

#[test]
fn the_folder_it_was_started_in_can_be_removed() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let folder = sandbox.file("elsewhere");
    std::fs::create_dir(&folder).unwrap();
    let mut command = sandbox.vmrun();
    command.current_dir(&folder).args(["qemu", "--detached", "../guest.img"]);
    assert_eq!(Done::of(command.output().unwrap()).line(), "guest");
    std::fs::remove_dir(&folder).unwrap();
    for process in of(sandbox.path()).iter().filter(|process| !process.is_qemu()) {
        assert_eq!(std::fs::read_link(format!("/proc/{}/cwd", process.pid)).unwrap().to_str(), Some("/"));
    }
    sandbox.ctl(["disk-add", "data.qcow2,size=1M"]).ok();
    assert!(sandbox.file("data.qcow2").exists() && image.exists());
    sandbox.booted("guest");
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    sandbox.is_clean();
}

#[test]
fn why_it_does_not_start_is_told_on_the_callers_terminal() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let image = image.to_str().unwrap();
    sandbox
        .run(["qemu", "--detached", "--machine", "nonsense", image])
        .fails(1, &["unsupported machine type"]);
    sandbox.run(["qemu", "--detached", "missing.img"]).fails(1, &["missing.img"]);
    sandbox.is_clean();
}

#[test]
fn it_returns_when_what_is_waited_for_has_come_true() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::EchoesConsole);
    let wait = format!("console={}", Guest::EchoesConsole.greeting());
    sandbox.detached(["--wait", &wait, image.to_str().unwrap()]);
    assert!(sandbox.run(["logs"]).line().contains(Guest::EchoesConsole.greeting()));
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    sandbox.is_clean();
}

#[test]
fn a_wait_that_cannot_come_true_is_told() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::PowersOff);
    let wait = ["qemu", "--detached", "--wait", "console=never", image.to_str().unwrap()];
    let done = sandbox.run(wait);
    assert_ne!(done.code, 0, "{done:#?}");
    assert!(done.stderr.contains("ended before"), "{done:#?}");
    sandbox.is_clean();

    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let image = image.to_str().unwrap();
    let wait = ["qemu", "--detached", "--wait", "console=never", "--wait-timeout", "2s", image];
    sandbox.run(wait).fails(5, &["was not met"]);
    sandbox.is_clean();
}

#[test]
fn of_two_starts_of_one_name_one_wins() {
    for _ in 0..3 {
        let sandbox = Sandbox::new();
        sandbox.boot_sector(Guest::ReactsToButton);
        for copy in ["a.img", "b.img", "c.img"] {
            std::fs::copy(sandbox.file("guest.img"), sandbox.file(copy)).unwrap();
        }
        let starts: Vec<Foreground> = ["a.img", "b.img", "c.img"]
            .iter()
            .map(|image| {
                let mut command = sandbox.vmrun();
                command.args(["qemu", "--detached", "--name", "same", image]);
                Foreground::start(command)
            })
            .collect();
        let ended: Vec<_> = starts.into_iter().map(Foreground::end).collect();
        let (won, lost): (Vec<_>, Vec<_>) = ended.iter().partition(|ended| ended.code() == 0);
        assert_eq!((won.len(), lost.len()), (1, 2), "{ended:#?}");
        assert!(lost.iter().all(|lost| lost.code() == 1 && lost.stderr.contains("same")), "{lost:#?}");
        sandbox.booted("same");
        sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
        sandbox.is_clean();
    }
}
