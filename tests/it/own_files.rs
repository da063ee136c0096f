//! vmrun removes what it has made, and nothing else: looked at in the file system, and with QEMU's process.

use std::collections::BTreeMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::boot_sector::Guest;
use crate::support::orphan::{detached, kill, kill_supervisor, shuts_down_clean};
use crate::support::processes::{eventually, has_ended, of, qemu_of, send};
use crate::support::sandbox::{Done, Sandbox};

const NOBODY: u32 = 65534;

/// Every path under a folder, with its inode and, for a file, what is in it.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let facts = path.symlink_metadata().unwrap();
        if facts.is_dir() {
            all.extend(tree(&path));
        }
        let text = if facts.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        all.insert(path, (facts.ino(), text));
    }
    all
}

fn private(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).unwrap();
}

/// Everything that looks for VMs, and could take something for a dead one.
const LOOKING: [&[&str]; 7] = [
    &["ls"],
    &["ls", "--json"],
    &["doctor"],
    &["completions", "bash"],
    &["ctl", "status"],
    &["ctl", "--vm", "proj", "status"],
    &["logs", "proj"],
];

#[test]
fn folders_of_others_in_the_runtime_directory_stay() {
    let sandbox = Sandbox::new();
    let root = sandbox.runtime();
    // a checkout, with folders and files that are called as vmrun's are
    for folder in ["", "proj", "proj/.git", ".git", "empty", "sub"] {
        private(&root.join(folder));
    }
    for file in ["README", "proj/thesis.txt", "proj/lock", "proj/vm.json", "proj/control", "sub/pending.json"]
    {
        std::fs::write(root.join(file), file).unwrap();
    }
    std::fs::create_dir(sandbox.file("elsewhere")).unwrap();
    std::fs::write(sandbox.file("elsewhere/lock"), "").unwrap();
    std::os::unix::fs::symlink(sandbox.file("elsewhere"), root.join("link")).unwrap();
    let before = tree(sandbox.path());
    for looking in LOOKING {
        let done = sandbox.run(looking);
        assert!([0, 1, 3].contains(&done.code), "{looking:?}: {done:#?}");
        assert_eq!(tree(sandbox.path()), before, "{looking:?}");
    }
    let listed = sandbox.run(["ls", "--json"]).ok();
    assert_eq!(listed.stdout.trim(), "[]");
    assert!(listed.stderr.contains("vmrun/proj was not made by vmrun"), "{listed:#?}");
    sandbox.boot_sector(Guest::Halted);
    let before = tree(&root);
    sandbox
        .run(["qemu", "--detached", "--name", "proj", "guest.img"])
        .fails(1, &["vmrun/proj was not made by vmrun", "hint: "]);
    assert_eq!(tree(&root), before);
    sandbox.detached(["--name", "mine", "guest.img"]);
    sandbox.ctl(["shutdown", "--force"]).ok();
    assert_eq!(tree(&root), before);
}

#[test]
fn a_file_of_the_users_in_a_run_directory_stays_with_all_that_is_beside_it() {
    let sandbox = detached(Guest::ReactsToButton, &[]);
    let folder = sandbox.runtime().join("orphan");
    std::fs::write(folder.join("thesis.txt"), "x").unwrap();
    let qemu = qemu_of(sandbox.path());
    kill_supervisor(&sandbox);
    kill(qemu);
    let before = tree(&folder);
    let told = sandbox.run(["ls"]).ok();
    assert_eq!(tree(&folder), before);
    assert!(told.stderr.contains("'thesis.txt'") && told.stderr.contains("nothing was removed"), "{told:#?}");
    std::fs::remove_file(folder.join("thesis.txt")).unwrap();
    // it only says where it has looked
    let told = sandbox.run(["ls"]).ok().stderr;
    assert!(told.starts_with("vmrun: no VM is running in ") && told.lines().count() == 1, "{told}");
    sandbox.is_clean();
    // and at the end of a VM
    let image = sandbox.file("guest.img");
    sandbox.detached(["--name", "orphan", image.to_str().unwrap()]);
    std::fs::create_dir(folder.join("notes")).unwrap();
    sandbox.ctl(["shutdown", "--force"]).ok();
    eventually("its processes have ended", || of(sandbox.path()).is_empty());
    assert!(folder.join("notes").exists() && folder.join("vm.json").exists());
    std::fs::remove_dir(folder.join("notes")).unwrap();
    sandbox.run(["ls"]).ok();
    sandbox.is_clean();
}

