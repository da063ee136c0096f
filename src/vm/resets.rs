//! Counts the guest's resets. SeaBIOS, once reset, notices that it has run before and resets again, 40 to 60 ms later
//! (seen on q35 and pc; much later on a busy machine): two RESET events for one reset of the guest's.

use std::time::{Duration, SystemTime};

use crate::spec::{Arch, VmSpec};

/// Within this time a second RESET is SeaBIOS's. A third is the guest's again, however soon it comes.
const ECHO_OF_SEABIOS: Duration = Duration::from_secs(10);
/// Firmware that is not known to do that: no guest boots and resets in less.
const ECHO_OF_OTHERS: Duration = Duration::from_millis(500);

/// The resets of a VM so far.
#[derive(Debug)]
pub(super) struct Resets {
    echo: Duration,
    by_guest: u32,
    /// The last reset, if its echo may still come.
    awaiting_echo: Option<SystemTime>,
}

impl Resets {
    /// None so far. What counts as one depends on the firmware.
    pub(super) fn of(spec: &VmSpec) -> Self {
        let seabios = spec.arch == Arch::X86_64 && spec.firmware.is_none();
        Self::new(if seabios { ECHO_OF_SEABIOS } else { ECHO_OF_OTHERS })
    }

    fn new(echo: Duration) -> Self {
        Self { echo, by_guest: 0, awaiting_echo: None }
    }

    /// Counts an event; tells how many resets the guest has caused.
    pub(super) fn count(&mut self, guest: bool, at: Option<SystemTime>) -> u32 {
        let at = at.unwrap_or_else(SystemTime::now);
        let since = self.awaiting_echo.take().and_then(|last| at.duration_since(last).ok());
        if since.is_some_and(|since| since < self.echo) && guest {
            return self.by_guest;
        }
        self.awaiting_echo = Some(at);
        self.by_guest += u32::from(guest);
        self.by_guest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmwares_echo_does_not_count() {
        let at = |ms| Some(SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
        let mut resets = Resets::new(ECHO_OF_SEABIOS);
        // a guest that resets for ever: a reset, its echo, 110 ms of boot, a reset, ...
        let counted: Vec<u32> = [0, 50, 160, 210, 320, 370].map(|ms| resets.count(true, at(ms))).to_vec();
        assert_eq!(counted, [1, 1, 2, 2, 3, 3]);
        // `ctl reset` is not the guest's, and neither is its echo
        assert_eq!(resets.count(false, at(5000)), 3);
        assert_eq!(resets.count(true, at(5050)), 3);
        // a busy machine
        assert_eq!(resets.count(true, at(20_000)), 4);
        assert_eq!(resets.count(true, at(23_000)), 4);
        assert_eq!(resets.count(true, at(24_000)), 5);
        // firmware without an echo
        let mut resets = Resets::new(ECHO_OF_OTHERS);
        assert_eq!(resets.count(true, at(10_000)), 1);
        assert_eq!(resets.count(true, at(14_000)), 2);
    }
}
