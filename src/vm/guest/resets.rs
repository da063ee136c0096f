//! Counts the guest's resets. SeaBIOS notices after a reset that it has run before and resets again, 40 to 60 ms later, once or
//! several times (it tries several methods, and its processor runs on for a moment; seen on q35 and pc): several RESET events for
//! one reset by the guest.

use std::time::Duration;

use tokio::time::Instant;

/// All resets within this time after one count as that one. No operating system boots and resets in less; a guest that does is
/// counted too rarely, which only ends a reset loop a little later.
const TOGETHER: Duration = Duration::from_secs(1);

/// The resets of a VM so far.
#[derive(Debug, Default)]
pub(in crate::vm) struct Resets {
    by_guest: u32,
    /// The last reset that counted, or that a client requested.
    last: Option<Instant>,
}

impl Resets {
    /// How many resets the guest has caused.
    pub(in crate::vm) fn by_guest(&self) -> u32 {
        self.by_guest
    }

    /// Counts an event; returns how many resets the guest has caused. `at` is when it arrived: QEMU's timestamp comes from a clock
    /// that can be set.
    pub(in crate::vm) fn count(&mut self, guest: bool, at: Instant) -> u32 {
        let since = self.last.map(|last| at.saturating_duration_since(last));
        if since.is_some_and(|since| since < TOGETHER) && guest {
            return self.by_guest;
        }
        self.last = Some(at);
        self.by_guest += u32::from(guest);
        self.by_guest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmwares_own_resets_do_not_count() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut resets = Resets::default();
        // a reset, and two by the firmware
        let counted: Vec<u32> = [0, 65, 66, 3000, 3050].map(|ms| resets.count(true, at(ms))).to_vec();
        assert_eq!(counted, [1, 1, 1, 2, 2]);
        // `ctl reset` is not counted, nor are the firmware's resets after it
        assert_eq!(resets.count(false, at(5000)), 2);
        assert_eq!(resets.count(true, at(5050)), 2);
        assert_eq!(resets.count(true, at(8000)), 3);
        // a boot sector that resets six times a second reaches the limit, too
        let counted = (0..60).map(|number| resets.count(true, at(10_000 + number * 160))).max();
        assert_eq!(counted, Some(12));
    }
}