#[test]
fn a_vm_whose_description_cannot_be_read_is_left_alone() {
    for text in [Some("no JSON"), None] {
        let sandbox = detached(Guest::ReactsToButton, &[]);
        let folder = sandbox.runtime().join("orphan");
        let qemu = qemu_of(sandbox.path());
        kill_supervisor(&sandbox);
        let good = std::fs::read(folder.join("vm.json")).unwrap();
        match text {
            Some(text) => std::fs::write(folder.join("vm.json"), text).unwrap(),
            None => std::fs::remove_file(folder.join("vm.json")).unwrap(),
        }
        let before = tree(&folder);
        for looking in LOOKING {
            sandbox.run(looking);
        }
        let told = sandbox.run(["ls"]).ok();
        assert!(told.stderr.contains("does not say whose it is"), "{told:#?}");
        let image = sandbox.file("guest.img");
        let named = ["qemu", "--detached", "--name", "orphan", "--state", "other", image.to_str().unwrap()];
        sandbox.run(named).fails(1, &["orphan", "hint: "]);
        assert_eq!(tree(&folder), before);
        assert!(!has_ended(qemu), "{text:?}");
        std::fs::write(folder.join("vm.json"), good).unwrap();
        shuts_down_clean(&sandbox);
    }
}

/// Runs a script as the first process of a PID namespace that is left behind when the script ends: QEMU lives on in it.
fn in_a_pid_namespace(sandbox: &Sandbox, script: &str) -> std::process::Child {
    let mut command = sandbox.program("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script]);
    command.arg(env!("CARGO_BIN_EXE_vmrun")).spawn().unwrap()
}

#[test]
#[cfg_attr(lacks = "root", ignore = "needs root")]
fn a_vm_of_another_pid_namespace_is_not_buried() {
    assert!(nix::unistd::geteuid().is_root(), "only root can make a PID namespace");
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::ReactsToButton);
    let script = "\"$0\" qemu --detached --name orphan guest.img && kill -9 $(\"$0\" ctl --json status | \
                  grep -o '\"supervisor_pid\":[ ]*[0-9]*' | grep -o '[0-9]*$') && touch ready && exec sleep 600";
    let mut namespace = in_a_pid_namespace(&sandbox, script);
    eventually("the VM has lost its supervisor", || sandbox.file("ready").exists());
    let qemu = qemu_of(sandbox.path());
    let folder = sandbox.runtime().join("orphan");
    let before = tree(&folder);
    for _ in 0..2 {
        let listed = sandbox.run(["ls", "--json"]).ok();
        assert!(listed.stderr.contains("PID namespace"), "{listed:#?}");
        assert_eq!(listed.json()[0]["state"], "orphan");
    }
    let left: Vec<_> = before.keys().filter(|path| !path.exists()).collect();
    assert!(left.is_empty(), "{left:#?}");
    sandbox.ctl(["--vm", "orphan", "status"]).fails(1, &["PID namespace", "hint: "]);
    sandbox.run(["qemu", "--detached", "--name", "orphan", "guest.img"]).fails(1, &["already running"]);
    assert!(!has_ended(qemu));
    // its end takes QEMU with it
    namespace.kill().unwrap();
    namespace.wait().unwrap();
    eventually("QEMU has ended", || has_ended(qemu));
    // (the kernel may close its sockets a moment later)
    eventually("nothing is listed", || sandbox.run(["ls", "--json"]).json() == serde_json::json!([]));
    sandbox.is_clean();
}

#[test]
fn a_runtime_directory_of_others_is_refused() {
    let refused = |sandbox: &Sandbox, words: &[&str]| {
        sandbox.boot_sector(Guest::Halted);
        let before = tree(&sandbox.file("run"));
        for looking in [&["ls"][..], &["ctl", "status"], &["doctor"], &["qemu", "--detached", "guest.img"]] {
            let mut command = sandbox.vmrun();
            command.args(looking).env_remove("VMRUN_RUNTIME_DIR").env("XDG_RUNTIME_DIR", sandbox.file("run"));
            let done = Done::of(command.output().unwrap());
            let told = format!("{}{}", done.stdout, done.stderr);
            assert_eq!(done.code, 1, "{looking:?}: {done:#?}");
            for word in
                words.iter().chain(&["unset XDG_RUNTIME_DIR", "VMRUN_RUNTIME_DIR to a folder of your own"])
            {
                assert!(told.contains(word), "{looking:?}: no '{word}' in {done:#?}");
            }
        }
        assert_eq!(tree(&sandbox.file("run")), before);
    };
    let sandbox = Sandbox::new();
    std::fs::set_permissions(sandbox.file("run"), PermissionsExt::from_mode(0o777)).unwrap();
    refused(&sandbox, &["can be written by other users (mode 0777)"]);
    if nix::unistd::geteuid().is_root() {
        let sandbox = Sandbox::new();
        // with a folder of ours in it, as one that was left by `su`
        private(&sandbox.runtime().join("proj"));
        private(&sandbox.runtime());
        chown(sandbox.file("run"), Some(NOBODY), None).unwrap();
        refused(&sandbox, &["belongs to another user (uid 65534)"]);
    }
}

