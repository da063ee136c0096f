//! `screenshot`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

use crate::control::error::WireError;
use crate::control::permits::Use;
use crate::control::wire;
use crate::vm::Handle;

use super::method::{CallMethod, Uploads, method};

method! {
    /// Takes a screenshot of the guest's display.
    Screenshot { ; } -> ScreenshotReply, repeatable
}

wire::replies! {
    /// Reply of `Screenshot`.
    ScreenshotReply { png: String, width: u32, height: u32; }
}

impl CallMethod for Screenshot {
    const NEEDS: Use = Use::Change;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<ScreenshotReply, WireError> {
        let picture = vm.screenshot().await?;
        Ok(ScreenshotReply { png: BASE64.encode(picture.png), width: picture.width, height: picture.height })
    }
}
