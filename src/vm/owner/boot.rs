//! Watching whether the guest boots, and whether its kernel panics.

use serde_json::json;
use tokio::time::Instant;

use super::Owner;
use crate::vm::console::Hub;
use crate::vm::guest::boot_watch::BootWatch;
use crate::vm::guest::panic_watch::PanicWatch;

impl Owner {
    /// Starts to watch whether the firmware finds something to boot.
    pub(in crate::vm) fn watch_boot(&mut self, console: &Hub) {
        self.console = Some(console.clone());
        let watch = BootWatch::new(console, self.beginnings.subscribe());
        self.follow_boot(watch);
        self.follow_panics(PanicWatch::new(console, self.beginnings.subscribe()));
    }

    fn follow_panics(&mut self, watch: PanicWatch) {
        self.spawn(watch.next(), |owner, next| {
            let Some((watch, panic)) = next else { return };
            // told already, where the guest has a panic device
            owner.console_panic = panic.filter(|_| !owner.evidence.has_panicked());
            if let Some(reason) = owner.console_panic.as_deref() {
                log::warn!("{}", console_panic(reason));
                owner.bus.publish("VMRUN_CONSOLE_PANIC", json!({ "reason": reason }));
            }
            owner.follow_panics(watch);
        });
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
        self.console_panic = None;
        self.began = Instant::now();
        if let Some(ladder) = &mut self.ladder {
            ladder.guest_restarted(self.began);
        }
        self.beginnings.send_modify(|count| *count += 1);
    }
}

/// What is told of a panic that only the console shows.
pub(in crate::vm) fn console_panic(reason: &str) -> String {
    format!("the console shows that the guest's kernel panicked: {reason}")
}
