//! The control socket under attack. Each attack is of our own user: the supervisor must outlive it, stay small, and go on
//! serving others.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::boot_sector::Guest;
use crate::support::chance::repetitions;
use crate::support::processes::{eventually, memory_kib};
use crate::support::sandbox::Sandbox;
use crate::support::varlink::Raw;

const STATUS: &str = "io.vmrun.Machine.GetStatus";
/// What the supervisor may grow by: 512 connections of 1 MiB at worst would be more, none of these attacks needs it.
const GROWTH_KIB: u64 = 48 << 10;
/// What a good client may wait while the attack goes on; two busy cores are allowed for.
const PATIENCE: Duration = Duration::from_secs(10);

struct Target {
    sandbox: Sandbox,
    socket: PathBuf,
    supervisor: i32,
    before: u64,
}

impl Target {
    fn start() -> Self {
        let sandbox = Sandbox::new();
        let image = sandbox.boot_sector(Guest::Halted);
        let name = sandbox.detached([&image]);
        let socket = sandbox.runtime().join(&name).join("control");
        let status = Raw::connect(&socket).call(STATUS, json!({}));
        let supervisor = status["parameters"]["status"]["supervisor_pid"].as_i64().unwrap() as i32;
        let before = memory_kib(supervisor);
        Self { sandbox, socket, supervisor, before }
    }

    fn connect(&self) -> Raw {
        Raw::connect(&self.socket)
    }

    /// A good client is served, the supervisor is small.
    #[track_caller]
    fn is_well(&self) {
        let start = Instant::now();
        let status = self.connect().call(STATUS, json!({}));
        assert_eq!(status["parameters"]["status"]["state"], "running", "{status}");
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        let now = memory_kib(self.supervisor);
        assert!(now < self.before + GROWTH_KIB, "grew from {} to {now} KiB", self.before);
    }

    fn end(self) {
        self.is_well();
        self.sandbox.ctl(["shutdown", "--force"]);
    }
}

#[test]
fn a_frame_of_a_gigabyte_is_cut_off_at_a_mebibyte() {
    let target = Target::start();
    let mut raw = target.connect();
    raw.stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    let block = vec![b'x'; 1 << 16];
    let mut sent = 0u64;
    while sent < 1 << 30 {
        match raw.stream.write(&block) {
            Ok(count) => sent += count as u64,
            Err(_) => break,
        }
    }
    assert!(sent < 4 << 20, "{sent} bytes were taken");
    // a call of nearly that size is answered (by us: QEMU would read it byte by byte)
    let mut raw = target.connect();
    let answer = raw.call("io.vmrun.Machine.AddUsb", json!({ "selector": "x".repeat((1 << 20) - 4096) }));
    assert_eq!(answer["error"], "io.vmrun.Machine.InvalidArgument");
    target.end();
}

