//! The console on a real terminal: keys, and that the terminal is afterwards as it was before.

use std::io::Write;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::boot_sector::{Guest, says};
use crate::support::processes::{qemu_of, send};
use crate::support::pty::OnTerminal;
use crate::support::sandbox::Sandbox;

const CTRL_A: &str = "\x01";

/// A foreground VM on a terminal that has greeted.
fn on_terminal(guest: Guest, options: &[&str]) -> (Sandbox, OnTerminal) {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(guest);
    let mut command = sandbox.vmrun();
    command.arg("qemu").args(options).arg(image);
    let mut vm = OnTerminal::start(&command);
    vm.shows(guest.greeting());
    (sandbox, vm)
}

#[track_caller]
fn ends(sandbox: &Sandbox, vm: OnTerminal, code: i32) {
    assert_eq!(vm.end().code(), Some(code));
    sandbox.is_clean();
}

#[test]
fn the_terminal_is_restored_when_the_guest_goes_off() {
    let (sandbox, vm) = on_terminal(Guest::PowersOff, &[]);
    ends(&sandbox, vm, 0);
    // what vmrun says of the panic may come in the middle of the greeting
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Panics);
    let mut command = sandbox.vmrun();
    command.arg("qemu").arg(image);
    ends(&sandbox, OnTerminal::start(&command), 10);
}

#[test]
fn the_terminal_is_restored_after_signals() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let (sandbox, vm) = on_terminal(Guest::ReactsToButton, &[]);
        assert!(vm.is_raw());
        send(vm.pid(), signal);
        ends(&sandbox, vm, 0);
    }
}

#[test]
fn the_terminal_is_restored_when_qemu_crashes() {
    for signal in [Signal::SIGSEGV, Signal::SIGKILL] {
        let (sandbox, vm) = on_terminal(Guest::IgnoresButton, &[]);
        send(qemu_of(sandbox.path()), signal);
        ends(&sandbox, vm, 11);
    }
}

#[test]
fn the_terminal_is_left_alone_when_the_start_fails() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::PowersOff);
    let mut command = sandbox.vmrun();
    command.args(["qemu", "--machine", "no-such-machine"]).arg(image);
    let mut vm = OnTerminal::start(&command);
    vm.shows("unsupported machine type");
    ends(&sandbox, vm, 1);
}

#[test]
fn the_escape_key_shuts_down_and_the_second_time_at_once() {
    let (sandbox, mut vm) = on_terminal(Guest::ReactsToButton, &[]);
    vm.press("\x01x");
    vm.shows(says::BUTTON);
    ends(&sandbox, vm, 0);
    let (sandbox, mut vm) = on_terminal(Guest::IgnoresButton, &[]);
    vm.press("\x01x");
    sandbox.ctl(["wait", "event=VMRUN_LADDER", "--timeout", "100ms"]);
    vm.press("\x01x");
    ends(&sandbox, vm, 12);
}

#[test]
fn a_person_is_told_the_keys_and_how_long_a_shutdown_takes() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::IgnoresButton);
    let mut command = sandbox.vmrun();
    command.args(["qemu", "--stop-timeout", "12s", "--name", "web"]).arg(&image);
    let mut vm = OnTerminal::start(&command);
    vm.shows("vmrun: 'web' runs: Ctrl-a x shuts it down, Ctrl-a h helps");
    vm.shows(Guest::IgnoresButton.greeting());
    vm.press("\x01x");
    vm.shows("the guest is asked to shut down, and has 12s for it; Ctrl-a x again ends it at once");
    vm.shows("10 s left to shut down");
    vm.press("\x01x");
    vm.shows("QEMU is told to quit");
    ends(&sandbox, vm, 12);
    // not for programs: neither in a pipe nor when it is to be quiet
    for options in [&["--quiet"][..], &["--escape", "none"]] {
        let mut command = sandbox.vmrun();
        command.arg("qemu").args(options).arg(&image);
        let mut vm = OnTerminal::start(&command);
        vm.shows(Guest::IgnoresButton.greeting());
        sandbox.ctl(["shutdown", "--force"]).ok();
        let (_, output) = vm.end_with_output();
        assert!(!output.contains("Ctrl-a"), "{output}");
    }
    // on somebody else's VM the same
    sandbox.detached([image.to_str().unwrap(), "--name", "web"]);
    let mut command = sandbox.vmrun();
    command.arg("console");
    let mut console = OnTerminal::start(&command);
    console.shows("the console of 'web': Ctrl-a d leaves it, Ctrl-a h helps");
    console.shows(Guest::IgnoresButton.greeting());
    console.press("\x01x");
    console.shows("has 30s for it");
    console.press("\x01x");
    console.shows("QEMU is told to quit");
    let _ = console.end();
    sandbox.is_clean();
}

