//! `send-key`.

use std::time::Duration;

use crate::control::error::WireError;
use crate::control::parameters::{milliseconds, parse};
use crate::control::permits::Use;
use crate::control::wire::Nothing;
use crate::spec::keys::KeyCombo;
use crate::vm::{ChangeError, Handle};

use super::method::{CallMethod, Uploads, method};

/// The default time between two keys.
const DELAY: Duration = Duration::from_millis(50);

method! {
    /// Presses keys, one after the other.
    SendKeys { keys: Vec<String>; delay_ms: i64 } -> Nothing
}

impl CallMethod for SendKeys {
    const NEEDS: Use = Use::Change;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<Nothing, WireError> {
        let combos: Result<Vec<KeyCombo>, ChangeError> =
            self.keys.iter().map(|keys| parse("keys", keys)).collect();
        vm.press(&combos?, delay(self.delay_ms)?).await?;
        Ok(Nothing {})
    }
}

/// The time between two keys.
pub(super) fn delay(delay_ms: Option<i64>) -> Result<Duration, ChangeError> {
    delay_ms.map_or(Ok(DELAY), |delay| milliseconds("delay_ms", delay))
}