#[test]
fn wrong_frames_are_answered_by_name() {
    let target = Target::start();
    let deep = |depth: usize| {
        format!("{{\"method\":\"{STATUS}\",\"parameters\":{}1{}}}", "[".repeat(depth), "]".repeat(depth))
    };
    let call =
        |method: &str, parameters: &str| format!("{{\"method\":\"{method}\",\"parameters\":{parameters}}}");
    let invalid = "org.varlink.service.InvalidParameter";
    let frames: Vec<(Vec<u8>, &str, &str)> = vec![
        (b"".to_vec(), invalid, ""),
        (b"hello".to_vec(), invalid, ""),
        (b"{\"method\":\"\xff\xfe\"}".to_vec(), invalid, ""),
        (b"{\"method\":5}".to_vec(), invalid, ""),
        (b"{}".to_vec(), invalid, ""),
        (b"[1,2]".to_vec(), invalid, ""),
        (deep(100).into_bytes(), invalid, "parameters"),
        (deep(100_000).into_bytes(), invalid, ""),
        (call("nonsense", "{}").into_bytes(), "org.varlink.service.InterfaceNotFound", ""),
        (call("io.vmrun.Machine.Fly", "{}").into_bytes(), "org.varlink.service.MethodNotFound", ""),
        (call("org.varlink.service.Fly", "{}").into_bytes(), "org.varlink.service.MethodNotFound", ""),
        (call("com.example.Fly", "{}").into_bytes(), "org.varlink.service.InterfaceNotFound", ""),
        (call(STATUS, "5").into_bytes(), invalid, "parameters"),
        (call(STATUS, "[]").into_bytes(), invalid, "parameters"),
        (call("io.vmrun.Machine.AddUsb", "[\"usb-kbd\", null]").into_bytes(), invalid, "parameters"),
        (call("io.vmrun.Machine.AddUsb", "{}").into_bytes(), invalid, "selector"),
        (call("io.vmrun.Machine.AddUsb", "{\"selector\":5}").into_bytes(), invalid, "selector"),
        (
            call("io.vmrun.Machine.AddForward", "{\"host_port\":\"x\",\"guest_port\":1}").into_bytes(),
            invalid,
            "host_port",
        ),
        (
            call("io.vmrun.Machine.AddForward", "{\"host_port\":99999,\"guest_port\":1}").into_bytes(),
            "io.vmrun.Machine.InvalidArgument",
            "host_port",
        ),
    ];
    let mut raw = target.connect();
    for (frame, error, parameter) in &frames {
        raw.send(frame);
        let shown = String::from_utf8_lossy(&frame[..frame.len().min(80)]).into_owned();
        let answer = raw.receive().unwrap_or_else(|| panic!("{shown}: hung up"));
        assert_eq!(answer["error"], *error, "{shown}: {answer}");
        if !parameter.is_empty() {
            assert_eq!(answer["parameters"]["parameter"], *parameter, "{shown}: {answer}");
        }
    }
    // the same connection still serves
    assert!(raw.call(STATUS, json!({}))["error"].is_null());
    target.end();
}

#[test]
fn a_thousand_connections_that_say_nothing_or_half_keep_nobody_out() {
    let target = Target::start();
    let mut idle: Vec<UnixStream> = Vec::new();
    for number in 0..1000 {
        let mut stream = UnixStream::connect(&target.socket).unwrap();
        if number % 2 == 0 {
            let _ = stream.write_all(b"{\"method\":\"io.vmrun.Mach");
        }
        idle.push(stream);
        if number % 250 == 0 {
            target.is_well();
        }
    }
    for _ in 0..10 {
        target.is_well();
    }
    drop(idle);
    target.end();
}

#[test]
fn clients_that_never_read_or_vanish_slow_nobody() {
    let target = Target::start();
    let call = format!("{{\"method\":\"{STATUS}\"}}\0").repeat(500);
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = UnixStream::connect(&target.socket).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        // until neither side takes any more
        while stream.write_all(call.as_bytes()).is_ok() {}
        silent.push(stream);
    }
    for _ in 0..200 {
        let mut stream = UnixStream::connect(&target.socket).unwrap();
        let _ = stream.write_all(&call.as_bytes()[..call.len() / 10]);
    }
    target.is_well();
    drop(silent);
    target.end();
}

#[test]
fn what_clients_took_is_given_back() {
    /// Of pages of the program that were not needed before, and of what the allocator may keep.
    const KEPT_KIB: u64 = 3 << 10;
    let target = Target::start();
    target.is_well();
    let before = memory_kib(target.supervisor);
    // frames of many lengths at once, so that what stays in between keeps the rest from being one piece
    let mut peak = before;
    for round in 0..3 {
        let halves: Vec<UnixStream> = (0..60)
            .map(|number| {
                let mut stream = UnixStream::connect(&target.socket).unwrap();
                stream.write_all(&vec![b'['; (number + 1) << 11]).unwrap();
                stream
                    .write_all(format!("{{\"method\":\"{STATUS}\"}}\0").repeat(round + 1).as_bytes())
                    .unwrap();
                // a message that has not ended is held
                stream.write_all(&vec![b'['; (number + 1) << 12]).unwrap();
                stream
            })
            .collect();
        target.is_well();
        peak = peak.max(memory_kib(target.supervisor));
        drop(halves);
    }
    assert!(peak > before + KEPT_KIB, "{before} → {peak} KiB is no attack");
    eventually("what they took is given back", || memory_kib(target.supervisor) <= before + KEPT_KIB);
    target.end();
}