#[test]
fn the_interrupt_key_asks_and_the_second_time_ends_at_once() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::IgnoresButton);
    let vmrun = sandbox.vmrun();
    let mut command = Command::new("sh");
    // the console reads nothing, so the terminal keeps its keys
    command.args(["-c", "exec \"$0\" qemu -v \"$1\" < /dev/null"]).arg(vmrun.get_program()).arg(&image);
    command.envs(vmrun.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(vmrun.get_current_dir().unwrap());
    let mut vm = OnTerminal::start(&command);
    vm.shows(Guest::IgnoresButton.greeting());
    vm.press("\x03");
    vm.shows("pressing the power button");
    vm.press("\x03");
    vm.shows("telling QEMU to quit");
    ends(&sandbox, vm, 12);
}

#[test]
fn keys_tell_help_status_and_what_leaving_means() {
    let (sandbox, mut vm) = on_terminal(Guest::EchoesConsole, &[]);
    // interrupt, end of file and suspend are the guest's keys, too
    vm.press("ab\x03\x04\x1ac\r");
    vm.shows("AB\x03\x04\x1aC");
    vm.press("\x01h");
    vm.shows("shut down");
    // this console cannot be left
    assert!(!vm.shows("the key itself").to_lowercase().contains("leave"));
    // within a line of the guest's
    vm.press("d");
    vm.shows("D");
    vm.press("\x01s");
    let status = vm.shows("running");
    assert!(status.to_lowercase().contains("\nvmrun: "), "{status:?}");
    vm.press("\x01d");
    vm.shows("--detached");
    vm.press(CTRL_A);
    vm.press(CTRL_A);
    vm.press("z");
    vm.shows("\x01Z");
    vm.press("\x01x");
    ends(&sandbox, vm, 0);
}

#[test]
fn the_escape_key_can_be_another_or_none() {
    let (sandbox, mut vm) = on_terminal(Guest::EchoesConsole, &["--escape", "ctrl-]"]);
    vm.press("\x01x");
    vm.shows("\x01X");
    vm.press("\x1dx");
    ends(&sandbox, vm, 0);
    let (sandbox, mut vm) = on_terminal(Guest::EchoesConsole, &["--escape", "none"]);
    vm.press("\x01x\x1d");
    vm.shows("\x01X\x1d");
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    ends(&sandbox, vm, 0);
}

#[test]
fn a_terminal_that_hangs_up_ends_the_vm_through_the_guest() {
    let (sandbox, mut vm) = on_terminal(Guest::ReactsToButton, &[]);
    vm.press("\x01h");
    vm.shows("shut down");
    send(vm.pid(), Signal::SIGHUP);
    ends(&sandbox, vm, 0);
}

