//! Which process holds a lock, or has a file, and how it is doing.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::libc;

use super::names;

/// The process that holds the lock (`flock`) on this file, if `/proc` shows it. Takes milliseconds where there are many processes.
pub(super) fn holder(lock: &File) -> Option<i32> {
    let facts = lock.metadata().ok()?;
    // more processes look at the lock than hold it
    let holds = |pid: &i32| {
        let open = descriptors_of(*pid, names::LOCK.as_ref(), &facts);
        let is_flock = |number: &OsString| {
            locks(*pid, number).is_some_and(|locks| locks.iter().any(|lock| lock.contains("FLOCK")))
        };
        open.iter().any(is_flock)
    };
    processes()?.find(holds)
}

/// The locks that a process holds by a descriptor, as the kernel lists them.
fn locks(pid: i32, number: &OsStr) -> Option<Vec<String>> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", number.display())).ok()?;
    Some(info.lines().filter(|line| line.starts_with("lock:")).map(str::to_owned).collect())
}

/// A process that has a file open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Which.
    pub pid: i32,
    /// Its program's name, as the kernel calls it.
    pub program: String,
    /// It has the file open for writing.
    pub writes: bool,
}

/// A process, but for this one and `but`, that has this file locked, else one that has it open, if `/proc` tells.
pub fn process_with(file: &Path, but: i32) -> Option<Holder> {
    let facts = fs::metadata(file).ok()?;
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let name = file.file_name()?;
    let others = processes()?.filter(|pid| ![own, but].contains(pid));
    let open: Vec<(i32, Vec<OsString>)> = others
        .map(|pid| (pid, descriptors_of(pid, name, &facts)))
        .filter(|(_, descriptors)| !descriptors.is_empty())
        .collect();
    let is_locked = |(pid, descriptors): &&(i32, Vec<OsString>)| {
        descriptors.iter().any(|number| locks(*pid, number).is_some_and(|locks| !locks.is_empty()))
    };
    let (pid, descriptors) = open.iter().find(is_locked).or(open.first())?;
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let writes = descriptors.iter().any(|number| is_writable(*pid, number));
    Some(Holder { pid: *pid, program: program.trim().to_owned(), writes })
}

/// Whether a process can write through a descriptor, by the flags of its open file (proc_pid_fdinfo(5)).
fn is_writable(pid: i32, number: &OsStr) -> bool {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", number.display())).unwrap_or_default();
    let flags =
        info.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}

fn processes() -> Option<impl Iterator<Item = i32>> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    Some(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// The numbers of a process's descriptors of one file.
fn descriptors_of(pid: i32, name: &OsStr, facts: &Metadata) -> Vec<OsString> {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let leads_to_it = |path: &Path| {
        // the name first: to look at a file on a server that is away would take for ever
        fs::read_link(path).is_ok_and(|target| target.file_name() == Some(name))
            && fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (facts.dev(), facts.ino()))
    };
    open.flatten().filter(|entry| leads_to_it(&entry.path())).map(|entry| entry.file_name()).collect()
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
        let path = folder.path().join(names::LOCK);
        let (lock, looks) = (File::create(&path).unwrap(), File::open(&path).unwrap());
        assert_eq!(holder(&looks), None);
        assert!(sys::try_lock(&lock).unwrap());
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(holder(&looks), Some(own));
        assert!(matches!(process_state(own), Some('R' | 'S')));
    }
}
