//! Bounds of a session. QEMU runs the guest's devices, so it is not trusted with time or memory.

use std::time::Duration;

/// How long QEMU may take to greet and to leave negotiation mode. It greets 20–45 ms after it was started;
/// a loaded machine without KVM needs some hundred times that at worst.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a command may take. QEMU answers in milliseconds, and what takes longer is a job with events of its own;
/// but a command waits while QEMU's main loop flushes to a slow disk, and that must not look like a failure.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// How much a session may hold in memory.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest message from QEMU, in bytes. `query-qmp-schema` is about 200 KiB, a dump of a log through HMP
    /// a few MiB.
    pub line: usize,
    /// Longest command, in bytes. QEMU 7.2 takes input byte by byte, about 140 KiB a second here: 2 MiB are half of
    /// the usual deadline.
    pub command: usize,
    /// Commands without an answer, abandoned ones included.
    pub waiters: usize,
    /// Bytes of commands that wait for the writer. What is behind more than this meets its deadline anyway.
    pub queued_bytes: usize,
    /// Events that the receiver has not taken yet. A guest can cause floods of some (`RTC_CHANGE`, `BLOCK_IO_ERROR`).
    pub events: usize,
    /// The same in bytes of text; in memory it is several times that.
    pub event_bytes: usize,
    /// Longest event, in bytes of text; one that is longer counts as lost. QEMU's have a few hundred, and two paths at most, but
    /// a thousand of them are kept for those who listen.
    pub event: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line: 16 << 20,
            command: 2 << 20,
            waiters: 4096,
            queued_bytes: 4 << 20,
            events: 64 << 10,
            event_bytes: 32 << 20,
            event: 64 << 10,
        }
    }
}
