//! `vmrun run`: a command in a fork of a guest, as if it ran here.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use nix::sys::signal::Signal;

use crate::support::orphan::kill_supervisor;
use crate::support::processes::{self, eventually, send};
use crate::support::sandbox::{Done, Sandbox, linux_guest};

/// `vmrun run FLAGS GUEST -- COMMAND`.
fn command(sandbox: &Sandbox, flags: &[&str], command: &[&str]) -> Command {
    let mut run = sandbox.vmrun();
    run.args(["run", "--mem", "256"]).args(flags).arg(linux_guest()).arg("--").args(command);
    run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    run
}

fn run(sandbox: &Sandbox, flags: &[&str], words: &[&str]) -> Done {
    Done::of(command(sandbox, flags, words).output().unwrap())
}

/// Nothing runs once the command has returned, without waiting for it.
#[track_caller]
fn is_gone(sandbox: &Sandbox) {
    assert_eq!(sandbox.run(["ls", "--json"]).json().as_array().map(Vec::len), Some(0));
    assert!(!processes::of(sandbox.path()).iter().any(processes::Process::is_qemu));
    sandbox.is_clean();
}

/// The lines of a child's output, as they come.
fn lines(child: &mut Child) -> impl FnMut() -> String + use<> {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    move || {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        line
    }
}

#[test]
fn its_streams_and_its_code_are_the_commands() {
    let sandbox = Sandbox::new();
    let script = "echo out; echo err >&2; cat; exit 7";
    let done = run(&sandbox, &[], &["sh", "-c", script]);
    assert_eq!((done.code, done.stdout.as_str()), (7, "out\n"), "{done:?}");
    assert!(done.stderr.ends_with("err\n"), "{done:?}");
    is_gone(&sandbox);
    // its end is no failure
    let all = sandbox.run(["ls", "--all", "--json"]).json();
    let last = all.as_array().unwrap().last().unwrap();
    assert_eq!(last["outcome"]["message"], "`vmrun run` has ended it: its command ended with 7", "{all}");
    assert_eq!(last["outcome"]["exit_code"], 0, "{all}");
    // a fork: nothing is said any more, and nothing of the first run is there
    let mut child = command(&sandbox, &[], &["sh", "-c", "ls /tmp; touch /tmp/x; cat; exit 7"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&[b'x'; 300_000]).unwrap();
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!((done.code, done.stdout.len(), done.stderr.as_str()), (7, 300_000, ""), "{done:?}");
    let done = run(&sandbox, &["--env", "A=b c", "--no-stdin"], &["sh", "-c", "ls /tmp; echo \"$A\"; cat"]);
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (0, "b c\n", ""));
    is_gone(&sandbox);
    let templates = sandbox.run(["templates", "--json"]).json();
    assert_eq!((templates.as_array().map(Vec::len), &templates[0]["forks"]), (Some(1), &0.into()));
}

