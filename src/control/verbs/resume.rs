//! `resume`.

use crate::control::wire::Nothing;
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Starts the processors again.
    Resume { ; } -> Nothing, repeatable
}

impl ChangeMethod for Resume {
    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::Resume)
    }

    fn reply(done: Done) -> Result<Nothing, ChangeError> {
        done.nothing().map(|()| Nothing {})
    }
}
