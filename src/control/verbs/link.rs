//! `link`.

use crate::control::translate;
use crate::control::wire::NicReply;
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Plugs or pulls a network card's cable.
    SetLink { up: bool; nic: String } -> NicReply, repeatable
}

impl ChangeMethod for SetLink {
    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::SetLink { nic: self.nic, up: self.up })
    }

    fn reply(done: Done) -> Result<NicReply, ChangeError> {
        Ok(NicReply { nic: translate::nic(&done.device()?) })
    }
}
