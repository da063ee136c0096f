//! Which process holds a lock, or has a file, and how it is doing.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The process that holds the lock (`flock`) on this file, if `/proc` tells. Needs milliseconds where there are many processes.
pub(super) fn holder(lock: &File) -> Option<i32> {
    let facts = lock.metadata().ok()?;
    let wanted = (facts.dev(), facts.ino());
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid: &i32| holds(*pid, wanted))
}

fn holds(pid: i32, wanted: (u64, u64)) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|entry| {
        let path = entry.path();
        // the name first: to look at a file on a server that is away would take for ever
        let named = fs::read_link(&path).is_ok_and(|target| is_lock(&target));
        // more processes look at the lock than hold it
        named
            && fs::metadata(&path).is_ok_and(|facts| (facts.dev(), facts.ino()) == wanted)
            && fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().display())).is_ok_and(
                |info| info.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK")),
            )
    })
}

/// A process, but for this one and `but`, that has this file open, with its program's name, if `/proc` tells.
pub fn process_with(file: &Path, but: i32) -> Option<(i32, String)> {
    let facts = fs::metadata(file).ok()?;
    let wanted = (facts.dev(), facts.ino());
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pid = pids.find(|pid: &i32| ![own, but].contains(pid) && has_open(*pid, file, wanted))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, name.trim().to_owned()))
}

fn has_open(pid: i32, file: &Path, wanted: (u64, u64)) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|entry| {
        let path = entry.path();
        // the name first, as above
        fs::read_link(&path).is_ok_and(|target| target.file_name() == file.file_name())
            && fs::metadata(&path).is_ok_and(|facts| (facts.dev(), facts.ino()) == wanted)
    })
}

fn is_lock(target: &Path) -> bool {
    target.file_name().is_some_and(|name| name == super::names::LOCK)
}

/// What a process does, in the letter of proc_pid_stat(5): `T` is stopped, `D` waits for a device.
pub fn process_state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // its name, which is in brackets, may hold anything
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sys;

    #[test]
    fn only_who_holds_the_lock_is_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(super::super::names::LOCK);
        let (lock, looks) = (File::create(&path).unwrap(), File::open(&path).unwrap());
        assert_eq!(holder(&looks), None);
        assert!(sys::try_lock(&lock).unwrap());
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(holder(&looks), Some(own));
        assert!(matches!(process_state(own), Some('R' | 'S')));
    }
}
