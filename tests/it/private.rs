//! Files and sockets: other users can neither read nor prepare them.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::boot_sector::Guest;
use crate::support::sandbox::{Done, Sandbox};

const NOBODY: u32 = 65534;

/// Tries everything on every path of its arguments, and prints what worked.
const TRY_ALL: &str = r#"
import os, socket, sys
def attempt(what, path, action):
    try:
        action()
        print(what, path)
    except OSError:
        pass
def connect(path, kind):
    s = socket.socket(socket.AF_UNIX, kind)
    s.settimeout(5)
    s.connect(path)
for path in sys.argv[1:]:
    attempt("list", path, lambda: os.listdir(path))
    attempt("read", path, lambda: open(path, "rb").read(1))
    attempt("write", path, lambda: os.close(os.open(path, os.O_WRONLY)))
    attempt("create", path, lambda: open(os.path.join(path, "planted"), "x"))
    attempt("chmod", path, lambda: os.chmod(path, 0o777))
    attempt("remove", path, lambda: os.unlink(path))
    attempt("connect", path, lambda: connect(path, socket.SOCK_STREAM))
    attempt("send", path, lambda: connect(path, socket.SOCK_DGRAM))
"#;

/// What another user can do with these paths.
fn what_nobody_can_do(paths: &[PathBuf]) -> String {
    let mut command = Command::new("python3");
    command.args(["-c", TRY_ALL]).args(paths).current_dir("/").uid(NOBODY).gid(NOBODY);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Everything in a folder, with the folder.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.symlink_metadata().unwrap().is_dir() {
            true => all.extend(tree(&path)),
            false => all.push(path),
        }
    }
    all
}

/// A VM with every possible file and socket, started by a user with umask 0.
fn careless(sandbox: &Sandbox) {
    sandbox.boot_sector(Guest::Halted);
    let flags = "--name guest --data secret --qmp own.sock --qmp-log qmp.log --disk size=1M --disk size=1M,format=qcow2 \
                 --disk made.qcow2,size=1M --disk made.img,size=1M";
    let mut command = sandbox.program("sh");
    command.args(["-c", &format!("umask 0; exec \"$0\" qemu --detached {flags} guest.img")]);
    Done::of(command.arg(env!("CARGO_BIN_EXE_vmrun")).output().unwrap()).ok();
    let mut added = sandbox.program("sh");
    added.args(["-c", "umask 0; exec \"$0\" ctl disk-add added.qcow2,size=1M"]);
    Done::of(added.arg(env!("CARGO_BIN_EXE_vmrun")).output().unwrap()).ok();
}

/// What `careless` made.
fn made(sandbox: &Sandbox) -> Vec<PathBuf> {
    let mut all = tree(&sandbox.runtime());
    all.extend(tree(&sandbox.file("guest-state")));
    let beside = ["own.sock", "qmp.log", "made.qcow2", "made.img", "added.qcow2"];
    all.extend(beside.map(|name| sandbox.file(name)));
    all
}

#[test]
fn everything_is_private_whatever_the_umask() {
    let sandbox = Sandbox::new();
    careless(&sandbox);
    let all = made(&sandbox);
    for path in &all {
        let facts = path.symlink_metadata().unwrap();
        assert_eq!(facts.mode() & 0o077, 0, "{} has mode {:o}", path.display(), facts.mode());
    }
    let sockets = all.iter().filter(|path| path.symlink_metadata().unwrap().file_type().is_socket());
    println!("{} files, folders and sockets, {} of them sockets", all.len(), sockets.count());
    sandbox.ctl(["shutdown", "--force"]);
    assert_eq!(std::fs::metadata(sandbox.file("guest-state/outcome.json")).unwrap().mode() & 0o077, 0);
}

#[test]
#[cfg_attr(lacks = "root", ignore = "needs root")]
fn a_second_user_gets_nowhere() {
    assert!(nix::unistd::geteuid().is_root(), "only root can become another user");
    let sandbox = Sandbox::new();
    careless(&sandbox);
    let all = made(&sandbox);
    // the paths lead there; only vmrun's own folders are in the way
    for folder in [sandbox.path(), &sandbox.file("run")] {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    }
    assert_eq!(what_nobody_can_do(&all), "");
    // this is what the same program finds where nothing is in the way
    std::fs::write(sandbox.file("open"), "x").unwrap();
    std::fs::set_permissions(sandbox.file("open"), PermissionsExt::from_mode(0o644)).unwrap();
    assert!(what_nobody_can_do(&[sandbox.file("open")]).starts_with("read "));
    // and if a user has opened the folders, the files and sockets are still private
    for folder in all.iter().filter(|path| path.is_dir()) {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let opened: Vec<PathBuf> = all.iter().filter(|path| !path.is_dir()).cloned().collect();
    assert_eq!(what_nobody_can_do(&opened), "");
    println!("{} things, 8 attempts each, twice", all.len());
    for folder in all.iter().filter(|path| path.is_dir()) {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).unwrap();
    }
    sandbox.ctl(["shutdown", "--force"]);
}