#[test]
fn its_own_failures_have_codes_of_their_own() {
    let sandbox = Sandbox::new();
    for (code, flags, words, told) in [
        (127, &[][..], &["no-such"][..], "no command 'no-such'"),
        (126, &[], &["/etc"], "cannot execute '/etc'"),
        (2, &[], &["sh", "-c", "exit 2"], ""),
        (137, &[], &["sh", "-c", "kill -9 $$"], ""),
        (124, &["--timeout", "1s"], &["sleep", "100"], "did not end within 1s"),
        (125, &["--paused"], &["true"], "--paused"),
        (125, &["--copy-in", "no-such:/tmp/x"], &["true"], "no-such"),
        (125, &["--copy-in", "no-such:tmp"], &["true"], "absolute"),
        (125, &["--copy-out", "tmp:x"], &["true"], "absolute"),
        (125, &["--copy-out", "/no/such:x"], &["true"], "/no/such"),
        (125, &["--cold", "--warm", "agent"], &["true"], "--cold"),
        (125, &["--env", "A"], &["true"], "NAME=VALUE"),
        (125, &["--no-such-flag"], &["true"], "--no-such-flag"),
        (125, &["--agent-timeout", "soon"], &["true"], "soon"),
        (125, &["--cold", "--keep", "--agent-timeout", "1ms"], &["true"], "was ended"),
        // the agent, and the guest, go down under the command
        (125, &["--cold"], &["sh", "-c", "kill -9 $(pidof qemu-ga); sleep 100"], "agent has ended"),
        // the first command of a fork does not need it
        (5, &[], &["sh", "-c", "kill -9 $(pidof qemu-ga); exit 5"], ""),
        (137, &[], &["sh", "-c", "kill -9 $PPID"], ""),
        (125, &[], &["sh", "-c", "echo o > /proc/sysrq-trigger; sleep 100"], "ended"),
    ] {
        let done = run(&sandbox, flags, words);
        assert_eq!(done.code, code, "{flags:?} {words:?}: {done:?}");
        assert!(done.stderr.contains(told), "{done:?}");
        // the VM has ended, whatever was said to do with it
        let says = |what: &str| done.stderr.contains(what);
        assert!(!says("vmrun ctl") && !says("`--keep` lets it run on"), "{done:?}");
        is_gone(&sandbox);
    }
    Done::of(sandbox.vmrun().args(["run", "no-such-image", "--", "true"]).output().unwrap())
        .fails(125, &["no-such-image"]);
    Done::of(sandbox.vmrun().args(["run", "x"]).output().unwrap()).fails(125, &["COMMAND"]);
}

