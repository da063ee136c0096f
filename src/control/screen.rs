//! The methods for the display and the keyboard.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::Value;

use crate::spec::keys::KeyCombo;
use crate::vm::{ChangeError, Handle};

use super::dispatch::{One, duration, nothing, read, reply};
use super::translate::parse;
use super::wire;

/// Between two keys unless the call says otherwise.
const DELAY: Duration = Duration::from_millis(50);

/// `Screenshot`.
pub(super) async fn screenshot(parameters: Value, vm: &Handle) -> One {
    let _: wire::Empty = read(parameters)?;
    let picture = vm.screenshot().await?;
    reply(&wire::ScreenshotReply {
        png: BASE64.encode(picture.png),
        width: picture.width,
        height: picture.height,
    })
}

/// `SendKeys`.
pub(super) async fn send_keys(parameters: Value, vm: &Handle) -> One {
    let wire::SendKeys { keys, delay_ms } = read(parameters)?;
    let combos: Result<Vec<KeyCombo>, ChangeError> = keys.iter().map(|keys| parse("keys", keys)).collect();
    vm.press(&combos?, delay(delay_ms)?).await?;
    nothing()
}

/// `TypeText`.
pub(super) async fn type_text(parameters: Value, vm: &Handle) -> One {
    let wire::TypeText { text, delay_ms } = read(parameters)?;
    let combos = KeyCombo::typing(&text).map_err(|error| ChangeError::invalid("text", error))?;
    vm.press(&combos, delay(delay_ms)?).await?;
    nothing()
}

fn delay(milliseconds: Option<i64>) -> Result<Duration, ChangeError> {
    let delay = duration(milliseconds, DELAY);
    delay.map_err(|_| ChangeError::invalid("delay_ms", "a time may not be negative"))
}
