//! `nic-add`.

use crate::control::parameters::{parse, parse_if_given};
use crate::control::translate;
use crate::control::wire::NicReply;
use crate::spec::nic::checked_id;
use crate::spec::{DeviceId, NicSpec};
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Plugs a network card.
    AddNic { network: String; mac: String, model: String, id: String } -> NicReply
}

impl ChangeMethod for AddNic {
    fn change(self) -> Result<Change, ChangeError> {
        let network = parse("network", &self.network)?;
        let nic = NicSpec::on(network).map_err(|error| ChangeError::invalid("network", error))?;
        let id = parse_if_given::<DeviceId>("id", self.id)?;
        Ok(Change::AddNic(NicSpec {
            mac: parse_if_given("mac", self.mac)?,
            model: parse_if_given("model", self.model)?.unwrap_or_default(),
            id: id.map(checked_id).transpose().map_err(|error| ChangeError::invalid("id", error))?,
            ..nic
        }))
    }

    fn reply(done: Done) -> Result<NicReply, ChangeError> {
        Ok(NicReply { nic: translate::nic(&done.device()?) })
    }
}