#[test]
fn clients_that_gave_up_waiting_keep_nobody_out() {
    let target = Target::start();
    let wait = br#"{"method":"io.vmrun.Machine.Wait","parameters":{"conditions":["console=never"]}}"#;
    // more than are served at once
    for _ in 0..1500 {
        target.connect().send(wait);
    }
    target.is_well();
    target.end();
}

#[test]
fn a_client_that_has_said_its_last_word_gets_its_answer() {
    let target = Target::start();
    let mut raw = target.connect();
    raw.send(br#"{"method":"io.vmrun.Machine.Wait","parameters":{"conditions":["console=never"],"timeout_ms":300}}"#);
    raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(raw.receive().unwrap()["error"], "io.vmrun.Machine.TimedOut");
    target.end();
}

#[test]
fn many_tiny_calls_are_all_answered() {
    const CALLS: usize = 20_000;
    let target = Target::start();
    let mut raw = target.connect();
    let mut writer = raw.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let call = b"{\"method\":\"org.varlink.service.GetInfo\"}\0".repeat(100);
        for _ in 0..CALLS / 100 {
            writer.write_all(&call).unwrap();
        }
    });
    for number in 0..CALLS {
        if number % 5000 == 0 {
            target.is_well();
        }
        assert_eq!(raw.receive().unwrap()["parameters"]["product"], "vmrun");
    }
    writing.join().unwrap();
    target.end();
}

#[test]
fn garbage_of_every_kind_ends_nothing() {
    let target = Target::start();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..200 {
        let mut stream = UnixStream::connect(&target.socket).unwrap();
        let length = random() % 4000;
        let bytes: Vec<u8> = (0..length).flat_map(|_| random().to_le_bytes()).collect();
        let _ = stream.write_all(&bytes);
        if random() % 2 == 0 {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read(&mut [0; 64]);
        }
    }
    target.end();
}

#[test]
#[cfg_attr(lacks = "root", ignore = "needs root")]
fn another_user_gets_nowhere() {
    assert!(nix::unistd::geteuid().is_root(), "only root can become another user");
    let target = Target::start();
    // even if all permissions are opened, the peer's uid is checked
    let open = |path: &std::path::Path| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(path, mode).unwrap();
    };
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.settimeout(10)\ntry:\n s.connect(sys.argv[1])\n s.sendall(b'{\"method\":\"org.varlink.service.GetInfo\"}\\0')\n sys.exit(1 if s.recv(100) else 0)\nexcept OSError as e:\n sys.exit(0)\n";
    let try_it = || {
        let output =
            Command::new("python3").args(["-c", script]).arg(&target.socket).uid(65534).gid(65534).output();
        let output = output.unwrap();
        assert!(output.status.success(), "another user was answered: {output:?}");
    };
    try_it();
    for path in [target.sandbox.path(), &target.sandbox.file("run"), &target.sandbox.runtime()] {
        open(path);
    }
    open(target.socket.parent().unwrap());
    open(&target.socket);
    try_it();
    // vmrun itself refuses folders that are open to others: the VM could not be ended
    let folders = [target.sandbox.path().to_owned(), target.sandbox.file("run"), target.sandbox.runtime()];
    for path in folders.into_iter().chain([target.socket.parent().unwrap().to_owned()]) {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
    let status: Value = target.connect().call(STATUS, json!({}));
    assert!(status["error"].is_null());
    target.end();
}

/// What two good clients see in turn, every 5 ms: how long one call takes.
struct Seen {
    /// Of a client that stays connected.
    staying: Vec<Duration>,
    /// Of one that connects anew for each call.
    coming: Vec<Duration>,
    /// The most memory that was in use.
    peak_kib: u64,
}

