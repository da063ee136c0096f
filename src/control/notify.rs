//! Notifies a service manager (`sd_notify(3)`): ready, stopping, and requests for more time to stop.
//!
//! Not by the crate `sd-notify` (read in version 0.5.0): its `notify` opens a socket for each message and sends with a call that
//! blocks, so a manager that does not read would hold up the supervisor's only thread; and it connects to a name that begins with
//! `@`, a socket without a file, as if that were a path.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::vm::Handle;

/// How much more time is requested, and how often, during a shutdown.
const EXTENSION: Duration = Duration::from_secs(10);

/// The connection to the service manager.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: UnixDatagram,
}

impl Notifier {
    /// `None` unless `NOTIFY_SOCKET` is set and can be used.
    pub(super) fn from_env() -> Option<Self> {
        let path = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())?;
        match Self::connect(path.as_bytes()) {
            Ok(notifier) => Some(notifier),
            Err(error) => {
                log::warn!("the service manager cannot be notified: {error}");
                None
            }
        }
    }

    fn connect(path: &[u8]) -> io::Result<Self> {
        let address = match path.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(std::path::Path::new(std::ffi::OsStr::from_bytes(path)))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // a manager that does not read must not block us
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    fn send(&self, message: &str) {
        if let Err(error) = self.socket.send(message.as_bytes()) {
            log::debug!("the service manager was not notified: {error}");
        }
    }

    /// The VM is ready.
    pub(super) fn ready(&self, name: &str) {
        self.send(&format!("READY=1\nSTATUS={name} is running\nMAINPID={}", std::process::id()));
    }

    /// Follows the VM to its end.
    pub(super) async fn follow(&self, vm: &Handle) {
        let mut watched = vm.watch();
        let mut is_stopping = false;
        loop {
            let now = *watched.borrow_and_update();
            if now.stopping && !is_stopping {
                is_stopping = true;
                self.send("STOPPING=1\nSTATUS=shutting down");
            } else if !is_stopping {
                self.send(&format!("STATUS={}", now.run_state));
            }
            if is_stopping {
                self.send(&format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
            }
            tokio::select! {
                changed = watched.changed() => if changed.is_err() { return },
                _ = vm.ended() => return,
                () = tokio::time::sleep(EXTENSION / 2), if is_stopping => {}
            }
        }
    }
}
