//! Processes that run for a test, and waits for what has no event.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::sandbox::PATIENCE;

/// A process of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) command: String,
}

impl Process {
    pub(crate) fn is_qemu(&self) -> bool {
        self.command.contains("qemu-system-")
    }
}

/// All living processes with this folder in their arguments or in their environment, but not this one.
pub(crate) fn of(folder: &Path) -> Vec<Process> {
    let own = std::process::id().to_string();
    let has = |bytes: &[u8]| {
        let wanted = folder.as_os_str().as_bytes();
        bytes.windows(wanted.len()).any(|window| window == wanted)
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let processes = entries.filter_map(|entry| {
        let name = entry.file_name().to_str()?.to_owned();
        let pid = name.parse().ok().filter(|_| name != own)?;
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let command = read("cmdline");
        // one that has ended and was not reaped has neither
        (has(&command) || has(&read("environ")))
            .then(|| Process { pid, command: String::from_utf8_lossy(&command).replace('\0', " ") })
    });
    processes.collect()
}

/// The only QEMU of this folder.
#[track_caller]
pub(crate) fn qemu_of(folder: &Path) -> i32 {
    let all: Vec<Process> = of(folder).into_iter().filter(Process::is_qemu).collect();
    let [one] = &all[..] else { panic!("not one QEMU: {all:#?}") };
    one.pid
}

/// Whether a process has closed its files and let go of its locks; that it has no arguments any more comes before.
pub(crate) fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    stat.is_empty() || (stat.contains(") Z ") && threads <= 1)
}

pub(crate) fn send(pid: i32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).unwrap();
}

/// For what has no event to wait for: looks every few milliseconds.
#[track_caller]
pub(crate) fn eventually(what: &str, come_true: impl FnMut() -> bool) {
    assert!(within(PATIENCE, come_true), "{what}: not within {PATIENCE:?}");
}

/// The same with another deadline; whether it came true.
pub(crate) fn within(time: Duration, mut come_true: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    loop {
        if come_true() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Memory in use that is not shared with others, in KiB.
pub(crate) fn memory_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Processor time used so far, in clock ticks (10 ms).
pub(crate) fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    // utime and stime are the fields 14 and 15, and the list begins with the third
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
