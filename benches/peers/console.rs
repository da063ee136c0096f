//! How fast a guest's console reaches a pipe.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::line::Line;
use super::measure::{RUNS, in_turn};
use super::qemu::{Bare, CommandLine};
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

    let mut command = sandbox.vmrun();
    command.args(["qemu", "--name", "vm"]).arg(&image).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut vmrun = command.spawn().unwrap();
    let ours = count(vmrun.stdout.take().unwrap());
    flows(&ours);
    sandbox.ctl(["pause"]).ok();

    let to_stdout = CommandLine::of(&sandbox, &["--name", "vm"], &image);
    let mut piped = Peer::start(&sandbox, &to_stdout, &image);

    let mut vmrun_rate = || {
        sandbox.ctl(["resume"]).ok();
        let rate = megabytes_per_second(&ours);
        sandbox.ctl(["pause"]).ok();
        rate
    };
    let [ours, theirs] = in_turn(RUNS, [&mut vmrun_rate, &mut || piped.rate()]);
    sandbox.ctl(["shutdown", "--force"]);
    vmrun.wait().unwrap();
    let beside = Beside::Peer("QEMU, console on stdio", theirs);
    vec![Row::new("console to a pipe", "MB/s", &ours, beside, Goal::TimesTheRate(0.9))]
}

/// A QEMU of its own, paused unless it is measured.
struct Peer {
    monitor: Line,
    read: Arc<AtomicU64>,
    _bare: Bare,
}

impl Peer {
    fn start(sandbox: &Sandbox, command_line: &CommandLine, image: &Path) -> Self {
        // the same image may be open only once
        let other = sandbox.file("peer.img");
        std::fs::copy(image, &other).unwrap();
        let folder = sandbox.file("peer");
        std::fs::create_dir(&folder).unwrap();
        let mut bare = command_line.clone().with_image(image, &other).start(&folder, Stdio::piped());
        let read = count(bare.child.stdout.take().unwrap());
        let monitor = bare.monitor();
        let mut peer = Self { monitor, read, _bare: bare };
        peer.monitor.ask(r#"{"execute":"cont"}"#);
        flows(&peer.read);
        peer.monitor.ask(r#"{"execute":"stop"}"#);
        peer
    }

    fn rate(&mut self) -> f64 {
        self.monitor.ask(r#"{"execute":"cont"}"#);
        let rate = megabytes_per_second(&self.read);
        self.monitor.ask(r#"{"execute":"stop"}"#);
        rate
    }
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
