//! Warns of names of events that will never come.

use serde_json::{Value, json};

use crate::control::client::Client;
use crate::control::verbs;
use crate::spec::event_name;

/// Warns of each name that is no event of the VM's QEMU, nor of vmrun. QEMU is asked only about names that not every QEMU has.
pub(super) fn check<'a>(client: &mut Client, names: impl Iterator<Item = &'a str>) {
    let doubtful: Vec<&str> = names.filter(|name| !event_name::is_everywhere(name)).collect();
    if doubtful.is_empty() {
        return;
    }
    let of_qemu = of_qemu(client);
    for name in doubtful {
        if let Some(doubt) = event_name::doubt(name, of_qemu.as_deref()) {
            log::warn!("{doubt}");
        }
    }
}

/// The names of all events that the VM's QEMU has; `None` if it does not say.
fn of_qemu(client: &mut Client) -> Option<Vec<String>> {
    let call = verbs::Qmp { command: json!({ "execute": "query-qmp-schema" }) };
    let schema = client.call(call).ok()?.value;
    let is_event = |entity: &&Value| entity["meta-type"] == "event";
    let events = schema.as_array()?.iter().filter(is_event);
    Some(events.filter_map(|event| event["name"].as_str().map(str::to_owned)).collect())
}
