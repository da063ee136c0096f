//! `vmrun wrap` as a process: its caller cannot distinguish it from QEMU.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;

use crate::support::boot_sector::Guest;
use crate::support::processes;
use crate::support::pty::OnTerminal;
use crate::support::sandbox::{Done, Foreground, Sandbox};

const QEMU: &str = "qemu-system-x86_64";
/// A machine with nothing that a test would have to wait for.
const QUIET: [&str; 6] = ["-nodefaults", "-display", "none", "-S", "-m", "16"];

fn wrap(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = sandbox.vmrun();
    command.args(["wrap", "--", QEMU]).args(arguments);
    command
}

/// A program under this name in a folder of its own.
fn program(sandbox: &Sandbox, folder: &str, name: &str, text: &str) -> PathBuf {
    let path = sandbox.file(folder).join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A link with the name of a QEMU in a folder `links`; the search path with this folder first.
fn link(sandbox: &Sandbox) -> (PathBuf, String) {
    let folder = sandbox.file("links");
    std::fs::create_dir_all(&folder).unwrap();
    symlink(env!("CARGO_BIN_EXE_vmrun"), folder.join(QEMU)).unwrap();
    (folder.join(QEMU), format!("{}:{}", folder.display(), std::env::var("PATH").unwrap()))
}

/// Waits until exactly these run.
#[track_caller]
fn lists(sandbox: &Sandbox, expected: usize) -> Vec<serde_json::Value> {
    let mut seen = Vec::new();
    processes::eventually("the VMs are listed as running", || {
        let list: Vec<serde_json::Value> =
            serde_json::from_value(sandbox.run(["ls", "--json"]).json()).unwrap();
        seen = list;
        seen.len() == expected && seen.iter().all(|vm| vm["qemu_pid"].is_i64())
    });
    seen
}

/// Tells all that a program can know of how it was called. (Its descriptors are listed by a subshell, whose pipe it has not.)
const TELLS: &str = r#"#!/bin/sh
echo "0: $0"; pwd; umask; env | sort; grep "^Sig[BCI]" /proc/self/status
echo "parent $PPID"; cut -d' ' -f5-7 /proc/$$/stat
(find /proc/$$/fd -mindepth 1 -printf '%p %l\n' | sort | sed "s/$$/SELF/; s/pipe:.*/pipe/")
for argument; do echo "<$argument>"; done
read line; echo "read $line"; echo "on stderr" >&2; exit 42
"#;

#[test]
fn a_program_gets_all_that_its_caller_gave() {
    let sandbox = Sandbox::new();
    let qemu = program(&sandbox, "real", QEMU, TELLS);
    let kept = std::fs::File::open("/dev/zero").unwrap();
    fcntl(&kept, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    std::fs::write(sandbox.file("input"), "from the caller\n").unwrap();
    let arguments = ["-m", "1 G", "", "-append", "a  b,c", "disk one.img"];
    let run = |mut command: Command| {
        let input = std::fs::File::open(sandbox.file("input")).unwrap();
        command.env("A_VARIABLE", "of\nthe caller").stdin(input);
        Done::of(command.output().unwrap())
    };
    let mut plain = sandbox.program(&qemu);
    plain.args(arguments);
    let mut wrapped = sandbox.vmrun();
    wrapped.args(["wrap", "--name", "told", "--"]).arg(&qemu).args(arguments);
    let (plain, wrapped) = (run(plain), run(wrapped));
    assert_eq!((plain.code, plain.stderr.as_str()), (42, "on stderr\n"), "{plain:#?}");
    assert!(plain.stdout.contains(&format!("fd/{} /dev/zero", kept.as_raw_fd())), "{plain:#?}");
    assert!(plain.stdout.contains("read from the caller"), "{plain:#?}");
    assert_eq!((wrapped.code, wrapped.stderr.as_str()), (42, "on stderr\n"), "{wrapped:#?}");
    // one socket, and four arguments at the end
    let ours = |line: &&str| {
        let socket = line.starts_with("/proc/SELF/fd/2") && line.contains(" socket:");
        let monitor = ["<-chardev>", "<socket,id=vmrun-wrap-", "<-qmp>", "<chardev:vmrun-wrap-"];
        socket || monitor.iter().any(|start| line.starts_with(start))
    };
    let (added, same): (Vec<&str>, Vec<&str>) = wrapped.stdout.lines().partition(ours);
    assert_eq!(added.len(), 5, "{wrapped:#?}");
    let differing: Vec<_> =
        plain.stdout.lines().zip(&same).filter(|(plain, wrapped)| plain != *wrapped).collect();
    assert!(differing.is_empty(), "{differing:#?}");
    assert_eq!(same.len(), plain.stdout.lines().count(), "{wrapped:#?}");
    sandbox.is_clean();
}

#[test]
fn it_ends_as_qemu_ends() {
    let sandbox = Sandbox::new();
    let bad = ["-device", "nonsense"];
    let plain = Done::of(sandbox.program(QEMU).args(bad).output().unwrap());
    let wrapped = Done::of(wrap(&sandbox, &bad).output().unwrap());
    assert_eq!((wrapped.code, &wrapped.stdout, &wrapped.stderr), (plain.code, &plain.stdout, &plain.stderr));
    assert_eq!(plain.code, 1);
    for (signal, code) in [
        (Signal::SIGTERM, Some(0)),
        (Signal::SIGSEGV, None),
        (Signal::SIGABRT, None),
        (Signal::SIGKILL, None),
    ] {
        let qemu = Foreground::start(wrap(&sandbox, &QUIET));
        assert_eq!(lists(&sandbox, 1)[0]["qemu_pid"], qemu.pid());
        qemu.signal(signal);
        let status = qemu.end().status;
        assert_eq!(status.code(), code, "{signal}");
        assert_eq!(status.signal(), code.is_none().then_some(signal as i32), "{signal}");
        sandbox.is_clean();
    }
}

#[test]
fn its_streams_are_qemus() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::EchoesConsole);
    let arguments =
        ["-display", "none", "-serial", "stdio", "-monitor", "none", "-drive", "file=guest.img,format=raw"];
    let mut qemu = Foreground::start(wrap(&sandbox, &arguments));
    qemu.wait_for(Guest::EchoesConsole.greeting());
    qemu.type_in("hello\n");
    qemu.wait_for("HELLO");
    sandbox.ctl(["powerdown"]).ok();
    assert_eq!(qemu.end().code(), 0);
    sandbox.is_clean();
}