impl Seen {
    fn measure(target: &Target, staying: &mut Raw, calls: usize) -> Self {
        let mut seen = Self { staying: Vec::new(), coming: Vec::new(), peak_kib: 0 };
        let call = |client: &mut Raw, began: Instant| {
            let answer = client.call(STATUS, json!({}));
            assert!(answer["error"].is_null(), "{answer}");
            began.elapsed()
        };
        for _ in 0..calls {
            std::thread::sleep(Duration::from_millis(5));
            seen.staying.push(call(staying, Instant::now()));
            let began = Instant::now();
            seen.coming.push(call(&mut target.connect(), began));
            seen.peak_kib = seen.peak_kib.max(memory_kib(target.supervisor));
        }
        seen.staying.sort();
        seen.coming.sort();
        seen
    }

    #[track_caller]
    fn check(&self, target: &Target, attack: &str) {
        let [staying, coming] =
            [&self.staying, &self.coming].map(|times| (times[times.len() / 2], times[times.len() - 1]));
        let peak_mib = self.peak_kib >> 10;
        println!(
            "| {attack} | {:.1?} | {:.1?} | {:.1?} | {:.1?} | {peak_mib} MiB |",
            staying.0, staying.1, coming.0, coming.1
        );
        for (median, worst) in [staying, coming] {
            assert!(
                median < Duration::from_millis(500) && worst < PATIENCE,
                "{attack}: {median:?}, {worst:?}"
            );
        }
        assert!(self.peak_kib < target.before + GROWTH_KIB, "{attack}: {peak_mib} MiB");
    }
}

/// Attacks until it is stopped.
type Attack = fn(&std::path::Path, &mut Vec<UnixStream>);

const ATTACKS: [(&str, Attack); 7] = [
    ("tiny calls without end", |socket, kept| {
        if kept.is_empty() {
            let stream = UnixStream::connect(socket).unwrap();
            let mut reader = stream.try_clone().unwrap();
            std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
            kept.push(stream);
        }
        let _ = kept[0].write_all(&b"{\"method\":\"org.varlink.service.GetInfo\"}\0".repeat(100));
    }),
    ("1,000 connections with half a frame", |socket, kept| {
        if kept.len() < 1000 {
            let mut stream = UnixStream::connect(socket).unwrap();
            let _ = stream.write_all(b"{\"method\":\"io.vm");
            kept.push(stream);
        }
    }),
    ("frames without an end", |socket, _| {
        let mut stream = UnixStream::connect(socket).unwrap();
        while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
    }),
    ("clients that never read", |socket, kept| {
        if kept.len() < 20 {
            let mut stream = UnixStream::connect(socket).unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
            while stream.write_all(format!("{{\"method\":\"{STATUS}\"}}\0").repeat(50).as_bytes()).is_ok() {}
            kept.push(stream);
        }
    }),
    ("clients that vanish before the reply", |socket, _| {
        let mut stream = UnixStream::connect(socket).unwrap();
        let _ = stream.write_all(format!("{{\"method\":\"{STATUS}\"}}\0").as_bytes());
    }),
    ("garbage", |socket, _| {
        let mut stream = UnixStream::connect(socket).unwrap();
        let _ = stream.write_all(&[0xff, 0, 0x7b, 0, 0x5b].repeat(200));
    }),
    ("deep nesting", |socket, _| {
        let mut stream = UnixStream::connect(socket).unwrap();
        let _ = stream.write_all(format!("{{\"method\":{}\0", "[".repeat(500_000)).as_bytes());
    }),
];

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The figures of docs/security.md come from `make soak`.
#[test]
fn good_clients_keep_their_latency_during_every_attack() {
    let target = Target::start();
    let calls = 3 * repetitions(10);
    let mut staying = target.connect();
    println!("| attack | staying: median | worst | coming: median | worst | memory |");
    Seen::measure(&target, &mut staying, calls).check(&target, "none");
    for (name, attack) in ATTACKS {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // also when the measurement fails
            let _ended = Stop(&stop);
            scope.spawn(|| {
                let mut kept = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    attack(&target.socket, &mut kept);
                }
            });
            Seen::measure(&target, &mut staying, calls).check(&target, name);
        });
    }
    target.end();
}
