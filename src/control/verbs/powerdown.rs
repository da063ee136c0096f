//! `powerdown`.

use crate::control::wire::Nothing;
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Presses the power button.
    Powerdown { ; } -> Nothing
}

impl ChangeMethod for Powerdown {
    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::Powerdown)
    }

    fn reply(done: Done) -> Result<Nothing, ChangeError> {
        done.nothing().map(|()| Nothing {})
    }
}
