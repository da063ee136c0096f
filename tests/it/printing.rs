//! What is printed: names and answers that would steer a terminal are made visible by every command, and what cannot be written is a
//! failure of every command.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use crate::support::boot_sector::Guest;
use crate::support::pty::OnTerminal;
use crate::support::sandbox::{Done, Sandbox};
use crate::support::verbs;

/// Sets the clipboard, as C1 too, forges a line, turns the direction of text.
const HOSTILE: &str = "evil\x1b]52;c;ZXZpbA==\x07\u{9b}31m\u{202e}\nhint: forged\u{2028}";

/// Words after `vmrun`. The commands of `ctl` are in `flags.txt`.
const PRINTING: [&[&str]; 0] = [];

/// All words, in this order: what changes the VM when it prints comes last.
fn printing() -> Vec<Vec<&'static str>> {
    let ctl = verbs::all("prints").into_iter().chain(verbs::all("prints last"));
    let ctl = ctl.map(|words| ["ctl"].into_iter().chain(words).collect());
    PRINTING.iter().map(|words| words.to_vec()).chain(ctl).collect()
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::EchoesConsole);
    std::fs::copy(&image, sandbox.file("other.img")).unwrap();
    sandbox.detached(["--display", "headless", image.to_str().unwrap()]);
    sandbox.ctl(["wait", &format!("console={}", Guest::EchoesConsole.greeting())]).ok();
    sandbox
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let sandbox = sandbox();
    for words in printing() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let done = Done::of(sandbox.vmrun().args(&words).stdout(full).output().unwrap());
        // the disk and the keyboard were added all the same
        done.fails(1, &["standard output cannot be written: No space left on device"]);
    }
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    sandbox.is_clean();
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let sandbox = sandbox();
    for words in printing() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = sandbox.vmrun();
        command.args(&words).stdout(Stdio::from(writer));
        let done = Done::of(command.output().unwrap());
        assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{words:?}");
    }
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    sandbox.is_clean();
}

/// Checks what would reach a terminal.
#[track_caller]
pub(crate) fn is_harmless(what: &str, text: &str) {
    let steers = |letter: &char| {
        (letter.is_control() && !matches!(letter, '\n' | '\t'))
            || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.chars().any(|letter| steers(&letter)), "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("hint: forged")), "{what}: {text:?}");
}

#[track_caller]
fn is_all_harmless(words: &[&OsStr], done: &Done) {
    is_harmless(&format!("{words:?}"), &done.stdout);
    is_harmless(&format!("{words:?}"), &done.stderr);
}

#[test]
fn names_cannot_steer_the_terminal() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::EchoesConsole);
    let image = image.to_str().unwrap();
    let name = |end: &str| format!("{HOSTILE}{end}");
    std::fs::create_dir(sandbox.file(name("share"))).unwrap();
    let disk = format!("file={},size=8M,id=second", name(".qcow2"));
    let state = name("state");
    let mut vm =
        sandbox.foreground(["-v", "-v", "-v", "--name", "vm", "--state", &state, "--disk", &disk, image]);
    vm.wait_for(Guest::EchoesConsole.greeting());
    let made = sandbox
        .program("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(format!("./{}", name("3.qcow2")))
        .arg("1M")
        .output();
    Done::of(made.unwrap()).ok();
    let named = format!("snap{HOSTILE}");
    let snapshot = sandbox
        .program("qemu-img")
        .args(["snapshot", "-c", &named])
        .arg(format!("./{}", name("3.qcow2")))
        .output();
    Done::of(snapshot.unwrap()).ok();
    // the guest prints it, too
    vm.type_in("\x1b]52;c;ZXZpbA==\x07\u{9b}31m\u{202e}MARK\n");
    let third = format!("file={},id=third", name("3.qcow2"));
    let missing = name("missing");
    let commands: [&[&str]; 17] = [
        &["ctl", "wait", "console=MARK"],
        &["ctl", "disk-add", &third],
        &["ctl", "disk-list"],
        &["ctl", "--json", "disk-list"],
        &["ctl", "status"],
        &["ctl", "--json", "status"],
        &["ctl", "snapshot-list"],
        &["ctl", "qmp", "query-block"],
        &["ctl", "hmp", "info", "block"],
        &["ctl", "events", "--since", "0", "--filter", &missing],
        &["ctl", "disk-add", &missing],
        &["ctl", "--json", "disk-add", &missing],
        &["ctl", "usb-add", &format!("file={missing}")],
        &["ctl", "--vm", &missing, "status"],
        &["qemu", "--dry-run", "--disk", &missing, image],
        &["qemu", "--name", "other", "--virtiofs", &missing, image],
        &["logs", &missing],
    ];
    for words in commands {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        let mut command = sandbox.vmrun();
        command.args(&words);
        // what goes on until the VM ends
        let done = match words.contains(&OsStr::new("events")) {
            true => Done::of(
                sandbox.program("timeout").arg("2").arg(command.get_program()).args(&words).output().unwrap(),
            ),
            false => Done::of(command.output().unwrap()),
        };
        // QEMU's own text has several lines, and names in it may, too
        match words.contains(&OsStr::new("hmp")) {
            true => is_harmless("hmp", &done.stdout.replace("\nhint: forged", "")),
            false => is_all_harmless(&words, &done),
        }
        assert!(
            done.stdout.contains("evil")
                || done.stdout == "third\n"
                || done.stderr.contains("vil")
                || done.stdout.contains("MARK"),
            "{words:?}: {done:#?}"
        );
    }
    // not UTF-8 either
    let bytes = OsStr::from_bytes(b"bad\xff\x1b]0;x\x07\x9b.img");
    let words = [OsStr::new("qemu"), bytes];
    is_all_harmless(&words, &sandbox.run(words).fails(1, &["bad"]));
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    let errors = vm.end().stderr;
    is_harmless("the log", &errors);
    assert!(errors.contains("evil"), "{errors}");
}

#[test]
fn logs_on_a_terminal_spare_it_what_makes_it_answer() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::EchoesConsole);
    let mut vm = sandbox.foreground([image.to_str().unwrap()]);
    vm.wait_for(Guest::EchoesConsole.greeting());
    vm.type_in("\x1b[31mRED\x1b[0m\x1b[6n\x1b]52;c;ZXZpbA==\x07\x1bP$qm\x1b\\\x1b[?1049HEND\n");
    vm.wait_for("END");
    let show = |words: &[&str]| -> Command {
        let mut command = sandbox.vmrun();
        command.args(words);
        command
    };
    let mut logs = OnTerminal::start(&show(&["logs"]));
    logs.shows("\x1b[31mRED\x1b[0mEND");
    assert_eq!(logs.end().code(), Some(0));
    let mut console = OnTerminal::start(&show(&["console", "--read-only"]));
    console.shows("\x1b[31mRED\x1b[0mEND");
    let mut logs = OnTerminal::start(&show(&["logs", "--raw"]));
    logs.shows("\x1b[6n\x1b]52;c;ZXZpbA==\x07\x1bP$qm\x1b\\\x1b[?1049HEND");
    // into a file as the guest printed it
    assert!(sandbox.run(["logs"]).ok().stdout.contains("\x1b]52;"));
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    assert_eq!(vm.end().code(), 0);
}