#[test]
fn a_console_is_left_with_a_key_and_the_vm_goes_on() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::EchoesConsole);
    let name = sandbox.detached([&image]);
    let greeting = Guest::EchoesConsole.greeting();
    sandbox.ctl(["wait", &format!("console={greeting}")]).ok();
    let console = |options: &[&str]| {
        let mut command: Command = sandbox.vmrun();
        command.arg("console").args(options);
        let mut console = OnTerminal::start(&command);
        // what was printed before comes first
        console.shows(greeting);
        console
    };
    let mut first = console(&[]);
    assert!(first.is_raw());
    first.press("q");
    first.shows("Q");
    let mut second = console(&["--read-only", &name]);
    second.shows("Q");
    second.press("n");
    second.press("\x01s");
    second.shows("running");
    first.press("w");
    // had the read-only one's key come through, it would be before this
    first.shows("W");
    second.shows("W");
    first.press("\x01h");
    first.shows("d leave");
    // within a line of the guest's
    first.press("x");
    first.shows("X");
    first.press("\x01d");
    let (status, last) = first.end_with_output();
    assert_eq!(status.code(), Some(0));
    let told = format!("\nvmrun: left the console; '{name}' goes on");
    assert!(last.to_lowercase().contains(&told), "{last:?}");
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    let mut third = console(&[]);
    third.shows("QWX");
    third.press("\x01x");
    assert_eq!(third.end().code(), Some(0));
    assert_eq!(second.end().code(), Some(0));
    sandbox.is_clean();
}

/// The answers to them would be typed into the shell, or into another program of the guest's.
#[test]
fn what_a_guest_asked_the_terminal_before_is_not_asked_again() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::EchoesConsole);
    sandbox.detached([&image]);
    sandbox.ctl(["wait", &format!("console={}", Guest::EchoesConsole.greeting())]).ok();
    let console = || {
        let mut command = sandbox.vmrun();
        command.arg("console");
        let mut console = OnTerminal::start(&command);
        console.shows(Guest::EchoesConsole.greeting());
        console
    };
    // a colour's value and ENQ, for which the guest has no capitals
    let typed = "(\x1b]11;?\x07\x05)";
    let mut first = console();
    first.press(typed);
    let live = first.shows(")");
    assert!(live.contains("\x1b]11;?\x07\x05"), "what the guest asks now is asked: {live:?}");
    let mut second = console();
    second.shows("(");
    let before = second.shows(")");
    assert!(!before.contains("\x1b]") && !before.contains('\x05'), "{before:?}");
    second.press("\x05]");
    assert!(second.shows("]").contains('\x05'));
    for mut console in [first, second] {
        console.press("\x01d");
        assert_eq!(console.end().code(), Some(0));
    }
    // where another program has the terminal's keys, nothing is asked at all
    let vmrun = sandbox.vmrun();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" console < /dev/null"]).arg(vmrun.get_program());
    command.envs(vmrun.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(vmrun.get_current_dir().unwrap());
    let mut third = OnTerminal::start(&command);
    third.shows("]");
    let mut typing = sandbox.vmrun();
    let mut typing = typing.arg("console").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    typing.stdin.take().unwrap().write_all(b"[\x05}").unwrap();
    assert!(!third.shows("}").contains('\x05'));
    typing.kill().unwrap();
    typing.wait().unwrap();
    drop(third);
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    sandbox.is_clean();
}

#[test]
fn a_killed_consoles_vm_goes_on() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::EchoesConsole);
    sandbox.detached([&image]);
    let mut command = sandbox.vmrun();
    command.arg("console");
    let mut console = OnTerminal::start(&command);
    console.shows(Guest::EchoesConsole.greeting());
    send(console.pid(), Signal::SIGTERM);
    let _ = console.end();
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    sandbox.is_clean();
}

#[test]
fn a_bios_that_finds_nothing_to_boot_is_seen_and_the_terminal_wraps_its_lines_again() {
    let sandbox = Sandbox::new();
    let image = sandbox.file("empty.img");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let mut command = sandbox.vmrun();
    command.arg("qemu").arg(&image);
    let mut vm = OnTerminal::start(&command);
    vm.shows("SeaBIOS (version");
    vm.shows("No bootable device");
    let seen = sandbox.ctl(["wait", "console=^No bootable device", "--timeout", "10s"]);
    assert_eq!(seen.code, 0, "{seen:?}");
    assert_eq!(sandbox.ctl(["shutdown", "--force"]).code, 0);
    vm.shows("\x1b[?7h");
    let _ = vm.end();
}