#[test]
fn the_terminal_is_qemus_and_is_restored_whatever_comes() {
    let sandbox = Sandbox::new();
    let arguments = ["-nographic", "-S", "-nodefaults", "-serial", "mon:stdio"];
    let mut terminal = OnTerminal::start(&wrap(&sandbox, &arguments));
    processes::eventually("raw", || terminal.is_raw());
    terminal.press("\x01c");
    terminal.shows("(qemu)");
    terminal.press("\x01x");
    assert_eq!(terminal.end().code(), Some(0));

    let terminal = OnTerminal::start(&wrap(&sandbox, &arguments));
    processes::eventually("raw", || terminal.is_raw());
    lists(&sandbox, 1);
    processes::send(terminal.pid(), Signal::SIGKILL);
    processes::eventually("restored", || !terminal.is_raw());
    sandbox.is_clean();
    assert_eq!(terminal.end().signal(), Some(9));
}

#[test]
fn what_only_asks_is_left_alone() {
    let sandbox = Sandbox::new();
    for question in
        ["--help", "-version", "-machine help", "-cpu ?", "-device virtio-blk-pci,help", "-M none -S -h"]
    {
        let words: Vec<&str> = question.split(' ').collect();
        let plain = Done::of(sandbox.program(QEMU).args(&words).output().unwrap()).ok();
        let wrapped = Done::of(wrap(&sandbox, &words).output().unwrap()).ok();
        assert_eq!(wrapped.stdout, plain.stdout, "{question}");
        assert_eq!(wrapped.stderr, plain.stderr, "{question}");
    }
    assert!(!sandbox.runtime().exists(), "a run directory was made for a question");

    let daemon = ["-daemonize", "-pidfile", "pid", "-display", "none", "-nodefaults", "-S"];
    Done::of(wrap(&sandbox, &daemon).output().unwrap()).fails(0, &["-daemonize"]);
    let pid = std::fs::read_to_string(sandbox.file("pid")).unwrap();
    processes::send(pid.trim().parse().unwrap(), Signal::SIGTERM);
    sandbox.is_clean();
}

