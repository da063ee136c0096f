//! `hmp`.

use crate::control::wire;
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Runs a line of QEMU's human monitor.
    Hmp { line: String; } -> HmpReply
}

wire::replies! {
    /// Reply of `Hmp`.
    HmpReply { text: String; }
}

impl ChangeMethod for Hmp {
    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::Hmp(self.line))
    }

    fn reply(done: Done) -> Result<HmpReply, ChangeError> {
        Ok(HmpReply { text: done.text()? })
    }
}
