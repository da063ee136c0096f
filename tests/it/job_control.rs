//! A console among other jobs of a real shell on a real terminal. Who has the terminal, and whether a process is stopped, is asked of the
//! kernel.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::boot_sector::Guest;
use crate::support::processes::{self, Process, eventually, qemu_of, send, within};
use crate::support::pty::OnTerminal;
use crate::support::sandbox::Sandbox;

/// Longer than a process in the background takes to look whether it has been fetched.
const A_WHILE: std::time::Duration = std::time::Duration::from_secs(1);

/// bash with job control, which does not take the terminal's keys one by one itself; `$VMRUN` is the program.
fn shell(sandbox: &Sandbox) -> OnTerminal {
    let vmrun = sandbox.vmrun();
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "--noediting", "-i"]);
    bash.envs(vmrun.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bash.env("VMRUN", vmrun.get_program()).env("PS1", "shell> ").env("HISTFILE", "/dev/null");
    bash.current_dir(vmrun.get_current_dir().unwrap());
    let mut terminal = OnTerminal::start(&bash);
    terminal.shows("shell> ");
    terminal
}

/// As in the third field of `/proc/PID/stat`.
fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat[stat.rfind(')').unwrap() + 2..].starts_with('T')
}

fn supervisor(sandbox: &Sandbox) -> i32 {
    i32::try_from(sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap()).unwrap()
}

fn has_greeted(sandbox: &Sandbox) {
    eventually("it runs", || sandbox.run(["ls", "--json"]).json()[0]["state"] == "running");
    sandbox.ctl(["wait", &format!("console={}", Guest::EchoesConsole.greeting()), "--timeout", "60s"]).ok();
}

#[test]
fn a_vm_in_the_background_leaves_the_terminal_alone_until_it_is_fetched() {
    for setting in ["-tostop", "tostop"] {
        let sandbox = Sandbox::new();
        let image = sandbox.boot_sector(Guest::EchoesConsole);
        let mut shell = shell(&sandbox);
        shell.press(&format!("stty {setting}; $VMRUN qemu {} &\n", image.display()));
        has_greeted(&sandbox);
        let (supervisor, qemu) = (supervisor(&sandbox), qemu_of(sandbox.path()));
        let undisturbed = |shell: &mut OnTerminal| {
            // keys are the shell's, and what it does is done by the terminal as before
            shell.press("echo mar''k\n");
            shell.shows("mark");
            assert!(
                !within(A_WHILE, || is_stopped(supervisor) || is_stopped(qemu) || shell.is_raw()),
                "{setting}"
            );
            assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
        };
        undisturbed(&mut shell);
        shell.press("fg\n");
        eventually("it has the terminal", || shell.is_raw());
        // nothing that was typed before came to the guest
        shell.press("typed\r");
        sandbox.ctl(["wait", "console=TYPED", "--timeout", "60s"]).ok();
        let log = sandbox.run(["logs"]).ok().stdout.to_lowercase();
        assert!(!log.contains("mark"), "{log}");

        // the shell takes the terminal back from a job that has stopped, and it stays the shell's with `bg`
        send(supervisor, Signal::SIGSTOP);
        shell.shows("stopped");
        shell.press("bg\n");
        eventually("it goes on", || !is_stopped(supervisor));
        undisturbed(&mut shell);
        shell.press("fg\n");
        eventually("it has the terminal again", || shell.is_raw());
        shell.press("\x01x");
        eventually("the shell has it", || !shell.is_raw());
        eventually("QEMU has ended", || !processes::of(sandbox.path()).iter().any(Process::is_qemu));
        shell.press("stty -tostop; exit\n");
        // with the terminal as it was before
        let _ = shell.end();
        sandbox.is_clean();
    }
}

#[test]
fn a_console_in_the_background_is_fetched_as_well() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::EchoesConsole);
    sandbox.detached([&image]);
    has_greeted(&sandbox);
    let mut shell = shell(&sandbox);
    shell.press("$VMRUN console & echo pid=$!=\n");
    shell.shows("pid=");
    shell.shows(Guest::EchoesConsole.greeting());
    shell.press("echo mar''k\n");
    shell.shows("mark");
    assert!(!shell.is_raw());
    shell.press("fg\n");
    eventually("it has the terminal", || shell.is_raw());
    // it is no supervisor: it stops as anything does, and gives the terminal back
    shell.press("typed\r");
    sandbox.ctl(["wait", "console=TYPED", "--timeout", "60s"]).ok();
    let console = processes::of(sandbox.path());
    let console = console.iter().find(|process| process.command.contains(" console")).unwrap().pid;
    send(console, Signal::SIGTSTP);
    shell.shows("stopped");
    eventually("it has stopped and given the terminal back", || is_stopped(console) && !shell.is_raw());
    shell.press("fg\n");
    eventually("it has the terminal again", || shell.is_raw());
    shell.press("\x01d");
    eventually("the shell has it", || !shell.is_raw());
    // nor do others that never ask for the terminal stop
    shell.press("$VMRUN ctl wait event=NEVER --timeout 1s & wait; echo do''ne\n");
    shell.shows("done");
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    shell.press("exit\n");
    let _ = shell.end();
    sandbox.is_clean();
}

#[test]
fn the_key_that_suspends_pauses_the_console_and_not_the_vm() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::EchoesConsole);
    let mut shell = shell(&sandbox);
    // its output is no terminal: so the terminal keeps its keys
    shell.press(&format!("$VMRUN qemu {} > out\n", image.display()));
    has_greeted(&sandbox);
    let (supervisor, qemu) = (supervisor(&sandbox), qemu_of(sandbox.path()));
    shell.press("\x1a");
    shell.shows("the console is paused");
    assert!(!within(A_WHILE, || is_stopped(supervisor) || is_stopped(qemu)));
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    shell.press("typed\n");
    assert!(!within(A_WHILE, || fs::read_to_string(sandbox.file("out")).unwrap().contains("TYPED")));
    send(supervisor, Signal::SIGCONT);
    eventually("what was typed", || fs::read_to_string(sandbox.file("out")).unwrap().contains("TYPED"));
    // by its key as well, which throws away what was typed before it
    shell.press("\x1a");
    shell.shows("the console is paused");
    shell.press("\x1a");
    shell.shows("the console goes on");
    shell.press("again\n");
    eventually("what was typed", || fs::read_to_string(sandbox.file("out")).unwrap().contains("AGAIN"));
    shell.press("\x03");
    eventually("QEMU has ended", || !processes::of(sandbox.path()).iter().any(Process::is_qemu));
    shell.press("exit\n");
    let _ = shell.end();
    sandbox.is_clean();
}