#[test]
fn under_the_name_of_a_qemu_it_is_that_qemu() {
    let sandbox = Sandbox::new();
    let (qemu, path) = link(&sandbox);
    let start = |adjust: &dyn Fn(&mut Command)| {
        let mut command = sandbox.program(&qemu);
        command.env("PATH", &path).args(QUIET);
        adjust(&mut command);
        command
    };
    let version = Done::of(start(&|command| _ = command.arg("--version")).output().unwrap()).ok();
    assert!(version.stdout.starts_with("QEMU emulator version"), "{version:#?}");
    let running = Foreground::start(start(&|_| {}));
    let name = lists(&sandbox, 1)[0]["name"].as_str().unwrap().to_owned();
    assert_eq!(name, format!("{QEMU}-{}", running.pid()));
    // (or the dynamic linker, where QEMU's program is a wrapper)
    let exe = std::fs::read_link(format!("/proc/{}/exe", running.pid())).unwrap();
    assert_ne!(exe, std::fs::canonicalize(env!("CARGO_BIN_EXE_vmrun")).unwrap());
    assert_eq!(sandbox.ctl_json(["status"])["qemu_pid"], running.pid());
    sandbox.ctl(["hmp", "quit"]);
    assert_eq!(running.end().code(), 0);

    // another, by a variable: a program, or a folder with programs
    let told = program(&sandbox, "other", QEMU, "#!/bin/sh\necho \"the other: $1\"\n");
    for named in [told.as_path(), told.parent().unwrap()] {
        let done = Done::of(start(&|command| _ = command.env("VMRUN_WRAP_QEMU", named)).output().unwrap());
        assert_eq!(done.line(), "the other: -nodefaults");
    }
    sandbox.is_clean();
}

#[test]
fn it_never_calls_itself() {
    let sandbox = Sandbox::new();
    let (qemu, _) = link(&sandbox);
    let only_us = qemu.parent().unwrap();
    let run = |path: &Path, command: &mut Command| {
        Done::of(command.env("PATH", path).args(QUIET).output().unwrap())
    };
    run(only_us, &mut sandbox.program(&qemu))
        .fails(1, &["there is no program qemu-system-x86_64", "VMRUN_WRAP_QEMU"]);
    let mut itself = sandbox.program(&qemu);
    run(only_us, itself.env("VMRUN_WRAP_QEMU", &qemu)).fails(1, &["other than vmrun itself"]);
    // a way back that is not to be seen
    let script = format!("#!/bin/sh\nexec {} wrap -- {} \"$@\"\n", env!("CARGO_BIN_EXE_vmrun"), QEMU);
    let loops = program(&sandbox, "loops", QEMU, &script);
    let folder = loops.parent().unwrap();
    run(folder, &mut sandbox.program(&qemu)).fails(1, &["has been through vmrun already", "VMRUN_WRAP_QEMU"]);
    sandbox.is_clean();
}

#[test]
fn names_are_kept_apart() {
    let sandbox = Sandbox::new();
    let start = |arguments: &[&str]| Foreground::start(wrap(&sandbox, &[&QUIET, arguments].concat()));
    let both = [start(&["-name", "guest=twin,debug-threads=on"]), start(&["-name", "twin"])];
    let names: Vec<String> =
        lists(&sandbox, 2).iter().map(|vm| vm["name"].as_str().unwrap().to_owned()).collect();
    assert!(names.contains(&"twin".to_owned()), "{names:?}");
    assert!(
        names.iter().any(|name| both.iter().any(|vm| *name == format!("twin-{}", vm.pid()))),
        "{names:?}"
    );
    let mut third = sandbox.vmrun();
    third.args(["wrap", "--name", "twin", "--", QEMU]).args(QUIET);
    Done::of(third.output().unwrap()).fails(1, &["'twin'", "already running"]);
    for name in names {
        sandbox.ctl(["--vm", &name, "shutdown", "--force"]).ok();
    }
    for vm in both {
        assert_eq!(vm.end().code(), 0);
    }
    // one after the other, with no time in between
    for _ in 0..5 {
        let mut again = sandbox.vmrun();
        again.args(["wrap", "--name", "twin", "--", QEMU, "-device", "nonsense"]);
        Done::of(again.output().unwrap()).fails(1, &["'nonsense' is not a valid device"]);
    }
    sandbox.is_clean();
}

