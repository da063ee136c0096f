//! The standard streams of commands in the guest, which flow while the command runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStdout, Command, Stdio};

use crate::guest_exec::with_agent;
use crate::support::linux::{Linux, text};
use crate::support::orphan::kill_supervisor;
use crate::support::processes::eventually;
use crate::support::sandbox::{Done, Sandbox, linux_guest};

/// More than the agent would keep of a stream.
const MUCH: usize = 20 << 20;

fn exec(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = sandbox.vmrun();
    command.args(["ctl", "exec"]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    command
}

fn line(stdout: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    line
}

/// The ports of commands that QEMU has.
fn ports(sandbox: &Sandbox) -> Vec<String> {
    let labels = sandbox.ctl_json(["qmp", "query-chardev"]);
    let labels = labels.as_array().expect("QEMU lists its chardevs").iter();
    labels.map(|chardev| text(&chardev["label"])).filter(|label| label.starts_with("vmrun-stream-")).collect()
}

fn no_ports(sandbox: &Sandbox) {
    eventually("QEMU has no port of a command any more", || ports(sandbox).is_empty());
    let tree = sandbox.ctl(["hmp", "info qtree"]).ok().stdout;
    assert!(tree.contains("virtserialport") && !tree.contains("vmrun-stream-"), "{tree}");
}

#[test]
fn output_comes_and_input_goes_while_the_command_runs() {
    let vm = with_agent(&[]);
    let script = r#"echo ready; while read -r line; do echo "got $line"; echo "err $line" >&2; done; exit 7"#;
    let mut child = exec(&vm.sandbox, &["--stdin", "--", "sh", "-c", script]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut stdin = child.stdin.take().unwrap();
    assert_eq!(line(&mut stdout), "ready\n");
    for word in ["a", "b"] {
        writeln!(stdin, "{word}").unwrap();
        assert_eq!(line(&mut stdout), format!("got {word}\n"));
    }
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!((done.code, rest.as_str(), done.stderr.as_str()), (7, "", "err a\nerr b\n"));
    no_ports(&vm.sandbox);
    vm.quit();
}

#[test]
fn streams_have_no_limit_and_lose_nothing() {
    let vm = with_agent(&[]);
    let bytes: Vec<u8> =
        (0..MUCH / 4).flat_map(|number| u32::try_from(number * 7).unwrap().to_le_bytes()).collect();
    // in, and out again: the guest's own file is between them
    let keep = "cat > /tmp/much; sha256sum < /tmp/much";
    let mut child = exec(&vm.sandbox, &["--stdin", "--", "sh", "-c", keep]).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let sum = Done::of(child.wait_with_output().unwrap()).ok().stdout;
    assert_eq!(sum.split(' ').next().unwrap(), sha256(&bytes));
    let output = exec(&vm.sandbox, &["cat", "/tmp/much"]).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    assert!(output.stdout == bytes, "{} of {MUCH} bytes, or others", output.stdout.len());
    // both at once, with a reader that is late: the command waits for it
    let both = "cat /tmp/much & cat /tmp/much >&2; wait";
    let mut child = exec(&vm.sandbox, &["--", "sh", "-c", both]).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut errors = Vec::new();
        stderr.read_to_end(&mut errors).unwrap();
        errors
    });
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    assert!(output == bytes && errors.join().unwrap() == bytes);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    no_ports(&vm.sandbox);
    vm.quit();
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whatever ends it, the caller is answered and QEMU has no port of it.
#[test]
fn a_command_ends_however_it_ends() {
    let vm = with_agent(&[]);
    // its shell is killed before it can say how the command ended
    let done = Done::of(exec(&vm.sandbox, &["--", "sh", "-c", "echo out; kill -9 $PPID"]).output().unwrap());
    assert_eq!((done.code, done.stdout.as_str()), (137, "out\n"));
    // it leaves something running
    let done = Done::of(exec(&vm.sandbox, &["--", "sh", "-c", "sleep 4331 & echo out"]).output().unwrap());
    assert_eq!((done.code, done.stdout.as_str()), (0, "out\n"));
    vm.run("kill $(pidof sleep)");
    // its output has no reader
    let mut child = exec(&vm.sandbox, &["--", "sh", "-c", "yes"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut stdout), "y\n");
    child.kill().unwrap();
    child.wait().unwrap();
    no_ports(&vm.sandbox);
    vm.until("the command is killed", |vm| !vm.run("ps").lines().any(|line| line.ends_with(" yes")));
    vm.quit();
}

#[test]
fn no_state_is_saved_while_a_command_has_ports() {
    let vm = with_agent(&["--forkable"]);
    let mut child = exec(&vm.sandbox, &["--stdin", "--", "sh", "-c", "echo ready; cat"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut stdout), "ready\n");
    assert_eq!(ports(&vm.sandbox).len(), 3);
    let file = vm.file("saved").to_str().unwrap().to_owned();
    for command in [["freeze", &file], ["save", &file]] {
        vm.try_ctl(command).fails(4, &["a command runs in the guest", "when it has ended"]);
        assert!(!vm.file("saved").exists());
    }
    writeln!(child.stdin.take().unwrap(), "still here").unwrap();
    assert_eq!(line(&mut stdout), "still here\n");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // at once: the ports have gone with the command
    vm.ctl(["freeze", "--keep-running", &file]);
    vm.ctl(["exec", "true"]);
    vm.quit();
}

#[test]
fn a_takeover_unplugs_the_ports_of_commands() {
    let sandbox = Sandbox::new();
    let guest = linux_guest();
    sandbox.detached(["--ephemeral", "--mem", "256", "--wait", "agent", guest.to_str().unwrap()]);
    let mut child = exec(&sandbox, &["--", "sh", "-c", "echo ready; sleep 4332"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut stdout), "ready\n");
    assert_eq!(ports(&sandbox).len(), 2);
    kill_supervisor(&sandbox);
    assert_ne!(child.wait().unwrap().code(), Some(0));
    no_ports(&sandbox);
    let status = sandbox.ctl_json(["status"]).to_string();
    assert!(!status.contains("vmrun-stream-"), "{status}");
    assert_eq!(Done::of(exec(&sandbox, &["echo", "again"]).output().unwrap()).ok().stdout, "again\n");
    sandbox.ctl(["shutdown", "--force"]).ok();
}

/// As in a guest that is no Linux.
#[test]
fn without_ports_the_agent_carries_the_streams() {
    let vm = with_agent(&[]);
    vm.run("mount -t tmpfs none /sys");
    let mut child =
        exec(&vm.sandbox, &["--stdin", "--", "sh", "-c", "cat; echo err >&2; exit 3"]).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"in\n").unwrap();
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (3, "in\n", "err\n"));
    Done::of(exec(&vm.sandbox, &["no-such-command"]).output().unwrap()).fails(127, &["no-such-command"]);
    no_ports(&vm.sandbox);
    vm.quit();
}

