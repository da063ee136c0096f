//! What test-suites ask of a VM, asked wrongly.

use std::io::{BufRead, BufReader};

use super::*;

#[test]
fn waits_that_make_no_sense() {
    let sandbox = Sandbox::new();
    let cases: [(&[&str], &[&str]); 12] = [
        (&["wait"], &["CONDITIONS"]),
        (&["wait", "console=("], &["console '('", "regular expression"]),
        (&["wait", "console="], &["console=REGEX"]),
        (&["wait", "runing"], &["'runing'", "running"]),
        (&["wait", "running=1"], &["'running'", "no value"]),
        (&["wait", "port=0"], &["port '0'", "1 to 65535"]),
        (&["wait", "port=http"], &["port 'http'"]),
        (&["wait", "event=no such"], &["event 'no such'"]),
        (&["wait", "running", "--timeout", "0"], &["--timeout 0", "more than 0"]),
        (&["wait", "running", "--timeout", "-1s"], &["--timeout", "'-1s' is negative"]),
        (&["wait", "running", "--any", "--all"], &["--any", "--all"]),
        (&["shutdown", "--timeout", "soon"], &["'soon' is not a duration"]),
    ];
    for (arguments, words) in cases {
        sandbox.ctl(arguments).fails(2, words);
    }
}

/// Each condition may be an expression that all that the guest prints is held against.
#[test]
fn a_hundred_conditions_are_enough() {
    let sandbox = Sandbox::new();
    sandbox.detached([sandbox.boot_sector(Guest::ReactsToButton)]);
    let wait = |count: usize| {
        let conditions = (1..count).map(|number| format!("console=never {number}"));
        let conditions = conditions.chain(["running".to_owned(), "--any".to_owned()]);
        sandbox.ctl(["wait".to_owned()].into_iter().chain(conditions))
    };
    wait(100).ok();
    wait(101).fails(2, &["at most 100 conditions"]);
    wait(5000).fails(2, &["at most 100 conditions"]);
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn events_that_nobody_knows_are_taken_with_a_doubt() {
    let sandbox = Sandbox::new();
    sandbox.detached([sandbox.boot_sector(Guest::ReactsToButton)]);
    let late = sandbox.ctl(["wait", "event=SHUTDWON", "--timeout", "100ms"]);
    late.fails(5, &["warning: ", "'SHUTDWON'", "did you mean SHUTDOWN?"]);
    let mut events = sandbox.vmrun();
    events.args([
        "ctl",
        "events",
        "--since",
        "0",
        "--filter",
        "NOT_YET_INVENTED",
        "--filter",
        "RESUME",
        "--filter",
        "VMRUN_STATE",
    ]);
    let mut events =
        events.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // it listens once it tells of what was before
    let mut told = BufReader::new(events.stdout.take().unwrap());
    told.read_line(&mut String::new()).unwrap();
    // both are over when the VM is
    sandbox.ctl(["shutdown", "--force"]).ok();
    let done = Done::of(events.wait_with_output().unwrap()).ok();
    assert!(
        done.stderr.contains("'NOT_YET_INVENTED'")
            && !done.stderr.contains("RESUME")
            && !done.stderr.contains("VMRUN_STATE"),
        "{done:#?}"
    );
}

#[test]
fn what_needs_a_guest_agent_says_how_to_get_one() {
    let sandbox = Sandbox::new();
    sandbox.detached([sandbox.boot_sector(Guest::ReactsToButton)]);
    std::fs::write(sandbox.file("x"), "x").unwrap();
    let cases: [&[&str]; 3] =
        [&["exec", "true"], &["copy-to", "x", "/tmp/x"], &["copy-from", "/etc/hostname", "y"]];
    for arguments in cases {
        sandbox.ctl(arguments).fails(4, &["agent", "hint: ", "qemu-guest-agent"]);
    }
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn pictures_and_keys_that_cannot_be() {
    let sandbox = Sandbox::new();
    sandbox.detached([
        "--display".into(),
        "headless".into(),
        sandbox.boot_sector(Guest::ReactsToButton).into_os_string(),
    ]);
    sandbox
        .ctl(["screenshot", "no/such/folder.png"])
        .fails(1, &["no/such/folder.png", "there is no directory no/such"]);
    sandbox.ctl(["screenshot", "."]).fails(1, &[".: "]);
    sandbox.ctl(["send-key", "ctrl-delte"]).fails(2, &["delte", "did you mean 'delete'"]);
    sandbox.ctl(["send-key"]).fails(2, &["KEYS"]);
    sandbox.ctl(["type", "gr\u{fc}n"]).fails(2, &["US keyboard"]);
    sandbox.ctl(["shutdown", "--force"]).ok();
}
