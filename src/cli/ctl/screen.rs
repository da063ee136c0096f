//! `screenshot`, `send-key`, `type`.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::control::verbs;
use crate::machine;
use crate::spec::duration;
use crate::spec::keys::KeyCombo;

use super::super::failure::Failure;
use super::super::lazy::Lazy;
use super::super::output::Stdout;
use super::Context;

/// Screen and keyboard.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Take a picture of the guest's display, as a PNG file
    Screenshot(Lazy<Screenshot>),
    /// Press keys
    SendKey(Lazy<SendKey>),
    /// Type a text on a US keyboard
    Type(Lazy<Type>),
}

impl Command {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        match self {
            Self::Screenshot(Lazy(screenshot)) => screenshot.run(context),
            Self::SendKey(Lazy(keys)) => keys.run(context),
            Self::Type(Lazy(text)) => text.run(context),
        }
    }
}

/// `screenshot`.
#[derive(Debug, Args)]
pub(super) struct Screenshot {
    /// Where the picture is to be written; - for the standard output
    file: PathBuf,
}

impl Screenshot {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
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

/// `send-key`.
#[derive(Debug, Args)]
pub(super) struct SendKey {
    /// Keys to press one after the other; with hyphens, together: ctrl-alt-delete
    #[arg(required = true)]
    keys: Vec<KeyCombo>,
    /// Between two of them
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "100ms")]
    delay: Duration,
}

impl SendKey {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let keys = self.keys.iter().map(KeyCombo::to_string).collect();
        let call = verbs::SendKeys { keys, delay_ms: milliseconds(self.delay) };
        context.client.call(call)?;
        context.output.print(&json!({}), String::new)
    }
}

/// `type`.
#[derive(Debug, Args)]
pub(super) struct Type {
    /// What a US keyboard has; a line's end presses Enter
    #[arg(allow_hyphen_values = true)]
    text: String,
    /// Between two keys
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "50ms")]
    delay: Duration,
}

impl Type {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        KeyCombo::typing(&self.text).map_err(Failure::usage)?;
        let call = verbs::TypeText { text: self.text, delay_ms: milliseconds(self.delay) };
        context.client.call(call)?;
        context.output.print(&json!({}), String::new)
    }
}

fn milliseconds(delay: Duration) -> Option<i64> {
    Some(machine::milliseconds(delay))
}
