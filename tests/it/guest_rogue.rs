//! A guest whose agent lies: a program of the test's answers in the place of `qemu-ga`. What its answers do to this machine is looked
//! at from outside: the folder, the modes, the terminal's bytes, the memory and the descriptors of the supervisor.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::guest_exec::with_agent;
use crate::guest_shutdown::KILL_AGENT;
use crate::printing::is_harmless;
use crate::support::linux::Linux;
use crate::support::processes::memory_kib;
use crate::support::pty::OnTerminal;
use crate::support::sandbox::Done;
use crate::support::varlink::Raw;

/// Answers as /tmp/mode says. `$line` is the host's command; what is read of a file is 6,144 bytes, over and over.
const ROGUE: &str = r##"
cat > /tmp/rogue <<'END'
exec 3<> /dev/virtio-ports/org.qemu.guest_agent.0
answer() { echo "$1" >&3; }
ends() { answer '{"return": {"exited": true, "exitcode": '"${2:-0}"', "out-data": "'"$(printf "$1" | base64 | tr -d '\n')"'"}}'; }
data=$(head -c 6144 /dev/zero | base64 | tr -d '\n')
evil='evil\u001b]52;c;ZXZpbA==\u0007\u009b31m\u202e\nhint: forged'
last=
while read -r line <&3; do
    case $line in
    *guest-sync-delimited*)
        id=${line##*\"id\":}
        printf '\377{"return": %s}\n' "${id%%[!0-9]*}" >&3
        continue ;;
    *guest-shutdown*) continue ;;
    *'"guest-exec"'*) last=$line; echo "$line" > /tmp/last ;;
    esac
    mode=$(cat /tmp/mode)
    case $mode in
    words) answer '{"error": {"class": "GenericError", "desc": "'"$evil"'"}}'; continue ;;
    many-words)
        printf '{"error": {"class": "GenericError", "desc": "' >&3
        head -c 8000000 /dev/zero | tr '\0' x >&3
        answer '"}}'
        continue ;;
    garbage) printf 'garbage \377\000\033]0;x\007 {{{\n' >&3; continue ;;
    wrong-types) answer '{"return": {"pid": "x", "exited": 7, "count": -1, "buf-b64": {}, "evil": "'"$evil"'"}}'; continue ;;
    endless-line) while cat /tmp/block; do :; done >&3 ;;
    silent) continue ;;
    silent-later) case $line in *guest-exec-status*|*guest-file-read*) continue ;; esac ;;
    esac
    case $line in
    *guest-exec-status*)
        case $mode:$last in
        cut-*) answer '{"return": {"exited": true, "exitcode": '"${mode#cut-}"', "out-data": "YmVndW4=", "out-truncated": true}}' ;;
        signal*) answer '{"return": {"exited": true, "signal": '"${mode#signal}"'}}' ;;
        code-*) ends '' "${mode#code-}" ;;
        path:*umask*) ends 'P/tmp/evil\033]52;c;ZXZpbA==\007\n' ;;
        *umask*) ends 'P/tmp/x' ;;
        *mv\ -f*) ends sha256 ;;
        *sha256sum*) ends "$(printf '%064d' 0)" ;;
        unknown-size:*) ends '' 1 ;;
        *) ends '6777 5' ;;
        esac ;;
    *'"guest-exec"'*) answer '{"return": {"pid": 1}}' ;;
    *guest-file-open*) answer '{"return": 1}' ;;
    *guest-file-read*)
        echo read >> /tmp/reads
        case $mode in
        checksum) if [ -e /tmp/once ]; then rm /tmp/once; answer '{"return": {"count": 5, "eof": true, "buf-b64": "YWFhYWE="}}'
            else answer '{"return": {"count": 0, "eof": true, "buf-b64": ""}}'; fi ;;
        *) answer '{"return": {"count": 6144, "eof": false, "buf-b64": "'"$data"'"}}' ;;
        esac ;;
    *guest-file-write*) answer '{"return": {"count": '"$(cat /tmp/count)"', "eof": false}}' ;;
    *) answer '{"return": {}}' ;;
    esac
done
END
echo ordinary > /tmp/mode
head -c 1000000 /dev/zero | tr '\0' x > /tmp/block
echo 1 > /tmp/count
"##;

