//! Always reads QEMU's end of the console, and writes the typed input to it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::{Notify, mpsc};

use super::hub::Hub;
use super::log_file::ConsoleLog;
use crate::vm::error::ChangeError;
use crate::vm::process::sockets::Serial;

/// The size of one read; QEMU's serial port sends a few bytes at a time.
pub(super) const BUFFER: usize = 64 << 10;
/// How long to wait for more output once there is some. QEMU writes each byte separately, and waking a reader for each costs much
/// more than letting bytes gather in the pipe, which holds what a guest prints in some ten times this time. It also keeps lines
/// together, which our own messages would split otherwise.
const GATHERING: Duration = Duration::from_millis(1);
/// How long to wait for the end of the output of a QEMU that has ended.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// How many pieces of input are queued for a guest that does not read them.
const INPUT_QUEUE: usize = 64;

/// The console of a running VM: output to read, input to write.
#[derive(Debug, Clone)]
pub struct Console {
    /// Recent output.
    pub hub: Hub,
    /// Typed input; bounded, so that a guest that does not read blocks only the writer.
    pub input: mpsc::Sender<Vec<u8>>,
    /// QEMU has ended: output is not gathered any more.
    last: Arc<Notify>,
    /// Why there is no console: no output comes, and input is dropped.
    absent: bool,
}

impl Console {
    /// A console whose other end is the caller: it pushes output, and gets the input.
    pub fn remote() -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (input, typed) = mpsc::channel(INPUT_QUEUE);
        (Self { hub: Hub::default(), input, last: Arc::default(), absent: false }, typed)
    }

    /// No console: the VM's own command line has its serial ports.
    pub(in super::super) fn absent() -> Self {
        let (console, _) = Self::remote();
        console.hub.close();
        Self { absent: true, ..console }
    }

    /// Reads the rest of the output of a QEMU that has ended: when this returns, all of it is in the log.
    pub(in super::super) async fn finish(&self) {
        self.last.notify_one();
        // a descendant of QEMU could hold the pipe open
        let _ = tokio::time::timeout(LAST_OUTPUT, self.hub.closed()).await;
    }

    /// The recent output; does not wait for more.
    pub(in super::super) fn recent(&self) -> Vec<u8> {
        self.hub.recent()
    }

    /// Whether there is a console.
    ///
    /// # Errors
    /// `NotSupported`, with the reason.
    pub fn check(&self) -> Result<(), ChangeError> {
        match self.absent {
            false => Ok(()),
            true => Err(ChangeError::unsupported(
                "this VM was not started by `vmrun qemu`: its serial ports are where its own command line has them",
            )),
        }
    }
}

/// Starts the two tasks of a console on its pipes.
pub(in super::super) fn connect(serial: Serial, log: Option<ConsoleLog>) -> io::Result<Console> {
    let Serial { input, output } = serial;
    let (read, write) = (Receiver::from_file(output)?, Sender::from_file(input)?);
    let hub = Hub::new(log.as_ref().map(|log| Arc::new(log.reader())));
    let (input, typed) = mpsc::channel(INPUT_QUEUE);
    let last = Arc::new(Notify::new());
    tokio::spawn(drain(read, hub.clone(), log, Arc::clone(&last)));
    tokio::spawn(feed(write, typed));
    Ok(Console { hub, input, last, absent: false })
}

async fn drain(mut pipe: Receiver, hub: Hub, mut log: Option<ConsoleLog>, last: Arc<Notify>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match pipe.ready(Interest::READABLE).await {
            Ok(ready) if ready.is_read_closed() => {}
            Ok(_) => {
                let _ = tokio::time::timeout(GATHERING, last.notified()).await;
            }
            Err(_) => break,
        }
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                if let Some(log) = &mut log {
                    log.append(&buffer[..count]);
                }
                hub.push(&buffer[..count]);
            }
        }
    }
    hub.close();
}

async fn feed(mut pipe: Sender, mut typed: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = typed.recv().await {
        if pipe.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::OwnedFd;

    use super::super::From;
    use super::*;

    /// A console, and QEMU's end of its output.
    fn console() -> (Console, io::PipeWriter) {
        let (output, guest) = io::pipe().unwrap();
        let (_, input) = io::pipe().unwrap();
        let [output, input] = [OwnedFd::from(output), OwnedFd::from(input)].map(File::from);
        (connect(Serial { input, output }, None).unwrap(), guest)
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_within_a_moment_is_one_piece() {
        let (console, mut guest) = console();
        let mut reader = console.hub.reader(From::Now);
        guest.write_all(b"o").unwrap();
        let rest = async {
            tokio::time::sleep(GATHERING / 2).await;
            guest.write_all(b"ne").unwrap();
        };
        let (chunk, ()) = tokio::join!(reader.next(), rest);
        assert_eq!(chunk.unwrap().bytes, b"one");
    }

    #[tokio::test]
    async fn all_is_there_when_it_has_finished() {
        let (console, mut guest) = console();
        tokio::task::yield_now().await;
        for line in 0..1000 {
            writeln!(guest, "line {line}").unwrap();
        }
        drop(guest);
        console.finish().await;
        let bytes = console.hub.reader(From::Recent).try_next().unwrap().bytes;
        assert!(bytes.ends_with(b"line 999\n"), "{}", String::from_utf8_lossy(&bytes));
    }
}
