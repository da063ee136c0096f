//! Tables and JSON on stdout.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::failure::Failure;

/// One way or the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints `value` as JSON, or the text.
    pub(super) fn print(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<u8, Failure> {
        write(if self.json { serde_json::to_string(value) } else { Ok(text()) })
    }
}

fn write(out: serde_json::Result<String>) -> Result<u8, Failure> {
    let mut out = out.map_err(Failure::other)?;
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    // whoever closed our stdout does not want to hear of it
    let _ = std::io::stdout().write_all(out.as_bytes());
    Ok(0)
}

/// Ends the program when whoever reads our output has gone: one that waits for more to print would not notice.
pub(super) fn end_with_reader() {
    std::thread::spawn(|| {
        let stdout = std::io::stdout();
        // asked for nothing, poll tells of errors: the other end of a pipe or socket is closed
        let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        loop {
            match poll(&mut watched, PollTimeout::NONE) {
                Ok(_) => std::process::exit(0),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    });
}

/// One line on the terminal that is written over and over, and gone at the end.
#[derive(Debug)]
pub(super) struct Line {
    on_terminal: bool,
    shown: Option<Instant>,
}

impl Line {
    /// Between two looks of the line.
    const PAUSE: Duration = Duration::from_millis(100);

    /// On stderr, if that is a terminal.
    pub(super) fn new() -> Self {
        Self { on_terminal: std::io::stderr().is_terminal(), shown: None }
    }

    /// Shows a text, unless it follows too soon on the one before; it is only made if it is shown.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        if self.on_terminal && self.shown.is_none_or(|shown| shown.elapsed() >= Self::PAUSE) {
            self.shown = Some(Instant::now());
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", text());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// A table with a heading, columns as wide as their widest cell. Empty cells show as `-`.
pub(super) fn table<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    for row in rows {
        lines.push(row.to_vec());
    }
    in_columns(&mut lines)
}

fn in_columns(lines: &mut [Vec<String>]) -> String {
    let mut widths = vec![0; lines.first().map_or(0, Vec::len)];
    for line in &mut *lines {
        for (cell, width) in line.iter_mut().zip(&mut widths) {
            if cell.is_empty() {
                cell.push('-');
            }
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Lines `name: value`, names padded to the same width; entries without a value are left out.
pub(super) fn facts(facts: &[(&str, Option<String>)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let line = |(name, value): &(&str, Option<String>)| {
        value.as_ref().map(|value| format!("{:width$} {value}\n", format!("{name}:")))
    };
    facts.iter().filter_map(line).collect()
}

/// A size for people: `1.5 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value.fract() != 0.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A time for people: `2m 5s`.
pub(super) fn milliseconds(milliseconds: u64) -> String {
    let whole = if milliseconds >= 1000 { milliseconds / 1000 * 1000 } else { milliseconds };
    humantime::format_duration(Duration::from_millis(whole)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up() {
        let rows = [["a".to_owned(), "long cell".to_owned()], ["longer".to_owned(), String::new()]];
        assert_eq!(table(["ID", "WHAT"], rows), "ID      WHAT\na       long cell\nlonger  -\n");
    }

    #[test]
    fn sizes_and_times_are_for_people() {
        assert_eq!([bytes(512), bytes(1 << 30), bytes(3 << 19)], ["512 B", "1 GiB", "1.5 MiB"]);
        assert_eq!([milliseconds(12), milliseconds(65_123)], ["12ms", "1m 5s"]);
    }
}
