//! Detects that the firmware has found nothing to boot, from its last messages on the serial console.
//!
//! QEMU has no event for it. The messages are compared without spaces and escape sequences, since SeaBIOS and EDK II move the
//! cursor instead of printing spaces. Only the first output after a start or a reset is searched, so that a running guest costs
//! nothing; and a message counts only while nothing follows it.

use std::time::Duration;

use anstream::adapter::StripBytes;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::vm::console::{Chunk, From, Hub, Reader};

/// How many bytes are searched after a start: boot menus and iPXE print less, and an operating system's messages come later.
const LOOKED_AT: usize = 256 << 10;
/// How long the console must be silent after the message.
const SILENCE: Duration = Duration::from_secs(1);
/// How many bytes belong to the last message, without spaces.
const TAIL: usize = 256;
/// What may follow a message: "Press any key to enter the Boot Manager Menu.", "Retrying in 60 seconds."
const BEHIND: usize = 64;

/// Messages of SeaBIOS, EDK II and s390-ccw, without spaces.
const HALTED: [&[u8]; 4] = [
    b"Nobootabledevice.",
    b"Nobootableoptionordevicewasfound.",
    b"!NoIPLdeviceavailable!",
    b"Couldnotfindasuitablebootdevice(nonespecified)",
];
const SHELL: &[u8] = b"UEFIInteractiveShell";
const PROMPT: &[u8] = b"Shell>";

/// What the firmware does after it has found nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NothingToBoot {
    /// It waits forever, or for a key.
    Halted,
    /// Its shell waits for commands.
    Shell,
}

impl NothingToBoot {
    /// The message for users.
    pub fn message(self) -> &'static str {
        match self {
            Self::Halted => "the firmware found nothing to boot",
            Self::Shell => "the firmware found nothing to boot, and shows its shell",
        }
    }
}

/// Follows the console.
pub(in crate::vm) struct BootWatch {
    hub: Hub,
    reader: Reader,
    resets: watch::Receiver<u64>,
    words: Words,
    /// The number of bytes that are still searched before the next reset.
    left: usize,
    told: Option<NothingToBoot>,
}

impl BootWatch {
    /// Starts with what the console still has; `resets` changes on each reset of the guest.
    pub(in crate::vm) fn new(hub: &Hub, resets: watch::Receiver<u64>) -> Self {
        let reader = hub.reader(From::Recent);
        Self { hub: hub.clone(), reader, resets, words: Words::default(), left: LOOKED_AT, told: None }
    }

    /// Waits until the result changes; `None` at the console's end.
    pub(in crate::vm) async fn next(mut self) -> Option<(Self, Option<NothingToBoot>)> {
        loop {
            let is_looking = self.left > 0 || self.told.is_some();
            let chunk = tokio::select! { biased;
                changed = self.resets.changed() => {
                    changed.ok()?;
                    self.begin();
                    None
                }
                chunk = self.reader.next(), if is_looking => Some(chunk?),
            };
            if let Some(chunk) = chunk {
                self.take(&chunk);
            }
            let mut found = self.words.found();
            while found.is_some() && found != self.told {
                let Ok(more) = timeout(SILENCE, self.reader.next()).await else { break };
                self.take(&more?);
                found = self.words.found();
            }
            if found != self.told {
                self.told = found;
                return Some((self, found));
            }
        }
    }

    fn begin(&mut self) {
        self.reader = self.hub.reader(From::Now);
        self.words = Words::default();
        self.left = LOOKED_AT;
    }

    fn take(&mut self, chunk: &Chunk) {
        self.left = self.left.saturating_sub(chunk.bytes.len());
        self.words.take(&chunk.bytes);
    }
}

/// The last messages on the console.
#[derive(Default)]
struct Words {
    escapes: StripBytes,
    /// Without spaces.
    tail: Vec<u8>,
    /// The EFI shell has started.
    shell: bool,
}

