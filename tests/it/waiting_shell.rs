//! The shell that waits in each fork for its first command: what `exec` gives is the same, without new ports and without the agent.

use std::fs::{self, File};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::processes::eventually;
use crate::support::sandbox::{Sandbox, linux_guest};

/// A VM called `base` that has been frozen into `template` and goes on. Its guest's clock stands in the year 2001.
fn frozen() -> Sandbox {
    let sandbox = Sandbox::new();
    let guest = linux_guest();
    let words = ["--name", "base", "--mem", "256", "--ephemeral", "--forkable", "--wait", "agent"];
    sandbox.detached(words.iter().copied().chain([guest.to_str().unwrap()]));
    exec(&sandbox, "base", "date -s @1000000000");
    sandbox.ctl(["--vm", "base", "freeze", "template", "--keep-running"]).ok();
    sandbox
}

#[track_caller]
fn exec(sandbox: &Sandbox, vm: &str, script: &str) -> String {
    sandbox.ctl(["--vm", vm, "exec", "--", "sh", "-c", script]).line()
}

#[track_caller]
fn fork(sandbox: &Sandbox, name: &str, options: &[&str]) {
    let words = ["--from", "template", "--name", name, "--qmp-log", "qmp.log"];
    sandbox.detached(words.iter().chain(options).copied());
}

#[track_caller]
fn end(sandbox: &Sandbox, vm: &str) {
    sandbox.ctl(["--vm", vm, "shutdown", "--force"]).ok();
    fs::remove_file(sandbox.file("qmp.log")).ok();
}

/// The ports that QEMU was asked to plug.
fn plugged_ports(sandbox: &Sandbox) -> usize {
    let log = fs::read_to_string(sandbox.file("qmp.log")).unwrap();
    let messages = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    messages.filter(|message| message["msg"]["execute"] == "device_add").count()
}

