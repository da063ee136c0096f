//! `pause`.

use crate::control::wire::Nothing;
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Stops the processors.
    Pause { ; } -> Nothing, repeatable
}

impl ChangeMethod for Pause {
    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::Pause)
    }

    fn reply(done: Done) -> Result<Nothing, ChangeError> {
        done.nothing().map(|()| Nothing {})
    }
}
