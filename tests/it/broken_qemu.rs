//! A program that is no QEMU, or a broken one: the start ends in words, and leaves nothing.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::support::boot_sector::{self, Guest};
use crate::support::sandbox::{Sandbox, python};

/// Takes the first connection of its monitor, as QEMU does, and then does what the test says.
const PREAMBLE: &str = r#"
import socket, sys, time
values = dict(zip(sys.argv, sys.argv[1:]))
monitor = values["-qmp"].removeprefix("chardev:")
pairs = [dict(pair.split("=") for pair in value.split(",")[1:]) for key, value in zip(sys.argv, sys.argv[1:]) if key == "-chardev"]
listening = socket.socket(fileno=int(next(pair["fd"] for pair in pairs if pair["id"] == monitor)))
client, _ = listening.accept()
GREETING = b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n'
def forever():
    while True: time.sleep(1000)
def say(text):
    try: client.sendall(text)
    except OSError: forever()
"#;

/// What it says, with what vmrun tells of it.
const CASES: [(&str, &str); 12] = [
    ("sys.exit(0)", "it ended without any output"),
    ("print('out of order', file=sys.stderr); sys.exit(1)", "out of order"),
    ("client.close(); forever()", "closed its monitor"),
    ("say(b'SSH-2.0-OpenSSH_9.2\\r\\n'); forever()", "SSH-2.0-OpenSSH_9.2"),
    ("say(b'\\x00' * 100 + b'\\n'); forever()", "is no message"),
    ("say(b'[' * 1000 + b'\\n'); forever()", "is no message"),
    ("say(b'x' * (17 << 20)); forever()", "more than 16777216 bytes"),
    ("say(GREETING[:20]); client.close(); forever()", "in the middle of a message"),
    ("say(GREETING); client.recv(9999); client.close(); forever()", "closed its monitor"),
    ("say(GREETING); client.recv(9999); say(b'{} {}\\n'); forever()", "is no message"),
    (
        "say(GREETING); client.recv(9999); say(b'{\"error\": {\"class\": \"X\", \"desc\": \"not today\"}, \"id\": %d}\\n' % 7); client.close(); forever()",
        "closed its monitor",
    ),
    // ten seconds without a greeting
    ("[(say(b'{'), time.sleep(1)) for _ in range(60)]; forever()", "did not greet within 10s"),
];

#[test]
fn a_qemu_that_talks_nonsense_at_the_start_is_told_of() {
    let sandbox = Sandbox::new();
    for (number, (does, _)) in CASES.into_iter().enumerate() {
        let program = sandbox.file(format!("qemu-{number}"));
        std::fs::write(&program, format!("#!{}\n{PREAMBLE}{does}\n", python().display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        boot_sector::write(Guest::Halted, &sandbox.file(format!("{number}.img")));
    }
    // each waits for seconds, whether QEMU ends by itself
    std::thread::scope(|scope| {
        for (number, (does, words)) in CASES.into_iter().enumerate() {
            let sandbox = &sandbox;
            scope.spawn(move || is_told(sandbox, number, does, words));
        }
    });
    sandbox.is_clean();
}

fn is_told(sandbox: &Sandbox, number: usize, does: &str, words: &str) {
    let began = Instant::now();
    let program = sandbox.file(format!("qemu-{number}"));
    let image = format!("{number}.img");
    let done = sandbox.run(["qemu", "--detached", "--qemu", program.to_str().unwrap(), &image]);
    let done = done.fails(1, &[words]);
    println!("{:5.1} s  {does}: {}", began.elapsed().as_secs_f32(), done.stderr);
    assert!(began.elapsed() < Duration::from_secs(60), "{does}: {:?}", began.elapsed());
}
