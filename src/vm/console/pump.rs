//! Reads QEMU's end of the console without a condition, and writes to it what was typed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::{Notify, mpsc};

use super::hub::{From, Hub};
use super::log_file::ConsoleLog;
use crate::vm::error::ChangeError;
use crate::vm::launch::sockets::Serial;

/// One read's worth; QEMU's serial port sends a few bytes at a time.
pub(super) const BUFFER: usize = 64 << 10;
/// How long more output is waited for once there is some. QEMU writes each byte by itself, and one that wakes a reader costs it (and us)
/// much more than one that only joins the others in the pipe, which holds what a guest can print in some ten times as long. It also
/// keeps a line together, into which our own messages would be written otherwise.
const GATHERING: Duration = Duration::from_millis(1);
/// How long the end of the output of a QEMU that has ended is waited for.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// How many pieces of input may wait for a guest that does not read them.
const INPUT_QUEUE: usize = 64;

/// The console of a running VM: output to read, input to write.
#[derive(Debug, Clone)]
pub struct Console {
    /// Recent output.
    pub hub: Hub,
    /// What is typed; bounded, so a guest that does not read holds the typist up and nobody else.
    pub input: mpsc::Sender<Vec<u8>>,
    /// QEMU has ended: nothing is gathered any more.
    last: Arc<Notify>,
    /// There is none: nothing comes of it, and nothing goes to it.
    absent: bool,
}

impl Console {
    /// A console that is somewhere else: the caller pushes its output, and gets what is typed.
    pub fn remote() -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (input, typed) = mpsc::channel(INPUT_QUEUE);
        (Self { hub: Hub::default(), input, last: Arc::default(), absent: false }, typed)
    }

    /// None: the VM was put together by somebody else, who has its serial ports.
    pub(in super::super) fn absent() -> Self {
        let (console, _) = Self::remote();
        console.hub.close();
        Self { absent: true, ..console }
    }

    /// Takes what a QEMU that has ended has left: when this returns, all of it is in the log.
    pub(in super::super) async fn finish(&self) {
        self.last.notify_one();
        // a descendant of QEMU could hold the pipe open
        let _ = tokio::time::timeout(LAST_OUTPUT, self.hub.closed()).await;
    }

    /// The recent output, without waiting for more.
    pub(in super::super) fn recent(&self) -> Vec<u8> {
        let mut reader = self.hub.reader(From::Recent);
        std::iter::from_fn(|| reader.try_next()).flat_map(|chunk| chunk.bytes).collect()
    }

    /// Whether there is one.
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