#[test]
fn files_and_folders_go_in_before_and_come_out_afterwards() {
    let sandbox = Sandbox::new();
    let at = |name: &str| sandbox.file(name);
    fs::create_dir_all(at("tree/closed")).unwrap();
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(at("tree/big"), &bytes).unwrap();
    fs::write(at("tree/a b'$(x)"), "odd").unwrap();
    fs::write(at("tree/closed/x"), "x").unwrap();
    fs::set_permissions(at("tree/big"), Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(at("tree/closed"), Permissions::from_mode(0o500)).unwrap();
    symlink("big", at("tree/link")).unwrap();
    symlink("/no/such", at("tree/nowhere")).unwrap();
    let flags = [
        "--copy-in",
        "tree:/tmp/tree",
        "--copy-in",
        "tree/big:/root/",
        "--copy-out",
        "/tmp/tree:back",
        "--copy-out",
        "/root/big:out",
        "--copy-out",
        "/tmp/made:made",
    ];
    fs::create_dir(at("out")).unwrap();
    let modified = |name: &str| fs::symlink_metadata(at(name)).unwrap().modified().unwrap();
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::open(at("tree/closed/x")).unwrap().set_modified(long_ago).unwrap();
    let script = "rm '/tmp/tree/a b'*; mkdir -p /tmp/made/deep; echo made > /tmp/made/deep/x; mkfifo /tmp/made/pipe; touch -d @1000000000 /tmp/made/deep; exit 5";
    let done = run(&sandbox, &flags, &["sh", "-c", script]);
    assert_eq!(done.code, 5, "{done:?}");
    assert!(done.stderr.contains("pipe is left out"), "{done:?}");
    assert!(fs::read(at("back/big")).unwrap() == bytes && fs::read(at("out/big")).unwrap() == bytes);
    let mode = |name: &str| fs::symlink_metadata(at(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("back/big"), mode("back/closed")), (0o750, 0o500));
    assert_eq!(fs::read(at("back/closed/x")).unwrap(), b"x");
    assert_eq!((modified("made/deep"), modified("back/closed/x")), (long_ago, long_ago));
    assert!(!at("back/a b'$(x)").exists());
    for (link, to) in [("back/link", "big"), ("back/nowhere", "/no/such")] {
        assert_eq!(fs::read_link(at(link)).unwrap().to_str(), Some(to));
    }
    assert_eq!(fs::read(at("made/deep/x")).unwrap(), b"made\n");
    assert!(!at("made/pipe").exists());
    // what cannot be copied is named before anything is started in the guest
    nix::unistd::mkfifo(&at("tree/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let done = run(&sandbox, &["--copy-in", "tree:/tmp/tree"], &["true"]);
    done.fails(125, &["tree/pipe", "cannot be copied"]);
    fs::remove_file(at("tree/pipe")).unwrap();
    fs::write(at("file"), "kept").unwrap();
    let done = run(&sandbox, &["--copy-out", "/etc:file"], &["true"]);
    done.fails(125, &["/etc in the guest: it is a directory"]);
    assert_eq!(fs::read(at("file")).unwrap(), b"kept");
    // a full disk of the guest
    let done = run(&sandbox, &["--copy-in", "tree:/proc/tree"], &["true"]);
    done.fails(125, &["tar", "/proc/tree"]);
    is_gone(&sandbox);
}

/// The archive that the guest's `tar` writes is whatever the guest wants.
#[test]
fn a_guest_cannot_write_beside_the_folder_that_it_is_copied_to() {
    use tar::EntryType::{Block, Char, Link, Regular, Symlink};
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.file("outside")).unwrap();
    let outside = sandbox.file("outside").display().to_string();
    let pack = |name: &str, entries: &[(tar::EntryType, &str, &str)]| {
        let mut archive = tar::Builder::new(File::create(sandbox.file(name)).unwrap());
        for (kind, path, rest) in entries {
            let mut header = tar::Header::new_gnu();
            // as it is written, without a check
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o6777);
            let is_link = matches!(kind, Symlink | Link);
            if is_link {
                header.as_old_mut().linkname[..rest.len()].copy_from_slice(rest.as_bytes());
            }
            let data = if is_link { "" } else { rest };
            header.set_size(data.len() as u64);
            header.set_cksum();
            archive.append(&header, data.as_bytes()).unwrap();
        }
        archive.finish().unwrap();
    };
    let escapes: [&[(tar::EntryType, &str, &str)]; 5] = [
        &[(Regular, "../outside/a", "a")],
        &[(Symlink, "way", &outside), (Regular, "way/b", "b")],
        &[(Symlink, "way", ".."), (Regular, "way/outside/c", "c")],
        &[(Link, "way", "/etc/hostname"), (Link, "way2", "../secret")],
        &[(Block, "disk", ""), (Char, "null", ""), (Regular, "setuid", "x")],
    ];
    fs::write(sandbox.file("secret"), "secret").unwrap();
    for (number, entries) in escapes.iter().enumerate() {
        pack("evil.tar", entries);
        let to = format!("/tmp/d:out{number}");
        let flags = ["--copy-in", "evil.tar:/tmp/evil.tar", "--copy-out", &to];
        // its shell, by which its `tar` is started, lies
        let script = r#"mkdir /tmp/d; rm /bin/sh; cat > /bin/sh << 'END'
#!/bin/busybox sh
case "$2" in *'exec tar -cf'*) exec cat /tmp/evil.tar ;; *) exec /bin/busybox sh "$@" ;; esac
END
chmod 755 /bin/sh"#;
        let done = run(&sandbox, &flags, &["sh", "-c", script]);
        // `..` is passed over; what leads outside ends the copy
        assert_eq!(done.code, [0, 125, 125, 125, 0][number], "{number}: {done:?}");
        assert_eq!(fs::read_dir(sandbox.file("outside")).unwrap().count(), 0);
        let out = sandbox.file(format!("out{number}"));
        for name in ["way", "way2", "disk", "null", "a"] {
            let path = out.join(name);
            let kind = fs::symlink_metadata(&path).map(|facts| facts.file_type());
            assert!(kind.is_err() || kind.unwrap().is_symlink(), "{}", path.display());
        }
    }
    let setuid = fs::metadata(sandbox.file("out4/setuid")).expect("out4 is a good archive");
    let setuid = setuid.permissions().mode();
    assert_eq!(setuid & 0o7000, 0, "{setuid:o}");
    is_gone(&sandbox);
}

