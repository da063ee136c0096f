//! How fast a guest's console reaches a pipe.

use std::io::Read;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::measure::{RUNS, in_turn};
use super::qemu::CommandLine;
use super::report::{Beside, Goal, Row};
use super::support::boot_sector::Guest;
use super::support::sandbox::Sandbox;

/// After it was told to go on, and while its output is counted.
const SETTLING: Duration = Duration::from_millis(100);
const COUNTED: Duration = Duration::from_millis(500);

/// Two guests that print as fast as they can, one of which is paused while the other is measured.
pub(crate) fn rows() -> Vec<Row> {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::FloodsConsole);
    let command_line = CommandLine::of(&sandbox, &["--name", "vm"], &image).with("-serial", "stdio");

    let mut command = sandbox.vmrun();
    command.args(["qemu", "--name", "vm"]).arg(&image).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut vmrun = command.spawn().unwrap();
    let ours = count(vmrun.stdout.take().unwrap());
    flows(&ours);
    sandbox.ctl(["pause"]).ok();

    // the same image may be open only once
    let other = sandbox.file("other.img");
    std::fs::copy(&image, &other).unwrap();
    let command_line = command_line.with_image(&image, &other);
    let mut bare = command_line.start(sandbox.path(), Stdio::piped());
    let theirs = count(bare.child.stdout.take().unwrap());
    let mut monitor = bare.monitor();
    monitor.ask(r#"{"execute":"cont"}"#);
    flows(&theirs);
    monitor.ask(r#"{"execute":"stop"}"#);

    let mut vmrun_rate = || {
        sandbox.ctl(["resume"]).ok();
        let rate = megabytes_per_second(&ours);
        sandbox.ctl(["pause"]).ok();
        rate
    };
    let mut bare_rate = || {
        monitor.ask(r#"{"execute":"cont"}"#);
        let rate = megabytes_per_second(&theirs);
        monitor.ask(r#"{"execute":"stop"}"#);
        rate
    };
    let [ours, limit] = in_turn(RUNS, [&mut vmrun_rate, &mut bare_rate]);
    sandbox.ctl(["shutdown", "--force"]);
    vmrun.wait().unwrap();
    let beside = Beside::Peer("QEMU, -serial stdio", limit);
    vec![Row::new("console to a pipe", "MB/s", &ours, beside, Goal::TimesTheRate(0.9))]
}

/// Reads it to its end, and counts.
fn count(mut pipe: impl Read + Send + 'static) -> Arc<AtomicU64> {
    let read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&read);
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count) = pipe.read(&mut bytes) {
            if count == 0 {
                return;
            }
            counter.fetch_add(u64::try_from(count).unwrap(), Ordering::Relaxed);
        }
    });
    read
}

/// Waits until the guest has booted and prints.
fn flows(read: &AtomicU64) {
    super::support::processes::eventually("the guest prints", || read.load(Ordering::Relaxed) > 10_000);
}

fn megabytes_per_second(read: &AtomicU64) -> f64 {
    std::thread::sleep(SETTLING);
    let (begun, before) = (Instant::now(), read.load(Ordering::Relaxed));
    std::thread::sleep(COUNTED);
    let count = read.load(Ordering::Relaxed) - before;
    count as f64 / begun.elapsed().as_secs_f64() / 1e6
}
