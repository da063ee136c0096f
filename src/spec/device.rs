//! A device as typed: `DRIVER[,PROP=VALUE…]`.

use serde::{Deserialize, Serialize};

use super::id::DeviceId;

/// `--device` and `device-add`: a QEMU driver with properties as text.
/// A literal comma in a value is typed twice, as in QEMU's own syntax. `id=ID` is taken out of the properties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// QEMU's name of the device model; letters, digits and `-._+` only.
    pub driver: String,
    /// The id, if one was given.
    pub id: Option<DeviceId>,
    /// Other properties in the order typed; each name at most once. A property without `=` means `on`.
    pub properties: Vec<(String, String)>,
}
