//! The last calls of clients. When a VM has ended, all clients that have connected by then are served, and their calls are
//! answered. Shutting down the receiving side makes the kernel draw the line, so that nothing is lost: what was written will be
//! read.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener as StdListener;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep_until};

use crate::vm::Handle;

/// How long a client that has just connected may take to send its first call after the VM's end.
const FIRST_CALL: Duration = Duration::from_secs(1);
/// How long any other client may take to send one more.
const NEXT_CALL: Duration = Duration::from_millis(50);

/// Refuses new connections, and accepts those in the queue.
pub(super) fn queued(listener: &UnixListener) -> Vec<UnixStream> {
    close_reading(listener);
    // directly, since tokio learns of a connection only through an event
    let Ok(copy) = listener.as_fd().try_clone_to_owned() else { return Vec::new() };
    let copy = StdListener::from(copy);
    let mut streams = Vec::new();
    loop {
        match copy.accept() {
            Ok((stream, _)) => {
                let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
                streams.extend(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // the queue is empty, or no descriptor is left for the next one
            Err(_) => return streams,
        }
    }
}

/// Limits what a client can still send.
pub(super) struct LastCalls {
    grace: Duration,
    until: Option<Instant>,
    closed: bool,
}

impl Default for LastCalls {
    fn default() -> Self {
        Self { grace: FIRST_CALL, until: None, closed: false }
    }
}

impl LastCalls {
    /// What `receive` receives on `socket`. Once the VM has ended, it fails a moment later at the latest, and only after all that
    /// the client had written by then was received.
    pub(super) async fn next<T>(
        &mut self,
        receive: impl Future<Output = T>,
        socket: &UnixStream,
        vm: &Handle,
    ) -> T {
        tokio::pin!(receive);
        if !self.closed {
            tokio::select! { biased;
                received = &mut receive => {
                    self.grace = NEXT_CALL;
                    return received;
                }
                () = self.over(vm) => {}
            }
            close_reading(socket);
            self.closed = true;
        }
        receive.await
    }

    async fn over(&mut self, vm: &Handle) {
        vm.ended().await;
        let grace = self.grace;
        sleep_until(*self.until.get_or_insert_with(|| Instant::now() + grace)).await;
    }
}

/// The peer cannot write (or connect) any more, and what was written (or connected) before stays readable.
fn close_reading(socket: &impl AsRawFd) {
    // fails only if the peer has gone
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream as StdStream;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn all_who_have_connected_are_there_and_nobody_else_gets_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        let mut waiting: Vec<StdStream> = (0..20).map(|_| StdStream::connect(&path).unwrap()).collect();
        waiting[7].write_all(b"said before").unwrap();
        let mut queued = queued(&listener);
        assert_eq!(queued.len(), 20);
        let refused = StdStream::connect(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        close_reading(&queued[7]);
        assert!(waiting[7].write_all(b"said after").is_err());
        let mut said = String::new();
        queued[7].read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "said before");
    }
}