#[test]
fn without_an_agent_the_command_is_typed() {
    let sandbox = Sandbox::new();
    for (flags, words, code, output) in [
        (&[][..], &["echo", "it's", "a  b"][..], 0, "it's a  b\n"),
        (
            &["--env", "A=x y"],
            &["sh", "-c", "echo \"$A\"; echo err >&2; printf end; exit 7"],
            7,
            "x y\nerr\nend",
        ),
        (&[], &["sh", "-c", "cat; seq 3000 | sed 's/$/ line/'"], 0, ""),
        (&["--timeout", "2s"], &["sleep", "100"], 124, ""),
        (&[], &["no-such"], 127, "sh: no-such: not found\n"),
    ] {
        let flags = ["--console"].iter().chain(flags).copied().collect::<Vec<_>>();
        let done = run(&sandbox, &flags, words);
        let lines: String = (1..=3000).map(|number| format!("{number} line\n")).collect();
        let expected = if output.is_empty() && code == 0 { &lines } else { output };
        assert_eq!((done.code, done.stdout.as_str()), (code, expected), "{words:?}: {}", done.stderr);
        is_gone(&sandbox);
    }
    run(&sandbox, &["--console", "--copy-in", "x:/x"], &["true"]).fails(125, &["--copy-in"]);
    run(&sandbox, &["--console"], &["a\nb"]).fails(125, &["control characters"]);
    run(&sandbox, &["--console=("], &["true"]).fails(125, &["regular expression"]);
}

#[test]
fn without_a_reader_it_ends_as_it_would_here() {
    let sandbox = Sandbox::new();
    let mut child = command(&sandbox, &[], &["yes"]).spawn().unwrap();
    let mut line = lines(&mut child);
    assert_eq!(line(), "y\n");
    drop(line);
    assert_eq!(Done::of(child.wait_with_output().unwrap()).code, 128 + 13);
    is_gone(&sandbox);
    let mut child = command(&sandbox, &[], &["sh", "-c", "exec yes >&2"]).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_exact(&mut [0; 2]).unwrap();
    drop(stderr);
    assert_eq!(Done::of(child.wait_with_output().unwrap()).code, 128 + 13);
    is_gone(&sandbox);
}

#[test]
fn signals_reach_the_command() {
    let sandbox = Sandbox::new();
    for (signal, name) in [
        (Signal::SIGINT, "INT"),
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGUSR1, "USR1"),
    ] {
        let script =
            format!("trap 'echo got {name}; exit 42' {name}; echo ready; while :; do sleep 0.1; done");
        let mut child = command(&sandbox, &[], &["sh", "-c", &script]).spawn().unwrap();
        let mut line = lines(&mut child);
        assert_eq!(line(), "ready\n");
        // batch systems and service managers send them to every process of theirs: the VM's get them first
        let others = processes::of(sandbox.path())
            .into_iter()
            .filter(|process| process.pid != child.id().cast_signed());
        let ends = |signal: &Signal| *signal != Signal::SIGUSR1;
        others.filter(|_| ends(&signal)).for_each(|process| send(process.pid, signal));
        // `timeout` sends two for one request
        for _ in 0..2 {
            send(child.id().cast_signed(), signal);
        }
        assert_eq!(line(), format!("got {name}\n"));
        assert_eq!(Done::of(child.wait_with_output().unwrap()).code, 42);
        is_gone(&sandbox);
    }
    // one that the command does not catch ends it, and the code is a shell's
    for _ in 0..5 {
        let mut child = command(&sandbox, &[], &["sh", "-c", "echo ready; exec sleep 100"]).spawn().unwrap();
        let mut line = lines(&mut child);
        assert_eq!(line(), "ready\n");
        send(child.id().cast_signed(), Signal::SIGTERM);
        let done = Done::of(child.wait_with_output().unwrap());
        assert_eq!((done.code, done.stderr.as_str()), (128 + 15, ""));
        is_gone(&sandbox);
    }
}

#[test]
fn a_signal_before_there_is_a_command_has_its_own_code() {
    let sandbox = Sandbox::new();
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129)] {
        // the first start boots
        let child = command(&sandbox, &[], &["true"]).spawn().unwrap();
        let boots = || processes::of(sandbox.path()).iter().any(processes::Process::is_qemu);
        eventually("the VM boots", boots);
        send(child.id().cast_signed(), signal);
        let done = Done::of(child.wait_with_output().unwrap());
        assert_eq!(done.code, code, "{done:?}");
        assert!(done.stderr.contains(signal.as_str()), "{done:?}");
        is_gone(&sandbox);
    }
}

