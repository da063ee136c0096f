//! Our own standard streams, read and written without blocking and without changing the open files that we share.
//!
//! `O_NONBLOCK` belongs to the open file, which the shell and others share. So the stream is reopened through `/proc/self/fd`, with
//! its own flags; where that is not possible (sockets, other users' terminals) it is used as it is.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use crate::host::sys;

/// The most bytes of one write where the stream itself may block: a pipe that is ready takes this much (`PIPE_BUF`).
const CAUTIOUS: usize = 4096;

/// One of our streams.
#[derive(Debug)]
pub(super) enum Stream {
    /// A file that epoll can wait for.
    Polled(AsyncFd<File>, /* whole writes are safe */ bool),
    /// A regular file or similar: always ready.
    Plain(File),
}

impl Stream {
    /// Standard input; `None` if it is closed.
    pub(super) fn stdin() -> Option<Self> {
        Self::open(io::stdin().as_fd(), 0, Interest::READABLE)
    }

    /// Standard output; `None` if it is closed.
    pub(super) fn stdout() -> Option<Self> {
        Self::open(io::stdout().as_fd(), 1, Interest::WRITABLE)
    }

    fn open(fd: BorrowedFd<'_>, number: i32, interest: Interest) -> Option<Self> {
        let own = OpenOptions::new()
            .read(interest == Interest::READABLE)
            .write(interest == Interest::WRITABLE)
            .custom_flags(OFlag::O_NONBLOCK.bits() | OFlag::O_NOCTTY.bits())
            .open(format!("/proc/self/fd/{number}"));
        // a regular file must keep its position and O_APPEND: it is not reopened
        let regular =
            || File::from(fd.try_clone_to_owned().ok()?).metadata().ok().map(|facts| facts.is_file());
        if regular()? {
            return Some(Self::Plain(File::from(fd.try_clone_to_owned().ok()?)));
        }
        let (file, safe) = match own {
            Ok(file) => (file, true),
            Err(_) => (File::from(fd.try_clone_to_owned().ok()?), false),
        };
        let copy = file.try_clone().ok()?;
        match sys::watch(file, interest) {
            Ok(polled) => Some(Self::Polled(polled, safe)),
            // what epoll does not accept (/dev/null) is always ready
            Err(_) => Some(Self::Plain(copy)),
        }
    }

    /// Waits for input; 0 bytes at the end. Cancellation-safe.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Polled(polled, _) => loop {
                let mut ready = polled.readable().await?;
                match ready.try_io(|file| file.get_ref().read(buffer)) {
                    Ok(result) => return result,
                    Err(_) => continue,
                }
            },
        }
    }

    /// Waits until the stream is writable, and writes as much as fits.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Polled(polled, safe) => loop {
                let piece = if *safe { bytes } else { &bytes[..bytes.len().min(CAUTIOUS)] };
                let mut ready = polled.ready(Interest::WRITABLE).await?;
                match ready.try_io(|file| file.get_ref().write(piece)) {
                    Ok(result) => {
                        if !*safe {
                            ready.clear_ready_matching(Ready::WRITABLE);
                        }
                        return result;
                    }
                    Err(_) => continue,
                }
            },
        }
    }
}
