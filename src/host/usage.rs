//! What a process uses of this machine, from Linux' `/proc`.

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{Pid, SysconfVar, sysconf};

/// Processor time of a process (all its threads, those that have ended too), to a hundredth of a second as a rule.
///
/// # Errors
/// It has ended, or there is no `/proc`.
pub fn process_cpu_time(proc: &Path, pid: Pid) -> io::Result<Duration> {
    cpu_time(&proc.join(pid.to_string()).join("stat"))
}

/// Processor time of one thread of a process.
///
/// # Errors
/// It has ended, or there is no `/proc`.
pub fn thread_cpu_time(proc: &Path, pid: Pid, thread: i64) -> io::Result<Duration> {
    cpu_time(&proc.join(pid.to_string()).join("task").join(thread.to_string()).join("stat"))
}

fn cpu_time(stat: &Path) -> io::Result<Duration> {
    let ticks = ticks(&std::fs::read(stat)?).ok_or(io::ErrorKind::InvalidData)?;
    duration(ticks)
}

fn duration(ticks: u64) -> io::Result<Duration> {
    let per_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
    Ok(Duration::from_millis(ticks.saturating_mul(1000) / per_second.max(1)))
}

/// How long ago a process was started, by its start time in clock ticks since the machine's. No clock that can be set is asked.
///
/// # Errors
/// There is no `/proc`.
pub fn age(proc: &Path, start_time: u64) -> io::Result<Duration> {
    let uptime = uptime(&std::fs::read_to_string(proc.join("uptime"))?).ok_or(io::ErrorKind::InvalidData)?;
    Ok(uptime.saturating_sub(duration(start_time)?))
}

/// The first number of `/proc/uptime`: seconds, with hundredths.
fn uptime(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.split_ascii_whitespace().next()?.parse().ok()?).ok()
}

/// `utime` and `stime` (fields 14 and 15), in clock ticks.
fn ticks(stat: &[u8]) -> Option<u64> {
    // the second field is the program's name in parentheses, and may hold anything, ") " too
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(&stat[end_of_name + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace().skip(14 - 3);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

/// Memory of a process that is resident, in bytes (`VmRSS`).
///
/// # Errors
/// It has ended, or there is no `/proc`.
pub fn resident_bytes(proc: &Path, pid: Pid) -> io::Result<u64> {
    let status = std::fs::read_to_string(proc.join(pid.to_string()).join("status"))?;
    resident(&status).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Memory of a process that is mapped privately from a file of this name and inode: what is resident and still the file's, shared with
/// all processes that have it mapped, in bytes (`Rss` less `Anonymous` of `smaps`). `None` if it has no such mapping.
///
/// # Errors
/// It has ended, or there is no `/proc`.
pub fn shared_with_file(proc: &Path, pid: Pid, name: &str, inode: u64) -> io::Result<Option<u64>> {
    let smaps = std::fs::read_to_string(proc.join(pid.to_string()).join("smaps"))?;
    Ok(shared(&smaps, name, inode))
}

fn shared(smaps: &str, name: &str, inode: u64) -> Option<u64> {
    let (mut is_it, mut found, mut bytes) = (false, false, 0_u64);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        let Some(field) = first.strip_suffix(':') else {
            // address, permissions, offset, device, inode, path
            let mut rest = words.skip(3);
            is_it = rest.next().and_then(|word| word.parse().ok()) == Some(inode)
                && line.rsplit('/').next() == Some(name);
            found |= is_it;
            continue;
        };
        let mut kib = || words.next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024;
        match field {
            "Rss" if is_it => bytes = bytes.saturating_add(kib()),
            "Anonymous" if is_it => bytes = bytes.saturating_sub(kib()),
            _ => {}
        }
    }
    found.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_writes() {
        let fields: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b) S {}", fields.join(" "));
        assert_eq!(ticks(stat.as_bytes()), Some(14 + 15));
        assert_eq!(ticks(b"7 (short) S 1"), None);
        assert_eq!(resident("VmPeak:\t 9 kB\nVmRSS:\t  12 kB\n"), Some(12 * 1024));
        assert_eq!(resident("VmPeak:\t 9 kB\n"), None);
    }

    #[test]
    fn what_a_fork_shares_is_what_it_has_not_written() {
        let smaps = "7f00-7f10 rw-p 00000000 fd:01 1234    /srv/a template/memory\n\
            Size: 65536 kB\nRss:  100 kB\nPss: 50 kB\nAnonymous:   40 kB\nVmFlags: rd wr\n\
            7f10-7f20 rw-p 00000000 00:00 0 \nRss: 7 kB\nAnonymous: 7 kB\n\
            7f20-7f30 rw-p 04000000 fd:01 1234 /srv/t/memory\nRss: 3 kB\nAnonymous: 0 kB\n\
            7f30-7f40 r--p 04000000 fd:01 99 /srv/t/memory\nRss: 5 kB\n";
        assert_eq!(shared(smaps, "memory", 1234), Some(63 << 10));
        assert_eq!(shared(smaps, "memory", 1), None);
        assert_eq!(shared(smaps, "other", 1234), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_something() {
        let (proc, own) = (Path::new("/proc"), Pid::this());
        assert!(resident_bytes(proc, own).unwrap() > 1 << 20);
        let thread = i64::from(own.as_raw());
        assert!(process_cpu_time(proc, own).unwrap() >= thread_cpu_time(proc, own, thread).unwrap());
        assert!(process_cpu_time(proc, Pid::from_raw(i32::MAX)).is_err());
        let started = crate::host::sys::process_start_time(proc, own).unwrap();
        let old = age(proc, started).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        let older = age(proc, started).unwrap();
        assert!(older > old && older < Duration::from_secs(24 * 3600), "{old:?}, {older:?}");
        // a process of the next moment has no age yet
        assert_eq!(age(proc, u64::MAX).unwrap(), Duration::ZERO);
    }

    #[test]
    fn reads_the_machines_uptime() {
        assert_eq!(uptime("350735.47 234388.90\n"), Some(Duration::from_millis(350_735_470)));
        assert_eq!(uptime(""), None);
        assert_eq!(uptime("-1 5"), None);
    }
}