#[test]
fn the_vm_ends_with_the_process_however_that_ends() {
    let sandbox = Sandbox::new();
    let stubborn = "trap 'echo no' INT TERM; echo ready; while :; do sleep 0.1; done";
    for signals in [&[Signal::SIGKILL][..], &[Signal::SIGINT, Signal::SIGTERM]] {
        let mut child = command(&sandbox, &[], &["sh", "-c", stubborn]).spawn().unwrap();
        let pid = child.id().cast_signed();
        let mut line = lines(&mut child);
        assert_eq!(line(), "ready\n");
        let (last, first) = signals.split_last().unwrap();
        for signal in first {
            send(pid, *signal);
            assert_eq!(line(), "no\n");
        }
        // a second signal at once belongs to the first
        eventually("the process has ended", || {
            send(pid, *last);
            child.try_wait().unwrap().is_some()
        });
        assert_eq!(child.wait().unwrap().signal(), Some(*last as i32));
        eventually("the VM has ended", || processes::of(sandbox.path()).is_empty());
        sandbox.is_clean();
    }
}

/// QEMU dies with the supervisor, so that nobody takes the VM over.
#[test]
fn the_vm_ends_with_its_supervisor() {
    let sandbox = Sandbox::new();
    for with_the_process in [false, true] {
        let mut child = command(&sandbox, &[], &["sh", "-c", "echo ready; sleep 100"]).spawn().unwrap();
        let mut line = lines(&mut child);
        assert_eq!(line(), "ready\n");
        let status = sandbox.ctl_json(["status"]);
        let qemu = i32::try_from(status["qemu_pid"].as_i64().unwrap()).unwrap();
        if with_the_process {
            // it cannot end the VM any more when the supervisor has gone
            send(child.id().cast_signed(), Signal::SIGSTOP);
        }
        kill_supervisor(&sandbox);
        if with_the_process {
            send(child.id().cast_signed(), Signal::SIGKILL);
            assert!(!child.wait().unwrap().success());
        } else {
            let done = Done::of(child.wait_with_output().unwrap());
            done.fails(125, &["the guest went down while 'sh' ran", "vmrun ls --all"]);
        }
        eventually("QEMU has ended", || !processes::of(sandbox.path()).iter().any(|one| one.pid == qemu));
        is_gone(&sandbox);
    }
    // one that was to be kept can be taken over
    run(&sandbox, &["--keep", "--name", "kept"], &["true"]).ok();
    kill_supervisor(&sandbox);
    sandbox.ctl(["--vm", "kept", "exec", "true"]).ok();
    sandbox.ctl(["--vm", "kept", "shutdown"]).ok();
    is_gone(&sandbox);
}

#[test]
fn it_can_be_kept() {
    let sandbox = Sandbox::new();
    let done = run(&sandbox, &["--keep", "--name", "kept"], &["touch", "/tmp/x"]).ok();
    assert!(
        done.stderr.contains("VM 'kept' runs on") && done.stderr.contains("ctl --vm kept shutdown"),
        "{done:?}"
    );
    sandbox.ctl(["--vm", "kept", "exec", "ls", "/tmp/x"]).ok();
    sandbox.ctl(["--vm", "kept", "shutdown"]).ok();
    is_gone(&sandbox);
}

/// What the guest has written to a disk that is kept, and not yet flushed, is there afterwards.
#[test]
fn a_cold_vm_is_shut_down_properly() {
    let sandbox = Sandbox::new();
    let disk = sandbox.file("data.img");
    File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let disk_flag = format!("{},format=raw", disk.display());
    let script = "echo written > /dev/vda; echo done";
    let done = run(&sandbox, &["--cold", "--disk", &disk_flag], &["sh", "-c", script]).ok();
    assert_eq!(done.stdout, "done\n");
    let mut start = [0; 8];
    File::open(&disk).unwrap().read_exact(&mut start).unwrap();
    assert_eq!(&start, b"written\n");
    assert_eq!(sandbox.run(["templates", "--json"]).json().as_array().map(Vec::len), Some(0));
    is_gone(&sandbox);
}