/// The processes of the guest that run `sleep` for so long.
fn sleepers(sandbox: &Sandbox, vm: &str, seconds: &str) -> String {
    exec(sandbox, vm, &format!("ps | grep '[s]leep {seconds}' | wc -l"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn the_first_command_of_a_fork_is_one_as_any() {
    let sandbox = frozen();
    // words, streams and codes arrive as they are; the second command has ports of its own
    for (name, plugged) in [("first", 0), ("second", 2)] {
        fork(&sandbox, name, &[]);
        if plugged > 0 {
            exec(&sandbox, name, "true");
        }
        let script = "printf '<%s>' \"$@\"; echo bad >&2; cat; exit 7";
        let words = ["a b", "it's", "two\nlines", "$HOME `id` \\ \"", "", "grün"];
        let command = ["--vm", name, "exec", "--", "sh", "-c", script, "sh"];
        let done = sandbox.ctl(command.iter().chain(&words).copied());
        assert_eq!(done.code, 7, "{done:?}");
        assert_eq!(done.stdout, "<a b><it's><two\nlines><$HOME `id` \\ \"><><grün>");
        assert!(done.stderr.starts_with("bad\n"), "{done:?}");
        assert_eq!(plugged_ports(&sandbox), plugged);
        end(&sandbox, name);
    }
    // standard input, of which more comes than a pipe holds
    fork(&sandbox, "input", &[]);
    let text: String = (0..40_000).map(|number| format!("{number}\n")).collect();
    fs::write(sandbox.file("input"), &text).unwrap();
    let mut command = sandbox.vmrun();
    command.args(["ctl", "--vm", "input", "exec", "-i", "--", "sh", "-c", "wc -c; cat"]);
    let done = command.stdin(File::open(sandbox.file("input")).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), format!("{}\n", text.len()));
    assert_eq!(plugged_ports(&sandbox), 0);
    end(&sandbox, "input");
    // what is not there, cannot be executed, or is ended by a signal
    for (command, code, text) in
        [("nosuch", 127, "no command 'nosuch'"), ("/etc", 126, "cannot execute '/etc'")]
    {
        fork(&sandbox, "codes", &[]);
        let done = sandbox.ctl(["--vm", "codes", "exec", command]);
        assert_eq!((done.code, done.stderr.contains(text)), (code, true), "{done:?}");
        assert_eq!(plugged_ports(&sandbox), 0);
        end(&sandbox, "codes");
    }
    end_base(&sandbox);
}

fn end_base(sandbox: &Sandbox) {
    sandbox.ctl(["--vm", "base", "shutdown", "--force"]).ok();
    sandbox.is_clean();
}

#[test]
fn the_first_command_finds_the_clock_right() {
    let sandbox = frozen();
    fork(&sandbox, "a", &[]);
    let seen: u64 = exec(&sandbox, "a", "date +%s").parse().unwrap();
    assert!(now().abs_diff(seen) <= 2, "{seen}");
    end(&sandbox, "a");
    fork(&sandbox, "b", &["--no-time-sync"]);
    let seen: u64 = exec(&sandbox, "b", "date +%s").parse().unwrap();
    assert!(seen.abs_diff(1_000_000_000) < 600, "{seen}");
    assert_eq!(plugged_ports(&sandbox), 0);
    end(&sandbox, "b");
    end_base(&sandbox);
}

#[test]
fn a_first_command_that_is_not_wanted_any_more_is_killed() {
    let sandbox = frozen();
    fork(&sandbox, "a", &[]);
    let done =
        sandbox.ctl(["--vm", "a", "exec", "--timeout", "1s", "--", "sh", "-c", "echo begun; sleep 1001"]);
    assert_eq!(done.stdout, "begun\n", "{done:?}");
    assert!(done.code != 0 && done.stderr.contains("did not end within 1s and was killed"), "{done:?}");
    assert_eq!(sleepers(&sandbox, "a", "1001"), "0");
    end(&sandbox, "a");
    // its client is killed
    fork(&sandbox, "b", &[]);
    let mut client = sandbox.vmrun();
    client.args(["ctl", "--vm", "b", "exec", "--", "sh", "-c", "echo begun; sleep 1002"]);
    let mut client = client.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(client.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line, "begun\n");
    client.kill().unwrap();
    client.wait().unwrap();
    eventually("the command is killed", || sleepers(&sandbox, "b", "1002") == "0");
    end(&sandbox, "b");
    end_base(&sandbox);
}

#[test]
fn the_vm_that_was_frozen_and_its_forks_are_changed_saved_and_frozen_as_before() {
    let sandbox = frozen();
    // of the VM that goes on: what is saved needs no port, and after a reset no shell waits
    for freeze in [None, Some("second")] {
        if let Some(folder) = freeze {
            sandbox.ctl(["--vm", "base", "freeze", folder, "--keep-running"]).ok();
        }
        sandbox.ctl(["--vm", "base", "reset"]).ok();
        sandbox.ctl(["--vm", "base", "wait", "agent"]).ok();
        assert_eq!(exec(&sandbox, "base", "echo again"), "again");
    }
    // forks of a fork, of one whose shell still waits and of one whose shell does not
    for (name, used) in [("waits", false), ("does-not", true)] {
        fork(&sandbox, name, &[]);
        if used {
            exec(&sandbox, name, "true");
        }
        sandbox.ctl(["--vm", name, "wait", "agent"]).ok();
        sandbox.ctl(["--vm", name, "freeze", name]).ok();
        fs::remove_file(sandbox.file("qmp.log")).ok();
        sandbox.detached(["--from", name, "--name", "next", "--qmp-log", "qmp.log"]);
        assert_eq!(exec(&sandbox, "next", "echo forked"), "forked");
        assert_eq!(plugged_ports(&sandbox), 0, "{name}");
        assert_eq!(exec(&sandbox, "next", "echo twice"), "twice");
        end(&sandbox, "next");
    }
    end_base(&sandbox);
}

#[test]
fn a_template_that_is_refused_leaves_no_shell_in_the_guest() {
    let sandbox = frozen();
    let shells = |sandbox: &Sandbox| exec(sandbox, "base", "ps | grep -c '[v]mrun_mark'");
    // one that runs this
    exec(&sandbox, "base", "true");
    let before = shells(&sandbox);
    assert!(Path::new(&sandbox.file("template")).exists());
    let refused = sandbox.ctl(["--vm", "base", "freeze", "template", "--keep-running"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert_eq!(shells(&sandbox), before);
    end_base(&sandbox);
}
