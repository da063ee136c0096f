//! Commands on a terminal of the guest: `exec -it`, `run -it`, `vmrun shell`. Each runs on a real terminal here.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::guest_exec::with_agent;
use crate::support::linux::Linux;
use crate::support::processes::{eventually, send};
use crate::support::pty::OnTerminal;
use crate::support::sandbox::{Done, PATIENCE, Sandbox, linux_guest};

/// The host's `script`; the guest has no program that makes terminals, but the C library that this needs.
const SCRIPT: &str = "/usr/bin/script";

fn vmrun(sandbox: &Sandbox, words: &[&str]) -> Command {
    let mut command = sandbox.vmrun();
    command.args(words).env("TERM", "vt220");
    command
}

/// A guest that can make terminals.
fn with_script() -> Linux {
    let vm = with_agent(&["--name", "web"]);
    vm.ctl(["copy-to", SCRIPT, "/bin/script"]);
    vm.run("chmod 755 /bin/script; script --version");
    vm
}

fn on_terminal(vm: &Linux, words: &[&str]) -> OnTerminal {
    let mut terminal = OnTerminal::start_with_size(&vmrun(&vm.sandbox, words), 31, 97);
    // its prompt
    terminal.shows("# ");
    assert!(terminal.is_raw());
    terminal
}

#[test]
fn its_keys_size_and_code_are_those_of_the_terminal_here() {
    let vm = with_script();
    for words in [&["exec", "-it", "web", "--", "sh"][..], &["ctl", "exec", "--tty", "sh"], &["shell", "web"]]
    {
        let mut terminal = on_terminal(&vm, words);
        terminal.press("tty; stty size; echo $TERM\r");
        for text in ["/dev/pts/", "31 97", "vt220", "# "] {
            terminal.shows(text);
        }
        // the guest's terminal echoes and edits
        terminal.press("echo one twoo\x7f three\r");
        terminal.shows("one two three");
        // Ctrl-C is the guest's
        terminal.press("sleep 4242\r");
        eventually("it sleeps", || vm.run("ps").contains("sleep 4242"));
        terminal.press("\x03");
        terminal.shows("# ");
        terminal.press("echo code $?\r");
        terminal.shows("code 130");
        // a new size
        terminal.press("until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; echo re''sized\r");
        terminal.resize(40, 120);
        terminal.shows("resized");
        terminal.press("exit 7\r");
        assert_eq!(terminal.end().code(), Some(7), "{words:?}");
    }
    vm.quit().is_clean();
}

#[test]
fn the_terminal_is_restored_and_nothing_runs_on_after_any_end() {
    let vm = with_script();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        let mut terminal = on_terminal(&vm, &["exec", "-it", "web", "--", "sh"]);
        terminal.press("sleep 4242\r");
        eventually("it sleeps", || vm.run("ps").contains("sleep 4242"));
        send(terminal.pid(), signal);
        // the settings are compared
        terminal.end();
        eventually("nothing is left in the guest", || {
            let all = vm.run("ps");
            !all.contains("sleep 4242") && !all.contains("script -q")
        });
    }
    // the VM's end
    let terminal = on_terminal(&vm, &["exec", "-it", "web", "--", "sh"]);
    let sandbox = vm.quit();
    assert_ne!(terminal.end().code(), Some(0));
    sandbox.is_clean();
}

#[test]
fn a_fork_runs_a_command_on_a_terminal() {
    let sandbox = Sandbox::new();
    let copy = format!("{SCRIPT}:/bin/script");
    let guest = linux_guest();
    let mut command = vmrun(&sandbox, &["run", "--stdin", "--tty", "--mem", "256", "--copy-in", &copy]);
    command.arg(guest).args(["--", "sh"]);
    let mut terminal = OnTerminal::start_with_size(&command, 31, 97);
    terminal.shows("# ");
    terminal.press("stty size; exit 9\r");
    terminal.shows("31 97");
    assert_eq!(terminal.end().code(), Some(9));
    sandbox.is_clean();
}

#[test]
fn what_is_missing_is_named() {
    let vm = with_agent(&["--name", "web"]);
    // no terminal here
    for words in [&["exec", "-it", "web", "--", "true"][..], &["run", "-it", "no-such", "--", "true"]] {
        let done = Done::of(vmrun(&vm.sandbox, words).stdin(Stdio::null()).output().unwrap());
        let code = if words[0] == "run" { 125 } else { 2 };
        done.fails(code, &["standard input is not a terminal"]);
    }
    vm.sandbox.run(["exec", "-t", "--json", "web", "--", "true"]).fails(2, &["JSON"]);
    // nothing in the guest that makes one
    let mut terminal = OnTerminal::start(&vmrun(&vm.sandbox, &["exec", "-it", "web", "--", "true"]));
    terminal.shows("it has neither `script` (of util-linux) nor python3");
    assert_eq!(terminal.end().code(), Some(126));
    vm.sandbox.run(["shell", "no-such"]).fails(3, &["no-such"]);
    vm.sandbox.run(["shell", "a b"]).fails(2, &["' '"]);
    // a pipe: a shell all the same
    let mut piped = vmrun(&vm.sandbox, &["shell", "web", "--agent-timeout", "20s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(b"echo $HOME; pwd; exit 5\n").unwrap();
    let done = Done::of(piped.wait_with_output().unwrap());
    assert_eq!((done.code, done.stdout.as_str()), (5, "/root\n/root\n"), "{done:?}");
    // without an sshd there is no ssh, and that is said
    let done = vm.sandbox.run(["ssh", "web", "true"]).fails(255, &["the guest has no sshd", "vmrun shell"]);
    assert_eq!(done.stdout, "");
    for (words, code, told) in [
        (&["ssh", "no-such"][..], 3, "no-such"),
        (&["ssh", "-x@web"], 2, "-x"),
        (&["ssh", "web;id"], 2, "';'"),
        (&["scp", "$(id):x", "."], 2, "'$'"),
        (&["rsync", "a;id:x", "."], 2, "';'"),
        (&["ssh-config", "a b"], 2, "' '"),
        (&["ssh-proxy", "no-such", "--agent-timeout", "1s"], 3, "no-such"),
    ] {
        vm.sandbox.run(words).fails(code, &[told]);
    }
    // a file that is no key
    let key = vm.sandbox.state_home().join("vmrun/ssh/id_ed25519");
    std::fs::write(&key, "no key\n").unwrap();
    vm.sandbox.run(["ssh", "web", "true"]).fails(1, &["id_ed25519 is not a private key", "rm "]);
    vm.quit().is_clean();
}

#[test]
fn each_byte_comes_back_before_the_next_one_is_sent() {
    let vm = with_agent(&["--name", "web"]);
    let mut cat = vmrun(&vm.sandbox, &["exec", "-i", "web", "--", "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (cat.stdin.take().unwrap(), cat.stdout.take().unwrap());
    let (send, bytes) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut byte = [0];
        while output.read_exact(&mut byte).is_ok() {
            send.send(byte[0]).unwrap();
        }
    });
    // one of them is the first letter of the mark that ends the output
    for byte in *b"0123456789abcdef" {
        input.write_all(&[byte]).unwrap();
        assert_eq!(bytes.recv_timeout(PATIENCE), Ok(byte), "{}", char::from(byte));
    }
    drop(input);
    assert!(cat.wait().unwrap().success());
    reader.join().unwrap();
    assert!(bytes.recv().is_err(), "nothing of the mark is in the output");
    vm.quit().is_clean();
}
