//! `port-add`.

use std::net::Ipv4Addr;

use crate::control::parameters::{parse_if_given, port};
use crate::control::{translate, wire};
use crate::spec::Forward;
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Adds a port forward.
    AddForward { host_port: i64, guest_port: i64; address: String, protocol: String, nic: String } -> ForwardReply
}

wire::replies! {
    /// Reply of `AddForward`.
    ForwardReply { forward: wire::Forward; }
}

impl ChangeMethod for AddForward {
    fn change(self) -> Result<Change, ChangeError> {
        let guest = port("guest_port", self.guest_port)?;
        if guest == 0 {
            return Err(ChangeError::invalid("guest_port", "the guest port may not be 0"));
        }
        let forward = Forward {
            address: parse_if_given("address", self.address)?.unwrap_or(Ipv4Addr::LOCALHOST),
            host: port("host_port", self.host_port)?,
            guest,
            protocol: parse_if_given("protocol", self.protocol)?.unwrap_or_default(),
        };
        Ok(Change::AddForward { forward, nic: self.nic })
    }

    fn reply(done: Done) -> Result<ForwardReply, ChangeError> {
        Ok(ForwardReply { forward: translate::forward(&done.forward()?) })
    }
}
