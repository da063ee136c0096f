//! Detects a kernel's panic from the console, where no panic device tells of it: its driver is often a module that was not loaded yet,
//! for example when there is no root file system.
//!
//! What Linux prints (`kernel/panic.c`) begins with `Kernel panic - not syncing: REASON`. A kernel that stops there ends with a line
//! `---[ end Kernel panic - not syncing: REASON ]---`. Anybody who can write to the console can print that, too, an old log for
//! example; so it counts only while the console is silent after it, but for lines of the kernel. Nothing is done about such a panic
//! but to tell of it.

use std::time::Duration;

use memchr::memmem;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::vm::console::{From, Hub, Reader};

/// The line of a kernel that has stopped.
const END: &str = "---[ end Kernel panic - not syncing: ";
/// The first line of a panic.
const BEGIN: &str = "Kernel panic - not syncing: ";
/// How long the console must be silent after it.
const SILENCE: Duration = Duration::from_secs(1);
/// More of a line is not looked at.
const LONGEST_LINE: usize = 512;

/// Follows the console.
pub(in crate::vm) struct PanicWatch {
    reader: Reader,
    resets: watch::Receiver<u64>,
    lines: Lines,
    told: Option<String>,
}

impl PanicWatch {
    /// Starts with what the console still has; `resets` changes on each reset of the guest.
    pub(in crate::vm) fn new(hub: &Hub, resets: watch::Receiver<u64>) -> Self {
        Self { reader: hub.reader(From::Recent), resets, lines: Lines::default(), told: None }
    }

    /// Waits until the result changes: the reason of the panic that the guest stands in, or that there is none any more. `None` at
    /// the console's end.
    pub(in crate::vm) async fn next(mut self) -> Option<(Self, Option<String>)> {
        loop {
            tokio::select! { biased;
                changed = self.resets.changed() => {
                    changed.ok()?;
                    self.lines = Lines::default();
                }
                chunk = self.reader.next() => self.lines.take(&chunk?.bytes),
            }
            while self.lines.panic.is_some() && self.lines.panic != self.told {
                let Ok(more) = timeout(SILENCE, self.reader.next()).await else { break };
                self.lines.take(&more?.bytes);
            }
            if self.lines.panic != self.told {
                self.told.clone_from(&self.lines.panic);
                let told = self.told.clone();
                return Some((self, told));
            }
        }
    }
}

/// The last lines of the console.
#[derive(Default)]
struct Lines {
    /// Without its end.
    unfinished: Vec<u8>,
    /// The kernel has stopped for this reason, and only lines of the kernel have followed.
    panic: Option<String>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        // nearly all output is none of this
        if self.panic.is_none() && self.unfinished.is_empty() && memmem::find(bytes, b"---[ end K").is_none()
        {
            let rest = memchr::memrchr(b'\n', bytes).map_or(bytes, |end| &bytes[end + 1..]);
            return self.unfinished.extend(rest.iter().take(LONGEST_LINE));
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LONGEST_LINE.saturating_sub(self.unfinished.len());
            self.unfinished.extend(piece.iter().take(room));
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.unfinished);
                self.line(&String::from_utf8_lossy(&line));
            } else if !of_kernel(&String::from_utf8_lossy(&self.unfinished)) {
                self.panic = None;
            }
        }
    }

    fn line(&mut self, line: &str) {
        let text = without_stamp(line).trim();
        if let Some(reason) = text.strip_prefix(END) {
            self.panic = Some(reason.trim_end_matches("]---").trim().to_owned());
        } else if !text.is_empty() && !of_kernel(line) {
            self.panic = None;
        }
    }
}

/// Whether it is a line of the kernel, or the beginning of one.
fn of_kernel(line: &str) -> bool {
    let line = line.trim_end();
    line.is_empty() || line.starts_with('[') || line.starts_with("---[")
}

