//! What snapshots and saved VMs have in common: both contain the state of the whole machine.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::qemu::{immovable, migration};
use crate::qmp::Session;
use crate::vm::error::ChangeError;
use crate::vm::state::inventory::{Entry, Inventory};

/// A device of the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::vm) struct Present {
    pub(in crate::vm) id: String,
    pub(in crate::vm) driver: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::vm) slot: Option<String>,
    /// Its USB port. QEMU reuses a freed port last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::vm) port: Option<String>,
}

/// The devices of a VM.
pub(in crate::vm) fn present(inventory: &Inventory) -> Vec<Present> {
    let device = |entry: &Entry| Present {
        id: entry.id.to_string(),
        driver: entry.driver.clone(),
        slot: entry.slot.clone(),
        port: None,
    };
    inventory.named().map(device).collect()
}

/// Asks QEMU which devices have state that cannot be saved.
pub(in crate::vm) async fn check_blockers(
    session: &Session,
    present: &[Present],
    what: &str,
) -> Result<(), ChangeError> {
    let answer = session.run(&migration::query()).await?;
    let reasons = answer["blocked-reasons"].as_array().into_iter().flatten();
    let reasons: Vec<&str> = reasons.filter_map(Value::as_str).collect();
    if reasons.is_empty() {
        return Ok(());
    }
    let to_blame =
        present.iter().filter(|device| reasons.iter().any(|reason| reason.contains(&device.driver)));
    let (mut ids, mut words) = (Vec::new(), Vec::new());
    for device in to_blame {
        ids.push(device.id.as_str());
        words.extend(
            immovable::why(&device.driver, &Map::new())
                .map(|why| format!("'{}' ({}): {why}", device.id, device.driver)),
        );
    }
    let words = if words.is_empty() { reasons.join("; ") } else { words.join("; ") };
    let error = ChangeError::unsupported(format!("QEMU cannot put all devices into {what}: {words}"));
    Err(match ids.is_empty() {
        true => error.hint("start the VM without that device"),
        false => error.hint(format!("unplug it first: {}", ids.join(", "))),
    })
}
