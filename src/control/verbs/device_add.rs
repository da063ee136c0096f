//! `device-add`.

use std::collections::BTreeMap;

use crate::control::parameters::parse_if_given;
use crate::control::{translate, wire};
use crate::spec::{DeviceId, DeviceSpec};
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Plugs any device.
    AddDevice { driver: String; properties: BTreeMap<String, String>, id: String } -> DeviceReply
}

wire::replies! {
    /// Reply of `AddDevice`.
    DeviceReply { device: wire::Device; }
}

impl ChangeMethod for AddDevice {
    fn change(self) -> Result<Change, ChangeError> {
        let id = parse_if_given::<DeviceId>("id", self.id)?;
        let device = DeviceSpec::new(&self.driver).map_err(|error| ChangeError::invalid("driver", error))?;
        let mut properties = self.properties.unwrap_or_default().into_iter();
        let device = properties.try_fold(device, |device, (name, value)| {
            device.with(&name, &value).map_err(|error| ChangeError::invalid("properties", error))
        })?;
        Ok(Change::AddDevice(DeviceSpec { id: id.or(device.id.clone()), ..device }))
    }

    fn reply(done: Done) -> Result<DeviceReply, ChangeError> {
        Ok(DeviceReply { device: translate::device(&done.device()?) })
    }
}
