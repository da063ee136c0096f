//! The machine's state as a stream: QEMU's commands for it.

use qapi::Enum;
use qapi::qmp::MigrationStatus;
use serde_json::{Value, json};

use super::Command;

/// The name of the descriptor that the stream goes through.
pub const DESCRIPTOR: &str = "vmrun-state";

/// Has QEMU tell by events (MIGRATION) how it is going, and go as fast as it can: its own limit is meant for networks.
///
/// `without_memory`: memory that is a file stays out of the stream. It is said each time, since QEMU goes by the last word.
pub fn prepare(without_memory: bool) -> [Command; 2] {
    let capabilities = json!([
        { "capability": "events", "state": true },
        { "capability": "x-ignore-shared", "state": without_memory },
    ]);
    [
        Command::new("migrate-set-capabilities", json!({ "capabilities": capabilities })),
        // the largest that all versions take, in bytes a second
        Command::new("migrate-set-parameters", json!({ "max-bandwidth": i64::MAX })),
    ]
}

/// Has the memory in the stream, whatever was said last: a snapshot is a stream, too.
pub fn with_memory() -> Command {
    let capabilities = json!([{ "capability": "x-ignore-shared", "state": false }]);
    Command::new("migrate-set-capabilities", json!({ "capabilities": capabilities }))
}

/// Writes the state to the descriptor.
pub fn save() -> Command {
    Command::new("migrate", json!({ "uri": format!("fd:{DESCRIPTOR}") }))
}

/// Closes a descriptor that was passed and not used.
pub fn give_up() -> Command {
    Command::new("closefd", json!({ "fdname": DESCRIPTOR }))
}

/// Reads it. QEMU must have been started with `-incoming defer`.
pub fn restore() -> Command {
    Command::new("migrate-incoming", json!({ "uri": format!("fd:{DESCRIPTOR}") }))
}

/// Ends it early.
pub fn cancel() -> Command {
    Command::new("migrate_cancel", Value::Null)
}

/// Asks how it went, and what would be in its way.
pub fn query() -> Command {
    Command::new("query-migrate", Value::Null)
}

/// The type for `-machine` from that answer, with the options that were typed behind the plain name.
pub fn versioned(answer: &Value, typed: Option<&str>) -> Option<String> {
    let kind = answer.as_str()?.strip_suffix("-machine")?;
    let options = typed.and_then(|typed| typed.split_once(','));
    Some(options.map_or_else(|| kind.to_owned(), |(_, options)| format!("{kind},{options}")))
}

/// The status in the answer of [`query`]; none if there is none, or one that only a newer QEMU knows. Not by `qapi`'s type of the whole
/// answer, which would refuse all of it then.
pub fn status(answer: &Value) -> Option<MigrationStatus> {
    MigrationStatus::from_name(answer["status"].as_str()?)
}

/// Whether a status is an end, and a good one.
pub fn ended(status: MigrationStatus) -> Option<bool> {
    match status {
        MigrationStatus::completed => Some(true),
        MigrationStatus::failed | MigrationStatus::cancelled => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_get_their_version() {
        let answer = json!("pc-q35-7.2-machine");
        assert_eq!(versioned(&answer, None).as_deref(), Some("pc-q35-7.2"));
        assert_eq!(versioned(&answer, Some("q35,hpet=off")).as_deref(), Some("pc-q35-7.2,hpet=off"));
        assert_eq!(versioned(&Value::Null, None), None);
    }
}
