//! A guest that prints as fast as it can is not held up by those who do not read it, and fills neither memory nor disk.

use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::boot_sector::Guest;
use crate::support::orphan::{detached, kill_supervisor};
use crate::support::processes::{eventually, memory_kib, qemu_of, send, ticks};
use crate::support::sandbox::{Sandbox, wait_with_patience};

/// How long one measurement takes.
const WINDOW: Duration = Duration::from_millis(1500);
/// How often it is repeated before a slower guest counts as slowed down: the machine is shared.
const TRIES: usize = 6;
/// 64 MiB: the ring of recent output has 256 KiB, and a reader's share of the log 1 MiB here.
const MEMORY_LIMIT_KIB: u64 = 64 << 10;

/// What the guest prints each time that it counts, `line 00000000\r\n`, and what a pipe holds, in bytes.
const LINE: u64 = 15;
const PIPE: u64 = 64 << 10;

/// A flooding VM whose output is a pipe that this test reads or not.
struct Flood {
    sandbox: Sandbox,
    vm: Child,
    qemu: i32,
}

impl Flood {
    fn start() -> Self {
        let sandbox = Sandbox::new();
        let image = sandbox.boot_sector(Guest::FloodsConsole);
        let mut command = sandbox.vmrun();
        command.args(["qemu", "--log-size", "1M"]).arg(image).stdout(Stdio::piped()).stderr(Stdio::null());
        let vm = command.spawn().unwrap();
        eventually("it is there", || sandbox.ctl(["status"]).code == 0);
        sandbox.ctl(["wait", "console=line 00000500", "--timeout", "60s"]).ok();
        let qemu = qemu_of(sandbox.path());
        Self { sandbox, vm, qemu }
    }

    /// Lines for each second of processor time that QEMU got, and for each second on the wall.
    fn speed(&self) -> (f64, f64) {
        let (began, lines, used) = (Instant::now(), self.sandbox.counter(), ticks(self.qemu));
        std::thread::sleep(WINDOW);
        let lines = self.sandbox.counter() - lines;
        let used = ticks(self.qemu) - used;
        (lines as f64 * 100.0 / used.max(1) as f64, lines as f64 / began.elapsed().as_secs_f64())
    }

    fn supervisor_kib(&self) -> u64 {
        memory_kib(i32::try_from(self.vm.id()).unwrap())
    }

    fn log_bytes(&self) -> u64 {
        let size = |name: &str| std::fs::metadata(self.sandbox.file(name)).map_or(0, |facts| facts.len());
        size("guest-state/console.log") + size("guest-state/console.log.1")
    }

    fn end(mut self) {
        drop(self.vm.stdout.take());
        self.sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
        assert!(wait_with_patience(&mut self.vm).success());
        self.sandbox.is_clean();
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.vm.kill();
        let _ = self.vm.wait();
    }
}

/// Reads a stream to its end on a thread of its own.
fn drain(mut stream: impl Read + Send + 'static) {
    std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
}

#[test]
fn a_flood_that_nobody_reads_does_not_slow_the_guest() {
    let mut drained = Flood::start();
    drain(drained.vm.stdout.take().unwrap());
    let jammed = Flood::start();
    let mut console = jammed.sandbox.vmrun();
    let mut console = console.arg("console").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut shown = console.stdout.take().unwrap();
    let mut first = [0; 64];
    shown.read_exact(&mut first).unwrap();
    let stopped = i32::try_from(console.id()).unwrap();
    send(stopped, Signal::SIGSTOP);
    // long enough for every pipe and socket on the way to be full, and for the log to have been rotated
    let far = jammed.sandbox.counter() + 70_000;
    eventually("the log is full", || jammed.sandbox.counter() > far);

    let mut ratios = Vec::new();
    for _ in 0..TRIES {
        let (with, without) = (drained.speed(), jammed.speed());
        println!("lines per second of processor time: drained {:.0}, jammed {:.0}", with.0, without.0);
        println!("lines per second: drained {:.0}, jammed {:.0}", with.1, without.1);
        ratios.push(without.0 / with.0);
        if without.0 > 0.9 * with.0 {
            break;
        }
    }
    assert!(ratios.iter().any(|ratio| *ratio > 0.9), "{ratios:?}");
    let (memory, log) = (jammed.supervisor_kib(), jammed.log_bytes());
    println!("supervisor {memory} KiB (drained {} KiB), log {log} bytes", drained.supervisor_kib());
    assert!(memory < MEMORY_LIMIT_KIB, "{memory} KiB");
    assert!(log <= 1 << 20, "{log} bytes");

    // a client that does not read for long is disconnected; what a slow one gets has a test of its own
    send(stopped, Signal::SIGKILL);
    jammed.end();
    let _ = console.wait();
    drained.end();
}

/// Without a supervisor its output is lost: its pipe would be full after a tenth of a second.
#[test]
fn a_flood_goes_on_without_a_supervisor_and_is_seen_by_the_next() {
    let sandbox = detached(Guest::FloodsConsole, &[]);
    sandbox.ctl(["wait", "console=line 00000500", "--timeout", "60s"]).ok();
    kill_supervisor(&sandbox);
    let known = std::fs::metadata(sandbox.file("guest-state/console.log")).unwrap().len();
    std::thread::sleep(WINDOW);
    // the next command starts a new supervisor
    let lines = sandbox.counter();
    let missed = (lines * LINE).saturating_sub(known);
    println!("{lines} lines, of which the supervisors have read {known} bytes; {missed} bytes went by");
    assert!(
        missed > 2 * PIPE,
        "{missed} bytes went by, and {PIPE} are in the pipe of a guest that stands still"
    );
    let next = format!("console=line {:08}", lines + 20_000);
    sandbox.ctl(["wait", &next, "--from-now", "--timeout", "3m"]).ok();
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    sandbox.is_clean();
}

#[test]
fn the_output_of_a_slow_reader_has_a_mark() {
    let mut flood = Flood::start();
    let far = flood.sandbox.counter() + 40_000;
    eventually("the pipe and the ring are full", || flood.sandbox.counter() > far);
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let stdout = flood.vm.stdout.as_mut().unwrap();
    while !text.windows(9).any(|window| window == b" skipped]") {
        let count = stdout.read(&mut buffer).unwrap();
        assert!(count > 0 && text.len() < 4 << 20, "no mark");
        text.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let mark = text.lines().find(|line| line.ends_with(" skipped]")).unwrap();
    let count: u64 = mark.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(mark.starts_with("[vmrun: ") && count > 0, "{mark}");
    flood.end();
}
