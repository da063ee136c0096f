//! `port-remove`.

use crate::control::parameters::{parse_if_given, port};
use crate::control::wire::Nothing;
use crate::vm::{Change, ChangeError, Done, ForwardPattern};

use super::method::{ChangeMethod, method};

method! {
    /// Removes a port forward.
    RemoveForward { host_port: i64; guest_port: i64, address: String, protocol: String } -> Nothing
}

impl ChangeMethod for RemoveForward {
    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::RemoveForward(ForwardPattern {
            host: port("host_port", self.host_port)?,
            guest: self.guest_port.map(|number| port("guest_port", number)).transpose()?,
            address: parse_if_given("address", self.address)?,
            protocol: parse_if_given("protocol", self.protocol)?,
        }))
    }

    fn reply(done: Done) -> Result<Nothing, ChangeError> {
        done.nothing().map(|()| Nothing {})
    }
}