impl Words {
    fn take(&mut self, bytes: &[u8]) {
        for text in self.escapes.strip_next(bytes) {
            // in pieces, so that no byte leaves the window unsearched
            for piece in text.chunks(TAIL / 4) {
                self.tail.extend(piece.iter().filter(|byte| byte.is_ascii_graphic()));
                self.shell |= position(&self.tail, SHELL).is_some();
                let excess = self.tail.len().saturating_sub(TAIL);
                self.tail.drain(..excess);
            }
        }
    }

    fn found(&self) -> Option<NothingToBoot> {
        let is_last = |words: &&[u8]| {
            position(&self.tail, words).is_some_and(|at| self.tail.len() - at - words.len() <= BEHIND)
        };
        if self.shell && self.tail.ends_with(PROMPT) {
            return Some(NothingToBoot::Shell);
        }
        HALTED.iter().any(is_last).then_some(NothingToBoot::Halted)
    }
}

/// The last occurrence of a message.
fn position(text: &[u8], words: &[u8]) -> Option<usize> {
    text.windows(words.len()).rposition(|window| window == words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pieces: &[&str]) -> Option<NothingToBoot> {
        let mut words = Words::default();
        pieces.iter().for_each(|piece| words.take(piece.as_bytes()));
        words.found()
    }

    #[test]
    fn the_firmwares_words_are_known_however_they_are_printed() {
        let halted = Some(NothingToBoot::Halted);
        assert_eq!(found(&["Booting from Floppy...\r\nBoot failed\r\n\nNo bootable device.\r\n"]), halted);
        assert_eq!(found(&["No boot", "able\x1b[12;7H device.  Retrying in 60 seconds.\r\n"]), halted);
        let bds = "BdsDxe: No bootable option or device was found.\r\nBdsDxe: Press any key to enter the Boot Manager Menu.\r\n";
        assert_eq!(found(&[bds]), halted);
        assert_eq!(found(&["! No IPL device available !\n"]), halted);
        let shell = [
            "\x1b[2J\x1b[01;01HUEFI Interactive Shell v2.2\r\nEDK II\r\nPress \x1b[1mESC\x1b[0m in 1 seconds to skip\r\n",
            "\x1b[08;01H\x1b[1m\x1b[33m\x1b[40mShell> \x1b[0m\x1b[37m\x1b[40m",
        ];
        assert_eq!(found(&shell), Some(NothingToBoot::Shell));
        for bytes in shell.concat().as_bytes().chunks(1) {
            assert!(!bytes.is_empty());
        }
        let single: Vec<String> = shell.concat().chars().map(String::from).collect();
        assert_eq!(found(&single.iter().map(String::as_str).collect::<Vec<_>>()), Some(NothingToBoot::Shell));
    }

    #[test]
    fn what_goes_on_has_found_something() {
        assert_eq!(found(&["Booting from Hard Disk...\r\n"]), None);
        let linux = "[    0.000000] Linux version 6.1 ".repeat(4);
        assert_eq!(found(&["No bootable device.\r\n", &linux]), None);
        // the prompt of another program, and a shell that runs a script
        assert_eq!(found(&["grub rescue Shell> "]), None);
        assert_eq!(found(&["UEFI Interactive Shell v2.2\r\nShell> fs0:\\linux.efi\r\nEFI stub"]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_begins_anew_and_much_output_ends_it() {
        let hub = Hub::default();
        let (resets, beginnings) = watch::channel(0);
        let watch = BootWatch::new(&hub, beginnings);
        hub.push(b"No bootable device.\r\n");
        let (watch, found) = watch.next().await.unwrap();
        assert_eq!(found, Some(NothingToBoot::Halted));
        resets.send_replace(1);
        let (watch, found) = watch.next().await.unwrap();
        assert_eq!(found, None);
        hub.push(b"Booting from Hard Disk...\r\n");
        hub.push(&vec![b'x'; LOOKED_AT]);
        let next = tokio::spawn(watch.next());
        tokio::time::sleep(Duration::from_secs(60)).await;
        hub.push(b"No bootable device.\r\n");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!next.is_finished());
        hub.close();
        resets.send_replace(2);
        assert!(next.await.unwrap().is_none());
    }
}