/// A second user who owns a folder on the way to ours swaps ours for one of his own.
#[test]
#[cfg_attr(lacks = "root", ignore = "needs root")]
fn a_folder_of_another_user_on_the_way_is_refused() {
    assert!(nix::unistd::geteuid().is_root(), "only root can give a folder away");
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    let theirs = sandbox.file("theirs");
    private(&theirs.join("ours/run"));
    private(&theirs.join("ours/vmrun/proj"));
    chown(&theirs, Some(NOBODY), None).unwrap();
    let before = tree(&theirs);
    for (variable, folder) in [
        ("VMRUN_RUNTIME_DIR", "ours"),
        ("VMRUN_RUNTIME_DIR", "new"),
        ("RUNTIME_DIRECTORY", "ours"),
        ("XDG_RUNTIME_DIR", "ours/run"),
        ("TMPDIR", "ours"),
    ] {
        let all: [&[&str]; 3] =
            [&["ls"], &["ctl", "status"], &["qemu", "--detached", "--ephemeral", "guest.img"]];
        for arguments in &all[if variable == "TMPDIR" { 2 } else { 0 }..] {
            let mut command = sandbox.vmrun();
            if variable != "TMPDIR" {
                command.env_remove("VMRUN_RUNTIME_DIR");
            }
            command.args(*arguments).env(variable, theirs.join(folder));
            let done =
                Done::of(command.output().unwrap()).fails(1, &["theirs, which belongs to another user"]);
            assert!(done.stderr.contains(variable), "{variable} {arguments:?}: {done:#?}");
        }
    }
    assert_eq!(tree(&theirs), before);
    // what vmrun remembers is neither read from there nor written to there
    let mut command = sandbox.vmrun();
    command
        .args(["qemu", "--detached", "--name", "vm", "guest.img"])
        .env("XDG_STATE_HOME", theirs.join("ours"));
    Done::of(command.output().unwrap()).ok();
    sandbox.ctl(["shutdown", "--force"]);
    assert_eq!(tree(&theirs), before);
}

#[test]
fn a_screenshot_needs_no_name_that_is_text() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    let folder =
        std::ffi::OsString::from_vec([sandbox.path().as_os_str().as_bytes(), b"/run/\xff\xfe"].concat());
    let vmrun = |arguments: &[&str]| {
        let mut command = sandbox.vmrun();
        Done::of(command.args(arguments).env("VMRUN_RUNTIME_DIR", &folder).output().unwrap())
    };
    vmrun(&["qemu", "--detached", "--display", "headless", "--name", "vm", "guest.img"]).ok();
    vmrun(&["ctl", "screenshot", "screen.png"]).ok();
    assert!(std::fs::read(sandbox.file("screen.png")).unwrap().starts_with(b"\x89PNG"));
    let pictures = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "png");
    let left = tree(Path::new(&folder));
    assert!(left.keys().any(|path| path.ends_with("vmrun/vm/vm.json")), "{left:?}");
    assert_eq!(left.keys().filter(pictures).count(), 0, "{left:?}");
    vmrun(&["ctl", "shutdown", "--force"]).ok();
}

/// Both ways in which a `disk-add` can be left half done: its QEMU lives, and the image is open, or it is dead as well. The image that
/// was being made goes; another file that has its name by then stays.
#[test]
fn only_the_image_of_a_half_done_change_is_removed() {
    for (qemu_lives, swapped) in [(true, true), (true, false), (false, true), (false, false)] {
        let what = format!("QEMU lives: {qemu_lives}, swapped: {swapped}");
        let sandbox = detached(Guest::ReactsToButton, &[]);
        let supervisor =
            i32::try_from(sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap()).unwrap();
        let qemu = qemu_of(sandbox.path());
        let (file, moved) = (sandbox.file("new.img"), sandbox.file("moved.img"));
        send(qemu, Signal::SIGSTOP);
        let mut adding = sandbox.vmrun();
        adding
            .args(["ctl", "disk-add", "new.img,size=1M,id=new"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut adding = adding.spawn().unwrap();
        eventually("the image is made", || file.metadata().is_ok_and(|facts| facts.len() == 1 << 20));
        send(adding.id().cast_signed(), Signal::SIGKILL);
        adding.wait().unwrap();
        kill(supervisor);
        if swapped {
            std::fs::rename(&file, &moved).unwrap();
            std::fs::write(&file, vec![7; 1 << 20]).unwrap();
        }
        match qemu_lives {
            true => send(qemu, Signal::SIGCONT),
            false => kill(qemu),
        }
        match qemu_lives {
            true => {
                let disks = sandbox.ctl_json(["disk-list"]);
                assert!(!disks.to_string().contains("new.img"), "{what}: {disks}");
                let nodes = sandbox.ctl(["qmp", "query-named-block-nodes"]).ok().stdout;
                assert!(!nodes.contains("new.img"), "{what}: {nodes}");
            }
            false => assert_eq!(sandbox.run(["ls", "--json"]).ok().stdout.trim(), "[]", "{what}"),
        }
        assert_eq!(file.exists(), swapped, "{what}");
        if swapped {
            assert_eq!(std::fs::read(&file).unwrap(), vec![7; 1 << 20], "{what}");
            assert!(moved.exists(), "{what}");
        }
        if qemu_lives {
            shuts_down_clean(&sandbox);
        }
    }
}
