//! Waits: what is refused, how long they last, what is told meanwhile.

use std::time::Duration;

use serde_json::json;

use crate::support::boot_sector::Guest;
use crate::support::pty::OnTerminal;
use crate::support::sandbox::{Done, Foreground, Sandbox, linux_guest};

fn idle() -> Sandbox {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    sandbox.detached([image]);
    sandbox
}

#[test]
fn several_conditions_need_a_word_that_says_how_many() {
    let sandbox = Sandbox::new();
    // before any VM is looked for
    let words = ["any or for all of 'running' and 'agent'", "hint: add `--any`", "`--all`"];
    sandbox.ctl(["wait", "running", "agent"]).fails(2, &words);
    sandbox.ctl(["wait", "running", "agent", "--any"]).fails(3, &["no VM is running"]);
}

#[test]
fn events_are_named_in_any_case_and_what_never_comes_is_told() {
    let sandbox = idle();
    let mut waiting = sandbox.vmrun();
    waiting.args(["ctl", "wait", "event=stop", "--timeout", "100s"]);
    let waiting = Foreground::start(waiting);
    let mut filtered = sandbox.vmrun();
    filtered.args(["ctl", "events", "--since", "0", "--filter", "sToP"]);
    let filtered = Foreground::start(filtered);
    // the wait is for events from now on
    crate::support::processes::eventually("the wait is met", || {
        sandbox.ctl(["pause"]).ok();
        sandbox.ctl(["resume"]).ok();
        waiting.next_line(std::time::Instant::now() + Duration::from_millis(200)).is_some_and(|line| {
            assert!(line.starts_with("event=stop"), "{line}");
            true
        })
    });
    filtered.wait_for("\"STOP\"");
    assert_eq!(waiting.end().code(), 0);
    // QEMU says which events it has
    let never = sandbox.ctl(["wait", "event=STOPP", "--timeout", "100ms"]);
    never.fails(5, &["QEMU has no event 'STOPP'", "never come", "did you mean STOP?"]);
    let known = sandbox.ctl(["wait", "event=vmrun_state", "--timeout", "100ms"]);
    assert!(!known.stderr.contains("warning"), "{known:#?}");
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn a_wait_that_times_out_says_what_the_console_printed_last() {
    let sandbox = idle();
    sandbox.ctl(["wait", &format!("console={}", Guest::ReactsToButton.greeting())]).ok();
    let late = sandbox.ctl(["wait", "console=never", "--timeout", "200ms"]);
    let words =
        ["'console=never' was not met within 200ms", "last line is: ", Guest::ReactsToButton.greeting()];
    late.fails(5, &words);
    // no limit, and one that is none
    let mut waiting = sandbox.vmrun();
    waiting.args(["ctl", "--json", "wait", "paused", "--timeout", "none"]);
    let waiting = Foreground::start(waiting);
    sandbox.ctl(["wait", "paused", "--timeout", "never"]).fails(2, &["'never' is not a duration"]);
    sandbox.ctl(["pause"]).ok();
    let ended = waiting.end();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    assert!(ended.stdout.contains(&json!("paused").to_string()), "{ended:#?}");
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn a_person_who_waits_long_sees_the_console() {
    let sandbox = idle();
    let mut command = sandbox.vmrun();
    command.args(["ctl", "wait", "paused"]);
    let mut waiting = OnTerminal::start_with_size(&command, 24, 200);
    waiting.shows("waiting for 'paused' (1 s)");
    waiting.shows(Guest::ReactsToButton.greeting());
    sandbox.ctl(["pause"]).ok();
    // the line is erased before the result is printed
    waiting.shows("\r\x1b[Kpaused after");
    assert_eq!(waiting.end().code(), Some(0));
    sandbox.ctl(["shutdown", "--force"]).ok();
    // the same while a VM starts in the background
    let mut command = sandbox.vmrun();
    command.args(["qemu", "--detached", "--wait", "paused", "--name", "slow", "guest.img"]);
    let mut waiting = OnTerminal::start_with_size(&command, 24, 200);
    waiting.shows("waiting for 'paused' (1 s)");
    waiting.shows(Guest::ReactsToButton.greeting());
    sandbox.ctl(["pause"]).ok();
    assert_eq!(waiting.end().code(), Some(0));
    sandbox.ctl(["shutdown", "--force"]).ok();
}

/// The Linux guest's kernel without anything that it could run: it panics before it could load the driver of the panic device.
fn panics(options: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let kernel = format!("{}-kernel", linux_guest().display());
    std::os::unix::fs::symlink(kernel, sandbox.file("rootless-kernel")).unwrap();
    std::fs::write(sandbox.file("rootless-cmdline"), format!("console=ttyS0 {options}")).unwrap();
    sandbox.detached(["--mem", "256", "--networking", "none", "--ephemeral", "rootless"]);
    sandbox
}

#[test]
fn a_panic_that_only_the_console_shows_ends_waits() {
    let sandbox = panics("panic=0");
    let why = "Unable to mount root fs";
    let waited = sandbox.ctl(["wait", "agent", "--timeout", "100s"]);
    waited
        .fails(10, &["the guest's kernel panicked while 'agent' was waited for", why, "hint: `vmrun logs`"]);
    let status = sandbox.ctl_json(["status"]);
    assert_eq!(status["state"], "running", "{status}");
    assert!(status["reason"].as_str().unwrap().contains(why), "{status}");
    let mut events = sandbox.vmrun();
    events.args(["ctl", "events", "--since", "0", "--filter", "VMRUN_CONSOLE_PANIC"]);
    assert!(Foreground::start(events).wait_for("VMRUN_CONSOLE_PANIC").contains(why));
    // what needs no guest is waited for all the same
    sandbox.ctl(["wait", "running"]).ok();
    sandbox.ctl(["wait", "--any", "agent", "paused", "--timeout", "100ms"]).fails(5, &[]);
    // another start of the guest is another matter
    sandbox.ctl(["reset"]).ok();
    assert_eq!(sandbox.ctl_json(["status"])["reason"], json!(null));
    sandbox.ctl(["wait", "agent", "--timeout", "100s"]).fails(10, &[why]);
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn a_guest_that_resets_again_and_again_ends_waits() {
    let sandbox = panics("panic=-1");
    let waited = sandbox.ctl(["wait", "agent", "--timeout", "110s"]);
    waited.fails(
        10,
        &["has reset 5 times", "'agent'", "its kernel panicked", "Unable to mount root fs", "--max-resets"],
    );
    sandbox.ctl(["shutdown", "--force"]).ok();
    // without a panic, too
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ResetsForEver);
    sandbox.detached([image]);
    let waited = sandbox.ctl(["wait", "port=80", "--timeout", "100s"]);
    waited.fails(4, &["has reset 5 times", "'port=80'"]);
    sandbox.ctl(["shutdown", "--force"]).ok();
}

/// A VM with a disk of which its guest never lets go.
fn with_a_kept_disk() -> Sandbox {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    sandbox.detached(["--ephemeral", image.to_str().unwrap()]);
    sandbox.ctl(["wait", &format!("console={}", Guest::ReactsToButton.greeting())]).ok();
    // what was there from the start stays anyhow
    sandbox.ctl(["disk-add", "d.qcow2,size=1M,id=kept"]).ok();
    sandbox
}

#[test]
fn a_call_that_takes_long_says_what_is_waited_for() {
    let sandbox = with_a_kept_disk();
    let start = |words: &[&str], variables: &[(&str, &str)]| {
        let mut command = sandbox.vmrun();
        command.args(words).envs(variables.iter().copied());
        OnTerminal::start(&command)
    };
    let removal = ["ctl", "disk-remove", "kept", "--timeout", "3s"];
    let mut waiting = start(&removal, &[]);
    waiting.shows("\r\x1b[Kwaiting for the guest to release the disk (");
    waiting.shows("(1.");
    // erased before the result is printed
    waiting.shows("\r\x1b[Kvmrun: ");
    waiting.shows("the guest has not released disk 'kept'");
    assert_eq!(waiting.end().code(), Some(5));
    // a terminal that cannot overwrite, and none
    let (status, shown) = start(&removal, &[("TERM", "dumb")]).end_with_output();
    assert!(!shown.contains("waiting for") && !shown.contains('\x1b'), "{shown:?}");
    assert_eq!(status.code(), Some(5));
    let none = sandbox.ctl(["disk-remove", "kept", "--timeout", "700ms"]).fails(5, &[]);
    assert!(!none.stderr.contains("waiting for the guest") && !none.stderr.contains('\r'), "{none:#?}");
    // what is done at once says nothing
    let (_, shown) = start(&["ctl", "status"], &[]).end_with_output();
    assert!(!shown.contains("\x1b[K"), "{shown:?}");
    // on a narrow terminal it stays in its row
    let mut command = sandbox.vmrun();
    command.args(removal);
    let mut narrow = OnTerminal::start_with_size(&command, 24, 30);
    narrow.shows("\r\x1b[Kwaiting for the guest to rel");
    let (_, rest) = narrow.end_with_output();
    let until_erased = rest.split('\r').next().unwrap();
    assert!(until_erased.chars().count() <= 3, "{rest:?}");
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn a_vm_is_taken_over_while_a_person_sees_what_is_waited_for() {
    let sandbox = with_a_kept_disk();
    let supervisor = i32::try_from(sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap()).unwrap();
    let mut command = sandbox.vmrun();
    command.args(["ctl", "wait", "paused"]);
    let mut waiting = OnTerminal::start(&command);
    waiting.shows("waiting for 'paused' (0 s)");
    crate::support::orphan::kill(supervisor);
    // by the wait itself, which has a thread for its line, or by this
    sandbox.ctl(["pause"]).ok();
    waiting.shows("paused after");
    assert_eq!(waiting.end().code(), Some(0));
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn colours_are_for_terminals_unless_a_variable_says_otherwise() {
    let sandbox = Sandbox::new();
    let page = |variables: &[(&str, &str)]| {
        let mut command = sandbox.vmrun();
        command.args(["ls", "--help"]).envs(variables.iter().copied());
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            if !variables.iter().any(|(set, _)| *set == name) {
                command.env_remove(name);
            }
        }
        command
    };
    let on_terminal = |variables: &[(&str, &str)]| OnTerminal::start(&page(variables)).end_with_output().1;
    let on_pipe = |variables: &[(&str, &str)]| Done::of(page(variables).output().unwrap()).ok().stdout;
    let terminal = ("TERM", "xterm");
    assert!(on_terminal(&[terminal]).contains("\x1b["));
    assert!(!on_pipe(&[terminal]).contains('\x1b'));
    assert!(!on_terminal(&[terminal, ("NO_COLOR", "1")]).contains("\x1b["));
    assert!(!on_terminal(&[("TERM", "dumb")]).contains("\x1b["));
    assert!(on_pipe(&[terminal, ("CLICOLOR_FORCE", "1")]).contains("\x1b["));
    assert!(!on_pipe(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).contains('\x1b'));
}
