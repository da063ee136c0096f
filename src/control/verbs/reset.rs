//! `reset`.

use crate::control::wire::Nothing;
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Resets the machine.
    Reset { ; } -> Nothing
}

impl ChangeMethod for Reset {
    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::Reset)
    }

    fn reply(done: Done) -> Result<Nothing, ChangeError> {
        done.nothing().map(|()| Nothing {})
    }
}