/// A command that ends while its input still comes does not wait for that.
#[test]
fn input_that_nobody_reads_holds_up_nothing() {
    let vm: Linux = with_agent(&[]);
    let mut child = exec(&vm.sandbox, &["--stdin", "--", "head", "-c", "3"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // the end of this is written to a command that is not there any more
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&vec![b'x'; MUCH]);
    });
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!((done.code, done.stdout.as_str()), (0, "xxx"));
    writer.join().unwrap();
    no_ports(&vm.sandbox);
    vm.quit();
}

/// Both ways of copying a file: through the streams of a command, and with the agent's own calls where there are none.
#[test]
fn files_are_copied_with_and_without_ports() {
    let vm = with_agent(&[]);
    let bytes: Vec<u8> = (0..1 << 20).flat_map(|number: u32| (number ^ 0xa5).to_le_bytes()).collect();
    let (there, back) = (vm.file("there"), vm.file("back"));
    std::fs::write(&there, &bytes).unwrap();
    let (there, back) = (there.to_str().unwrap(), back.to_str().unwrap());
    for hidden in [false, true] {
        if hidden {
            vm.run("mount -t tmpfs none /sys");
        }
        vm.ctl(["copy-to", there, "/tmp/file"]);
        assert!(vm.run("sha256sum /tmp/file").starts_with(&sha256(&bytes)));
        vm.ctl(["copy-from", "/tmp/file", back]);
        assert!(std::fs::read(back).unwrap() == bytes, "without ports: {hidden}");
        std::fs::remove_file(back).unwrap();
        // a disk that is full in the middle: the reason, and nothing that stays
        vm.run("mkdir -p /tmp/small; mount -t tmpfs -o size=1M none /tmp/small");
        vm.try_ctl(["copy-to", there, "/tmp/small/file"]).fails(4, &["/tmp/small/file", "No space left"]);
        vm.until("nothing stays", |vm| vm.run("ls /tmp/small").is_empty());
        vm.run("umount /tmp/small");
    }
    no_ports(&vm.sandbox);
    vm.quit();
}
