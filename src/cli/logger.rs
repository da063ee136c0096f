//! vmrun's own messages: to stderr, as text or as one JSON object a line.

use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::{Value, json};

use crate::host::{HINTED, PROGRESS, log_context};
use crate::vm::console::ANSWER;

use super::output::{Line, tell};
use super::visible;

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(super) enum LogFormat {
    /// `vmrun: message`
    #[default]
    Text,
    /// `{"time": …, "level": …, "message": …, "connection": …, "request": …}`, the last two in what is done for a client
    Json,
}

struct Logger {
    format: LogFormat,
    level: LevelFilter,
    /// For progress messages.
    progress: Mutex<Line>,
}

/// Sets up logging. `verbosity`: −1 errors only, 0 warnings, 1 what vmrun does, 2 and more all QMP messages.
pub(super) fn install(verbosity: i8, format: LogFormat) {
    let level = match verbosity {
        i8::MIN..=-1 => LevelFilter::Error,
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        // QMP messages are logged as traces
        _ => LevelFilter::Trace,
    };
    // a second call, from a test, changes nothing
    let logger = Logger { format, level, progress: Mutex::new(Line::new()) };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        // progress is information that does not stay: a person sees it unless only errors are wanted
        let shows_progress = level >= LevelFilter::Warn && Line::is_possible();
        log::set_max_level(if shows_progress { level.max(LevelFilter::Info) } else { level });
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("vmrun")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if record.target() == PROGRESS {
            return self.show(&record.args().to_string());
        }
        if record.level() > self.level {
            return;
        }
        // no message begins behind a line of progress
        self.show("");
        match self.format {
            LogFormat::Text => tell(&text(record)),
            LogFormat::Json => tell(&visible::json(&object(record).to_string())),
        }
    }

    fn flush(&self) {}
}

impl Logger {
    /// Logs progress, only on a terminal.
    fn show(&self, text: &str) {
        let mut line = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match text.is_empty() {
            true => *line = Line::new(),
            false if matches!(self.format, LogFormat::Text) => line.show(|| format!("vmrun: {text}")),
            false => {}
        }
    }
}

fn text(record: &Record<'_>) -> String {
    let prefix = match record.level() {
        Level::Error => "vmrun: error: ",
        Level::Warn if record.target() == ANSWER => "vmrun: ",
        Level::Warn => "vmrun: warning: ",
        Level::Info | Level::Debug | Level::Trace => "vmrun: ",
    };
    let prefix = match log_context::current() {
        Some(context) => format!("{prefix}[{context}] "),
        None => prefix.to_owned(),
    };
    match split(record.target(), &record.args().to_string()) {
        (message, Some(hint)) => {
            format!("{prefix}{}\nhint: {}", visible::message(message), visible::message(hint))
        }
        (message, None) => format!("{prefix}{}", visible::message(message)),
    }
}

/// Splits a message into text and hint, if it has one.
fn split<'a>(target: &str, message: &'a str) -> (&'a str, Option<&'a str>) {
    let hinted = (target == HINTED).then(|| message.rsplit_once("\nhint: ")).flatten();
    hinted.map_or((message, None), |(message, hint)| (message, Some(hint)))
}

fn object(record: &Record<'_>) -> Value {
    let time = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
    let level = record.level().as_str().to_lowercase();
    let message = record.args().to_string();
    let (message, hint) = split(record.target(), &message);
    let mut line = json!({ "time": time, "level": level, "message": message });
    if let Some(context) = log_context::current() {
        line["connection"] = context.connection.into();
        line["request"] = context.request.into();
    }
    if let Some(hint) = hint {
        line["hint"] = hint.into();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_has_a_line_or_a_field_of_its_own() {
        let mut builder = Record::builder();
        let record =
            |message| text(&Record::builder().level(Level::Warn).target(HINTED).args(message).build());
        assert_eq!(record(format_args!("slow\nhint: faster")), "vmrun: warning: slow\nhint: faster");
        // a newline in a name starts no hint
        assert_eq!(record(format_args!("a\nvmrun: b\x1b[2J")), "vmrun: warning: a\n  vmrun: b\\u{1b}[2J");
        let line = object(
            &builder.level(Level::Warn).target(HINTED).args(format_args!("slow\nhint: faster")).build(),
        );
        assert_eq!((&line["message"], &line["hint"]), (&json!("slow"), &json!("faster")));
        let context = log_context::LogContext { connection: 3, request: Some(2) };
        log_context::within(Some(context), || {
            assert_eq!(
                record(format_args!("slow\nhint: faster")),
                "vmrun: warning: [3.2] slow\nhint: faster"
            );
            let line = object(&Record::builder().args(format_args!("slow")).build());
            assert_eq!((&line["connection"], &line["request"]), (&json!(3), &json!(2)));
        });
        let line = object(&builder.args(format_args!("slow")).build());
        assert_eq!((&line["message"], line.get("hint")), (&json!("slow"), None));
    }
}
