//! Converts typed driver properties to the JSON types that QEMU's strictly typed `device_add` needs.

use serde_json::{Map, Value, json};

use crate::qemu::Command;
use crate::qemu::properties::Properties;
use crate::qmp::Session;

use crate::vm::error::ChangeError;

/// Asks QEMU for the property types, if any properties were given.
pub(super) async fn typed(
    session: &Session,
    driver: &str,
    properties: &[(String, String)],
) -> Result<Map<String, Value>, ChangeError> {
    if properties.is_empty() {
        return Ok(Map::new());
    }
    let ask = Command::new("device-list-properties", json!({ "typename": driver }));
    let answer = session.run(&ask).await?;
    Properties::from_qmp(driver, &answer)
        .typed(properties)
        .map_err(|error| ChangeError::invalid("properties", error))
}
