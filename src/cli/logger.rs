//! vmrun's own messages: to stderr, as text or as one JSON object a line.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::{Value, json};

use crate::vm::console::ANSWER;

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(super) enum LogFormat {
    /// `vmrun: message`
    #[default]
    Text,
    /// `{"time": …, "level": …, "message": …}`
    Json,
}

struct Logger {
    format: LogFormat,
    /// A terminal may be in raw mode, where the end of a line needs a carriage return; elsewhere that does no harm.
    end: &'static str,
}

/// Sets up logging. `verbosity`: −1 errors only, 0 warnings, 1 what vmrun does, 2 and more everything it says to QEMU.
pub(super) fn install(verbosity: i8, format: LogFormat) {
    let level = match verbosity {
        i8::MIN..=-1 => LevelFilter::Error,
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let end = if std::io::stderr().is_terminal() { "\r\n" } else { "\n" };
    // a second call, from a test, changes nothing
    if log::set_boxed_logger(Box::new(Logger { format, end })).is_ok() {
        log::set_max_level(level);
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
        let line = match self.format {
            LogFormat::Text => text(record).replace('\n', self.end) + self.end,
            LogFormat::Json => object(record).to_string() + self.end,
        };
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

fn text(record: &Record<'_>) -> String {
    let prefix = match record.level() {
        Level::Error => "vmrun: error: ",
        Level::Warn if record.target() == ANSWER => "vmrun: ",
        Level::Warn => "vmrun: warning: ",
        Level::Info | Level::Debug | Level::Trace => "vmrun: ",
    };
    format!("{prefix}{}", record.args())
}

/// A second line that begins with `hint: ` says what to do about it.
fn object(record: &Record<'_>) -> Value {
    let time = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
    let level = record.level().as_str().to_lowercase();
    let message = record.args().to_string();
    match message.split_once("\nhint: ") {
        Some((message, hint)) => json!({ "time": time, "level": level, "message": message, "hint": hint }),
        None => json!({ "time": time, "level": level, "message": message }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_has_a_line_or_a_field_of_its_own() {
        let mut builder = Record::builder();
        let record = |message| text(&Record::builder().level(Level::Warn).args(message).build());
        assert_eq!(record(format_args!("slow\nhint: faster")), "vmrun: warning: slow\nhint: faster");
        let told = object(&builder.level(Level::Warn).args(format_args!("slow\nhint: faster")).build());
        assert_eq!((&told["message"], &told["hint"]), (&json!("slow"), &json!("faster")));
        let told = object(&builder.args(format_args!("slow")).build());
        assert_eq!((&told["message"], told.get("hint")), (&json!("slow"), None));
    }
}
