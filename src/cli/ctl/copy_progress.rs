//! The progress line of `copy-to` and `copy-from`.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::machine::Copied;

use super::super::failure::Failure;
use super::super::output;
use super::super::waiting;
use super::verb::Context;

/// The file name that stands for standard input or output.
pub(super) const STREAM: &str = "-";

/// A line on the terminal that is overwritten.
pub(super) struct Progress {
    started: Instant,
    /// `None` for data that goes to this terminal, or comes from it.
    shown: Option<waiting::Progress>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), shown: Some(waiting::Progress::new("copying")) }
    }

    /// None, for data that goes to this terminal, or comes from it.
    pub(super) fn hidden() -> Self {
        Self { started: Instant::now(), shown: None }
    }

    pub(super) fn show(&mut self, done: u64, total: Option<u64>) {
        let Self { started, shown } = self;
        if let Some(shown) = shown {
            shown.detail(|| line(started.elapsed(), done, total));
        }
    }

    pub(super) fn report(self, context: &Context, copied: &Copied) -> Result<u8, Failure> {
        // erases the line
        drop(self.shown);
        let took_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Copied { path, size_bytes, checked } = copied;
        let facts = json!({ "path": path, "size_bytes": size_bytes, "took_ms": took_ms, "checked": checked });
        context.output.print(&facts, || path.clone())
    }
}

fn line(took: Duration, done: u64, total: Option<u64>) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let speed = output::bytes((done as f64 / seconds) as u64);
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let percent = (done * 100 / total).min(100);
            format!("{percent:3} %  {} of {}  {speed}/s", output::bytes(done), output::bytes(total))
        }
        None => format!("{}  {speed}/s", output::bytes(done)),
    }
}