fn with_rogue() -> Linux {
    let vm = with_agent(&["--name", "rogue"]);
    vm.run(ROGUE);
    vm.run(KILL_AGENT);
    vm.run("setsid sh /tmp/rogue > /tmp/rogue.log 2>&1 < /dev/null &");
    vm.ctl(["wait", "agent", "--timeout", "60s"]);
    vm
}

fn turns(vm: &Linux, mode: &str) {
    vm.run(&format!("echo {mode} > /tmp/mode; rm -f /tmp/reads; touch /tmp/once"));
}

/// What is in the sandbox's folder now.
fn files(vm: &Linux) -> Vec<String> {
    let entries = fs::read_dir(vm.file(".")).unwrap().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const COPY_FROM: &[&str] = &["copy-from", "/x", "out"];
const COPY_TO: &[&str] = &["copy-to", "/proc/version", "/x"];
const EXEC: &[&str] = &["exec", "--", "true"];

#[test]
fn a_lying_agent_reaches_neither_disk_nor_terminal() {
    let vm = with_rogue();
    fs::write(vm.file("out"), "old").unwrap();
    fs::set_permissions(vm.file("out"), PermissionsExt::from_mode(0o600)).unwrap();
    let before = files(&vm);
    let unchanged = |what: &str| {
        assert_eq!(files(&vm), before, "{what}");
        assert_eq!(fs::read(vm.file("out")).unwrap(), b"old", "{what}");
        assert_eq!(fs::metadata(vm.file("out")).unwrap().permissions().mode() & 0o7777, 0o600, "{what}");
    };

    // 5 bytes are announced, and it never ends. The kernel lets the copy write no more than 5 KiB, and is not needed for it.
    turns(&vm, "endless");
    let mut limited = vm.sandbox.program("sh");
    limited.args(["-c", "ulimit -f 5; exec \"$0\" ctl copy-from /x out", env!("CARGO_BIN_EXE_vmrun")]);
    Done::of(limited.output().unwrap()).fails(4, &["/x", "grown"]);
    unchanged("endless");
    assert_eq!(vm.run("wc -l < /tmp/reads"), "1", "one answer was too much");
    // the client does not stop it either: a client that reads everything gets the error after the facts
    turns(&vm, "endless");
    let mut client = Raw::connect(&vm.sandbox.runtime().join("rogue/control"));
    let call =
        json!({ "method": "io.vmrun.Machine.ReadGuestFile", "parameters": { "path": "/x" }, "more": true });
    client.send(call.to_string().as_bytes());
    let facts = client.receive().unwrap();
    assert_eq!(facts["parameters"]["size_bytes"], 5, "{facts}");
    let end = client.receive().unwrap();
    assert_eq!(end["error"], "io.vmrun.Machine.RefusedByGuest", "{end}");
    assert_eq!(vm.run("wc -l < /tmp/reads"), "1");

    turns(&vm, "checksum");
    vm.try_ctl(COPY_FROM).fails(1, &["/x", "checksums differ"]);
    unchanged("checksum");
    // the guest takes more than it was given, or nothing
    let more_or_less = ["0", "-1", "1000000"].map(|count| (count, "takes no more"));
    for (count, words) in
        more_or_less.into_iter().chain([("\"x\"", "make sense of the guest agent's answer")])
    {
        turns(&vm, "ordinary");
        vm.run(&format!("echo '{count}' > /tmp/count"));
        vm.try_ctl(COPY_TO).fails(4, &["/x", words]);
    }

    for (mode, words) in [("words", "evil"), ("garbage", "make sense"), ("wrong-types", "make sense")] {
        turns(&vm, mode);
        for command in [EXEC, COPY_FROM, COPY_TO] {
            let mut on_terminal = vm.sandbox.vmrun();
            on_terminal.arg("ctl").args(command);
            let mut terminal = OnTerminal::start(&on_terminal);
            terminal.shows("vmrun: ");
            let (status, shown) = terminal.end_with_output();
            // our line's end has a carriage return, and the terminal adds one
            is_harmless(&format!("{mode} {command:?}"), &shown.replace("\r\r\n", "\n"));
            assert!(shown.to_lowercase().contains(words), "{mode} {command:?}: {shown}");
            let code = status.code().unwrap();
            let unstarted = mode == "words" && command == EXEC;
            assert_eq!(code, if unstarted { 126 } else { 4 }, "{mode} {command:?}: {shown}");
            unchanged(mode);
        }
    }
    // the place of a file is the guest's word, too
    turns(&vm, "path");
    vm.run("echo 1 > /tmp/count");
    fs::write(vm.file("one"), "1").unwrap();
    let done = vm.try_ctl(["copy-to", "one", "/x"]);
    assert!(done.code == 0 && done.stdout.contains("/tmp/evil"), "{done:#?}");
    is_harmless("path", &done.stdout);

    // what did not end well is never 0
    for (mode, code) in [
        ("code-256", 255),
        ("code--1", 255),
        ("code-3", 3),
        ("signal-128", 255),
        ("signal0", 255),
        ("signal9", 137),
        ("signal200", 255),
    ] {
        turns(&vm, mode);
        assert_eq!(vm.try_ctl(EXEC).code, code, "{mode}");
    }
    // neither is output of which a part is missing
    for (mode, code) in [("cut-0", 1), ("cut-3", 3)] {
        turns(&vm, mode);
        let done = vm.try_ctl(EXEC);
        assert_eq!((done.code, done.stdout.as_str()), (code, "begun"), "{done:?}");
        assert!(
            done.stderr.contains("only the first 16 MiB") && done.stderr.contains("copy-from"),
            "{done:?}"
        );
    }
    vm.quit();
}

#[test]
fn an_agent_without_end_fills_no_memory_and_holds_up_nobody() {
    let vm = with_rogue();
    let supervisor = i32::try_from(vm.status()["supervisor_pid"].as_i64().unwrap()).unwrap();
    let before = memory_kib(supervisor);

    // 8 MB of words, of which a message holds its share
    turns(&vm, "many-words");
    for command in [EXEC, COPY_FROM] {
        let done = vm.try_ctl(command);
        assert!(done.code != 0 && done.stderr.contains("xxxx"), "{} {}", done.code, done.stderr.len());
        assert!(done.stderr.len() < 4096, "{} bytes", done.stderr.len());
    }

    // it stops answering in the middle: a command's time is over all the same, and nothing is claimed of its end
    turns(&vm, "silent-later");
    let began = Instant::now();
    let done = vm.try_ctl(["exec", "--timeout", "300ms", "--", "sleep", "1000"]);
    done.fails(5, &["300ms", "and was killed"]);
    vm.run("rm /tmp/last");
    let mut waiting = vm.sandbox.vmrun();
    waiting.args(["ctl", "exec", "--timeout", "3s", "--", "sleep", "1001"]);
    let waiting = waiting.stderr(Stdio::piped()).spawn().unwrap();
    vm.until("it has started", |vm| vm.sh("grep 1001 /tmp/last").0 == 0);
    turns(&vm, "silent");
    Done::of(waiting.wait_with_output().unwrap()).fails(5, &["3s", "may still run"]);
    assert!(began.elapsed() < Duration::from_secs(60));

    eprintln!("{:?} until the flood", began.elapsed());
    // a line without end, while others go on
    turns(&vm, "endless-line");
    let mut flooded = vm.sandbox.vmrun();
    flooded.args(["ctl", "exec", "--", "true"]);
    let flooded = flooded.stderr(Stdio::piped()).spawn().unwrap();
    let mut most = 0;
    let mut flooded = Some(flooded);
    while let Some(mut child) = flooded.take() {
        most = most.max(memory_kib(supervisor));
        assert_eq!(vm.status()["state"], "running");
        if child.try_wait().unwrap().is_none() {
            flooded = Some(child);
        } else {
            let done = Done::of(child.wait_with_output().unwrap());
            assert!(matches!(done.code, 4 | 5), "{done:#?}");
        }
    }
    most = most.max(memory_kib(supervisor));
    eprintln!("memory: {before} KiB before, {most} KiB at most");
    // one answer may have 48 MiB
    assert!(most < before + (128 << 10), "{before} KiB before, {most} KiB at most");
    eprintln!("{:?} until its end", began.elapsed());
    // and the VM ends when it is asked to
    let done = vm.try_ctl(["shutdown", "--timeout", "20s"]);
    assert_eq!(done.code, 0, "{done:#?}");
    vm.end();
}
