//! Whether a program in the guest accepts TCP connections on a port.
//!
//! With user networking a connect to the host side proves nothing: QEMU accepts it before it connects to the guest. In `info
//! usernet` the connection to the guest is `ESTABLISHED` only once the guest has accepted it.

use std::net::SocketAddrV4;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::qemu::query;
use crate::spec::{Forward, Protocol};

use crate::vm::change::{Change, Done, ForwardPattern};
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::handle::Handle;
use crate::vm::state::inventory::Bound;
use crate::vm::state::status::Published;

/// QEMU has no event for this, so a wait polls at this interval.
const INTERVAL: Duration = Duration::from_millis(100);
/// A guest that has not answered a SYN by then has lost it: it was not up yet.
const PATIENCE: u32 = 20;

/// Waits until the guest accepts on `port`. The probe has a forward of its own: QEMU lists connections by their forward, so no
/// other connection can be mistaken for the probe's.
pub(in crate::vm) async fn accepts(vm: &Handle, port: u16) -> Result<Value, ChangeError> {
    let ours = Forward { address: Bound::PROBE, host: 0, guest: port, protocol: Protocol::Tcp };
    let ours = Change::AddForward { forward: ours, nic: None };
    let Done::Forward(Published { forward, .. }) = vm.change(ours).await? else {
        return Err(ChangeError::host("QEMU made another forward than the requested one"));
    };
    let _guard = Temporary { vm: vm.clone(), forward };
    probe(vm, forward).await
}

/// Ends the forward, also when the wait is dropped.
struct Temporary {
    vm: Handle,
    forward: Forward,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let (vm, forward) = (self.vm.clone(), self.forward);
        let pattern = ForwardPattern {
            host: forward.host,
            guest: Some(forward.guest),
            address: Some(forward.address),
            protocol: Some(forward.protocol),
        };
        tokio::spawn(async move { vm.change(Change::RemoveForward(pattern)).await });
    }
}

async fn probe(vm: &Handle, forward: Forward) -> Result<Value, ChangeError> {
    loop {
        // the connection, and with it the guest's side, ends with the poll
        let connection = TcpStream::connect(SocketAddrV4::new(forward.address, forward.host)).await;
        if connection.is_ok() && established(vm, forward).await? {
            return Ok(json!({ "port": forward.guest }));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn established(vm: &Handle, forward: Forward) -> Result<bool, ChangeError> {
    for _ in 0..PATIENCE {
        match vm.qmp(query::user_networks()).await.map_err(ChangeError::from) {
            Ok(text) => match state(text.as_str().unwrap_or_default(), forward.host, forward.guest) {
                Some("SYN_SENT" | "SYN_RCVD" | "SYN_RECEIVED") => {}
                Some("ESTABLISHED" | "FIN_WAIT_1" | "FIN_WAIT_2" | "CLOSE_WAIT") => return Ok(true),
                // refused: QEMU has closed it
                _ => return Ok(false),
            },
            Err(error) if error.kind == ErrorKind::NotRunning => std::future::pending().await,
            Err(error) => return Err(error),
        }
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(false)
}

/// The state of the connection through a forward, from lines such as
/// `  TCP[ESTABLISHED]  17  127.0.0.1 40512  10.0.2.15  80  0  0`: the source is the host's side of the forward.
fn state(text: &str, host: u16, guest: u16) -> Option<&str> {
    text.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix("TCP[")?;
        let (state, rest) = rest.split_once(']')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let [_, _, source, _, destination, ..] = fields.as_slice() else { return None };
        let ours = *source == host.to_string() && *destination == guest.to_string();
        (ours && state != "HOST_FORWARD").then_some(state)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_state_of_one_connection() {
        let text = "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n\
                    \x20 TCP[ESTABLISHED]  17       127.0.0.1 40512       10.0.2.15    80     0     0\r\n\
                    \x20 TCP[SYN_SENT]     18       127.0.0.1 40513       10.0.2.15    80     0     0\r\n\
                    \x20 TCP[HOST_FORWARD]  3       127.0.0.1 33179       10.0.2.15    80     0     0\r\n";
        assert_eq!(state(text, 40512, 80), Some("ESTABLISHED"));
        assert_eq!(state(text, 40513, 80), Some("SYN_SENT"));
        assert_eq!(state(text, 40514, 80), None);
    }
}