#[test]
fn qemu_needs_no_supervisor() {
    let sandbox = Sandbox::new();
    let qemu = Foreground::start(wrap(&sandbox, &[&QUIET[..], &["-M", "q35"]].concat()));
    let supervisor =
        |sandbox: &Sandbox| i32::try_from(lists(sandbox, 1)[0]["supervisor_pid"].as_i64().unwrap()).unwrap();
    let first = supervisor(&sandbox);
    // what ends others does not end it: it goes when QEMU does
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        processes::send(first, signal);
    }
    assert_eq!(supervisor(&sandbox), first);
    sandbox.ctl(["disk-add", "data.img,size=1M,bus=virtio"]).fails(4, &["no hot-plug slots", "root-port"]);
    sandbox.ctl(["device-add", "usb-kbd"]).fails(4, &["slot"]);
    processes::send(first, Signal::SIGKILL);
    let second = supervisor(&sandbox);
    assert_ne!(first, second);
    assert_eq!(sandbox.ctl_json(["status"])["state"], "starting", "nobody has let it go");
    sandbox.ctl(["resume"]).ok();
    sandbox.ctl(["wait", "running"]).ok();
    qemu.signal(Signal::SIGTERM);
    assert_eq!(qemu.end().code(), 0);
    sandbox.is_clean();
}

#[test]
fn it_holds_nobodys_pipe_open() {
    let sandbox = Sandbox::new();
    // the output is complete only when all writers have closed it
    let mut child = wrap(&sandbox, &QUIET).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    lists(&sandbox, 1);
    let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
    let listed = std::fs::read_dir(format!("/proc/{supervisor}/fd")).unwrap();
    let targets: Vec<PathBuf> =
        listed.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect();
    assert!(!targets.iter().any(|target| target.to_string_lossy().starts_with("pipe:")), "{targets:?}");
    child.kill().unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.signal(), Some(9));
    sandbox.is_clean();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let sandbox = Sandbox::new();
    let run = |arguments: &[&str]| sandbox.run([&["wrap"], arguments].concat());
    run(&[]).fails(2, &["vmrun wrap [--name NAME] -- QEMU"]);
    run(&[QEMU, "-m", "1G"]).fails(2, &["comes after `--`", "vmrun wrap -- "]);
    run(&["--"]).fails(2, &["QEMU"]);
    run(&["--", "/bin/true"]).fails(2, &["/bin/true does not look like a QEMU", "symbolic link"]);
    run(&["--", "qemu-system-nothing"]).fails(1, &["no program qemu-system-nothing"]);
    let unknown = program(&sandbox, "unknown", "qemu-system-m68k", "#!/bin/sh\ntouch \"$0.ran\"\n");
    run(&["--", unknown.to_str().unwrap()]).fails(
        1,
        &["vmrun does not know QEMU's architecture 'm68k'", "x86_64", "hint: start this QEMU without"],
    );
    assert!(!Path::new(&format!("{}.ran", unknown.display())).exists());
    run(&["--", "./qemu-system-x86_64"]).fails(1, &["no program ./qemu-system-x86_64"]);
    run(&["--name", "a/b", "--", QEMU]).fails(2, &["'a/b'"]);
    let mut nowhere = wrap(&sandbox, &QUIET);
    let done = Done::of(nowhere.env("VMRUN_RUNTIME_DIR", sandbox.file("no/such")).output().unwrap());
    done.fails(1, &["run directory", "no does not exist"]);
    std::fs::create_dir(sandbox.file("open")).unwrap();
    std::fs::set_permissions(sandbox.file("open"), std::fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.is_clean();
}
