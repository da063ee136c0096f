//! Reads QEMU's end of the console without a condition, and writes to it what was typed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::mpsc;

use super::super::error::ChangeError;
use super::super::prepare::Serial;
use super::hub::Hub;
use super::log_file::ConsoleLog;

/// One read's worth; QEMU's serial port sends a few bytes at a time.
pub(super) const BUFFER: usize = 64 << 10;
/// How long more output is waited for once there is some. QEMU writes each byte by itself, and one that wakes a reader costs it (and us)
/// much more than one that only joins the others in the pipe, which holds what a guest can print in some ten times as long. It also
/// keeps a line together, into which our own messages would be written otherwise.
const GATHERING: Duration = Duration::from_millis(1);
/// How many pieces of input may wait for a guest that does not read them.
const INPUT_QUEUE: usize = 64;

/// The console of a running VM: output to read, input to write.
#[derive(Debug, Clone)]
pub struct Console {
    /// Recent output.
    pub hub: Hub,
    /// What is typed; bounded, so a guest that does not read holds the typist up and nobody else.
    pub input: mpsc::Sender<Vec<u8>>,
    /// There is none: nothing comes of it, and nothing goes to it.
    absent: bool,
}

impl Console {
    /// A console that is somewhere else: the caller pushes its output, and gets what is typed.
    pub fn remote() -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (input, typed) = mpsc::channel(INPUT_QUEUE);
        (Self { hub: Hub::default(), input, absent: false }, typed)
    }

    /// None: the VM was put together by somebody else, who has its serial ports.
    pub(in super::super) fn absent() -> Self {
        let (console, _) = Self::remote();
        console.hub.close();
        Self { absent: true, ..console }
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
    tokio::spawn(drain(read, hub.clone(), log));
    tokio::spawn(feed(write, typed));
    Ok(Console { hub, input, absent: false })
}

async fn drain(mut pipe: Receiver, hub: Hub, mut log: Option<ConsoleLog>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match pipe.ready(Interest::READABLE).await {
            Ok(ready) if ready.is_read_closed() => {}
            Ok(_) => tokio::time::sleep(GATHERING).await,
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
