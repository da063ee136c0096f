//! `type`.

use crate::control::error::WireError;
use crate::control::permits::Use;
use crate::control::wire::Nothing;
use crate::spec::keys::KeyCombo;
use crate::vm::{ChangeError, Handle};

use super::method::{CallMethod, Uploads, method};
use super::send_key::delay;

method! {
    /// Types a text on a US keyboard.
    TypeText { text: String; delay_ms: i64 } -> Nothing
}

impl CallMethod for TypeText {
    const NEEDS: Use = Use::Change;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<Nothing, WireError> {
        let combos = KeyCombo::typing(&self.text).map_err(|error| ChangeError::invalid("text", error))?;
        vm.press(&combos, delay(self.delay_ms)?).await?;
        Ok(Nothing {})
    }
}
