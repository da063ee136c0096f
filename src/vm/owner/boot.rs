//! Watching whether the guest boots.

use serde_json::json;

use super::Owner;
use crate::vm::console::Hub;
use crate::vm::guest::boot_watch::BootWatch;

impl Owner {
    /// Starts to watch whether the firmware finds something to boot.
    pub(in crate::vm) fn watch_boot(&mut self, console: &Hub) {
        self.console = Some(console.clone());
        let watch = BootWatch::new(console, self.beginnings.subscribe());
        self.follow_boot(watch);
    }

    fn follow_boot(&mut self, watch: BootWatch) {
        self.spawn(watch.next(), |owner, next| {
            let Some((watch, found)) = next else { return };
            owner.nothing_to_boot = found;
            if let Some(found) = found {
                log::info!("{}", found.message());
                owner.bus.publish("VMRUN_NOTHING_TO_BOOT", json!({ "message": found.message() }));
            }
            owner.follow_boot(watch);
        });
    }

    /// What the guest has printed last.
    pub(in crate::vm) fn console(&self) -> Option<Hub> {
        self.console.clone()
    }

    /// The guest was restarted, by a reset or by loading a snapshot.
    pub(in crate::vm) fn begins_anew(&mut self) {
        self.nothing_to_boot = None;
        self.beginnings.send_modify(|count| *count += 1);
    }
}