/// A line without the kernel's time, `[    1.234567] ` or, with the caller's id, `[    1.234567][    T1] `.
fn without_stamp(line: &str) -> &str {
    let mut rest = line;
    while let Some((stamp, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_stamp =
            stamp.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | ' '));
        if !is_stamp {
            break;
        }
        rest = after.trim_start();
    }
    rest
}

/// The reason of the last panic in some output.
pub(in crate::vm) fn last_panic(output: &[u8]) -> Option<String> {
    let at = memmem::rfind(output, BEGIN.as_bytes())? + BEGIN.len();
    let line = output[at..].split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let line = String::from_utf8_lossy(&line[..line.len().min(LONGEST_LINE)]).into_owned();
    Some(line.trim_end_matches("]---").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PANIC: &str = "[    1.612] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n\
        [    1.613] CPU: 0 PID: 1 Comm: swapper/0 Not tainted\r\n\
        [    1.614]  dump_stack_lvl+0x44/0x5c\r\n\
        [    1.620] ---[ end Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0) ]---\r\n";
    const REASON: &str = "VFS: Unable to mount root fs on unknown-block(0,0)";

    fn found(pieces: &[&str]) -> Option<String> {
        let mut lines = Lines::default();
        pieces.iter().for_each(|piece| lines.take(piece.as_bytes()));
        lines.panic
    }

    #[test]
    fn a_kernel_that_stands_still_has_panicked_however_its_lines_come() {
        assert_eq!(found(&[PANIC]).as_deref(), Some(REASON));
        let single: Vec<String> = PANIC.chars().map(String::from).collect();
        assert_eq!(found(&single.iter().map(String::as_str).collect::<Vec<_>>()).as_deref(), Some(REASON));
        // without times, with the caller's id, and with something of the kernel's behind it
        assert_eq!(
            found(&["---[ end Kernel panic - not syncing: Attempted to kill init! ]---\n"]).as_deref(),
            Some("Attempted to kill init!")
        );
        assert_eq!(
            found(&["[    2.1][    T1] ---[ end Kernel panic - not syncing: x ]---\r\n"]).as_deref(),
            Some("x")
        );
        assert_eq!(found(&[PANIC, "[    9.0] random: crng init done\r\n", "[ "]).as_deref(), Some(REASON));
    }

    #[test]
    fn a_log_that_is_printed_is_no_panic() {
        assert_eq!(found(&[PANIC, "root@guest:~# "]), None);
        assert_eq!(found(&[PANIC, "\r\nlogin: "]), None);
        assert_eq!(found(&["Nov 28 kernel: ---[ end Kernel panic - not syncing: x ]---\n"]), None);
        assert_eq!(found(&["Kernel panic - not syncing: x\n"]), None);
        assert_eq!(found(&["no panic\n", "at all"]), None);
    }

    #[test]
    fn the_last_panic_of_some_output_is_found() {
        assert_eq!(last_panic(PANIC.as_bytes()).as_deref(), Some(REASON));
        assert_eq!(
            last_panic(b"Kernel panic - not syncing: a\r\n[ 1] Kernel panic - not syncing: b\r\nx")
                .as_deref(),
            Some("b")
        );
        assert_eq!(last_panic(b"fine"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_after_a_silence_and_is_over_with_a_reset() {
        let hub = Hub::default();
        let (resets, beginnings) = watch::channel(0);
        let watch = PanicWatch::new(&hub, beginnings);
        hub.push(PANIC.as_bytes());
        let (watch, panic) = watch.next().await.unwrap();
        assert_eq!(panic.as_deref(), Some(REASON));
        resets.send_replace(1);
        let (watch, panic) = watch.next().await.unwrap();
        assert_eq!(panic, None);
        // a prompt within the silence
        let next = tokio::spawn(watch.next());
        hub.push(PANIC.as_bytes());
        tokio::time::sleep(SILENCE / 2).await;
        hub.push(b"# ");
        tokio::time::sleep(SILENCE * 5).await;
        assert!(!next.is_finished());
        hub.close();
        assert!(next.await.unwrap().is_none());
    }
}
