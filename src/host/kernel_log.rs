//! What the kernel's log says of a process, where this user may read it.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;

/// One record of `/dev/kmsg` has at most this many bytes (`CONSOLE_EXT_LOG_MAX`).
const RECORD: usize = 8192;
/// As many records as are looked at: the log is a ring, and is never larger.
const MOST_RECORDS: usize = 1 << 17;

/// The system call for which seccomp has killed a process; none where the log cannot be read or does not have it.
pub fn refused_call(pid: i32) -> Option<u32> {
    let mut log =
        OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open("/dev/kmsg").ok()?;
    let mut record = vec![0; RECORD];
    let mut found = None;
    for _ in 0..MOST_RECORDS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(count) => found = call_in(&String::from_utf8_lossy(&record[..count]), pid).or(found),
            // overwritten while we read: the next read goes on with what is left
            Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
            Err(_) => break,
        }
    }
    found
}

/// `audit: type=1326 … pid=1234 comm="qemu-system-x86" … sig=31 arch=c000003e syscall=57 …`
fn call_in(record: &str, pid: i32) -> Option<u32> {
    let field = |name: &str| {
        record.split([' ', ';', '\n']).find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let ours = field("type") == Some("1326") && field("pid")?.parse() == Ok(pid);
    if ours { field("syscall")?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_is_that_of_the_process() {
        let record = "5,1009,62035284,-;audit: type=1326 audit(1700000000.123:45): auid=0 uid=0 gid=0 ses=2 subj=unconfined \
            pid=1234 comm=\"qemu-system-x86\" exe=\"/usr/bin/qemu-system-x86_64\" sig=31 arch=c000003e syscall=57 compat=0";
        assert_eq!(call_in(record, 1234), Some(57));
        assert_eq!(call_in(record, 123), None);
        assert_eq!(call_in("6,1,2,-;type=1400 pid=1234 syscall=1", 1234), None);
    }
}