/// What vmrun keeps in a state directory, each planted as a link to a user's file.
const PLANTED: [&str; 9] = [
    "lock",
    "mac-addr",
    "formats.json",
    "console.log",
    "console.log.1",
    "metadata.iso",
    "outcome.json",
    "disk1.img",
    "uefi-vars.fd",
];

#[test]
fn links_planted_in_the_state_directory_lead_nowhere() {
    for name in PLANTED {
        let sandbox = Sandbox::new();
        sandbox.boot_sector(Guest::Halted);
        std::fs::create_dir(sandbox.file("guest-state")).unwrap();
        let text = "{}".repeat(4096);
        std::fs::write(sandbox.file("victim"), &text).unwrap();
        std::fs::set_permissions(sandbox.file("victim"), PermissionsExt::from_mode(0o640)).unwrap();
        symlink("../victim", sandbox.file("guest-state").join(name)).unwrap();
        let uefi = if name == "uefi-vars.fd" { &["--uefi"][..] } else { &[] };
        let start = ["qemu", "--detached", "--data", "x", "--disk", "size=1M", "guest.img"];
        let started = sandbox.run([&start[..], uefi].concat());
        let open = |pid: i32| {
            std::fs::read_dir(format!("/proc/{pid}/fd"))
                .unwrap()
                .flatten()
                .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|path| path == sandbox.file("victim")))
        };
        if started.code == 0 {
            for process in crate::support::processes::of(sandbox.path()) {
                assert!(!open(process.pid), "{name}: {} has it open", process.command);
            }
            sandbox.ctl(["shutdown", "--force"]);
        } else {
            assert!([1, 2].contains(&started.code), "{name}: {started:#?}");
            assert!(started.stderr.contains(name), "{name}: {started:#?}");
        }
        println!("{name}: exit code {}", started.code);
        assert_eq!(std::fs::read_to_string(sandbox.file("victim")).unwrap(), text, "{name}");
        assert_eq!(std::fs::metadata(sandbox.file("victim")).unwrap().mode() & 0o777, 0o640, "{name}");
    }
}

#[test]
fn links_planted_in_a_run_directory_lead_nowhere() {
    for name in
        ["lock", "vm.json", "control", "qmp", "qmp-shared", "serial.out", "plugged.json", "pending.json"]
    {
        let sandbox = Sandbox::new();
        sandbox.boot_sector(Guest::Halted);
        // a run directory of a VM that was killed: one that vmrun has not made is refused as a whole
        let run = sandbox.runtime().join("guest");
        sandbox.detached(["--name", "guest", "guest.img"]);
        let qemu = crate::support::processes::qemu_of(sandbox.path());
        crate::support::orphan::kill_supervisor(&sandbox);
        crate::support::orphan::kill(qemu);
        let _ = std::fs::remove_file(run.join(name));
        std::fs::write(sandbox.file("victim"), "precious").unwrap();
        symlink("../../../victim", run.join(name)).unwrap();
        let started = sandbox.run(["qemu", "--detached", "--name", "guest", "guest.img"]);
        assert!([0, 1].contains(&started.code), "{name}: {started:#?}");
        println!("{name}: exit code {}", started.code);
        assert_eq!(std::fs::read_to_string(sandbox.file("victim")).unwrap(), "precious", "{name}");
        if started.code == 0 {
            sandbox.ctl(["shutdown", "--force"]).ok();
        }
        assert_eq!(std::fs::read_to_string(sandbox.file("victim")).unwrap(), "precious", "{name}");
    }
}

#[test]
fn directories_that_others_could_have_prepared_are_refused() {
    let prepared = |make: &dyn Fn(&Sandbox, &Path), place: &str, words: &[&str]| {
        let sandbox = Sandbox::new();
        sandbox.boot_sector(Guest::Halted);
        let path = sandbox.file(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        make(&sandbox, &path);
        if let Some(parent) = path.parent().filter(|parent| parent.ends_with("vmrun")) {
            std::fs::set_permissions(parent, PermissionsExt::from_mode(0o700)).unwrap();
        }
        sandbox.run(["qemu", "--detached", "--name", "guest", "guest.img"]).fails(1, words);
    };
    for place in ["run/vmrun", "run/vmrun/guest", "guest-state"] {
        prepared(
            &|sandbox, path| {
                std::fs::create_dir(sandbox.file("elsewhere")).unwrap();
                symlink(sandbox.file("elsewhere"), path).unwrap();
            },
            place,
            &["is a symbolic link"],
        );
        for mode in [0o777, 0o1777, 0o770, 0o720] {
            prepared(
                &|_, path| {
                    std::fs::create_dir(path).unwrap();
                    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
                },
                place,
                &[place.rsplit('/').next().unwrap()],
            );
        }
        if nix::unistd::geteuid().is_root() {
            prepared(
                &|_, path| {
                    std::fs::create_dir(path).unwrap();
                    std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)).unwrap();
                    std::os::unix::fs::chown(path, Some(NOBODY), None).unwrap();
                },
                place,
                &["65534"],
            );
        }
    }
}
