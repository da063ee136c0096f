//! `screenshot`.

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use clap::Args;
use serde_json::json;

use crate::control::verbs;

use super::super::failure::Failure;
use super::super::output::Stdout;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Screenshot {
    /// PNG file to write; - for standard output
    file: PathBuf,
}

impl Verb for Screenshot {
    const ABOUT: &'static str = "Take a screenshot of the guest's display, as a PNG file";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let shown = self.file.display();
        let verbs::ScreenshotReply { png, width, height } = context.client.call(verbs::Screenshot {})?;
        let png = BASE64.decode(png).map_err(Failure::other)?;
        if self.file.as_os_str() == "-" {
            let mut stdout = Stdout::default();
            stdout.raw(&png);
            return stdout.finish();
        }
        std::fs::write(&self.file, &png).map_err(|error| Failure::other(format!("{shown}: {error}")))?;
        let facts = json!({ "path": self.file, "width": width, "height": height, "size_bytes": png.len() });
        context.output.print(&facts, || format!("{shown}: {width} x {height}"))
    }
}
