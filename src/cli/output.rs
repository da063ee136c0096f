//! The only module that prints: tables, messages and JSON, and the streams of guests.
//!
//! Text for people goes through [`visible`]; a test checks that nothing is printed elsewhere. A write error is a failure, except
//! when the reader has closed its end.

use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::vm::console::must_end_line;

use super::failure::Failure;
use super::visible;

/// Prints as JSON or as text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints `value` as JSON, or the text.
    pub(super) fn print<L: Into<Lines>>(
        self,
        value: &impl Serialize,
        text: impl FnOnce() -> L,
    ) -> Result<u8, Failure> {
        let mut stdout = Stdout::default();
        stdout.print(self, value, text);
        stdout.finish()
    }
}

/// Text for people, its control characters made visible.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Lines(String);

impl Lines {
    /// Text of several lines.
    pub(super) fn text(text: &str) -> Self {
        Self(visible::lines(text))
    }

    /// Adds lines.
    pub(super) fn push(&mut self, more: impl Into<Self>) {
        self.0.push_str(&more.into().0);
    }

    /// Adds a table under a heading, after an empty line.
    pub(super) fn section(&mut self, heading: &str, more: impl Into<Self>) {
        self.0.push_str(&format!("\n{heading}\n"));
        self.push(more);
    }
}

/// One line; `None` if it is empty.
impl From<String> for Lines {
    fn from(line: String) -> Self {
        if line.is_empty() { Self::default() } else { Self(visible::line(&line) + "\n") }
    }
}

impl<L: Into<Self>> FromIterator<L> for Lines {
    fn from_iter<I: IntoIterator<Item = L>>(lines: I) -> Self {
        lines.into_iter().fold(Self::default(), |mut all, line| {
            all.push(line);
            all
        })
    }
}

/// Standard output. The first failure is kept for [`Self::finish`]; nothing is written after it.
#[derive(Debug, Default)]
pub(super) struct Stdout {
    broken: Option<io::Error>,
}

impl Stdout {
    /// Prints `value` as JSON on one line, or the text; returns whether there still is a reader.
    pub(super) fn print<L: Into<Lines>>(
        &mut self,
        output: Output,
        value: &impl Serialize,
        text: impl FnOnce() -> L,
    ) -> bool {
        let mut text = match output.json.then(|| serde_json::to_string(value)) {
            Some(Ok(json)) => visible::json(&json),
            Some(Err(error)) => {
                self.broken.get_or_insert(error.into());
                return false;
            }
            None => text().into().0,
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        self.raw(text.as_bytes())
    }

    /// Replaces what the terminal shows by a text; returns whether there still is a reader.
    pub(super) fn redraw(&mut self, text: Lines) -> bool {
        // to the upper left corner; each line to its end, and then the rest of the screen is erased
        let text = text.0.replace('\n', "\x1b[K\n");
        self.raw(format!("\x1b[H{text}\x1b[J").as_bytes())
    }

    /// Writes bytes unchanged, of a guest or a script; returns whether there still is a reader.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> bool {
        write_unless_broken(io::stdout().lock(), bytes, &mut self.broken)
    }

    /// Nothing can be written any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// A write has failed for another reason than that the reader has gone.
    pub(super) fn failed(&self) -> bool {
        self.broken.as_ref().is_some_and(is_failure)
    }

    /// Success, unless a write has failed. A reader that has gone is no failure.
    pub(super) fn finish(self) -> Result<u8, Failure> {
        match self.broken {
            Some(error) if is_failure(&error) => Err(unwritten(&error)),
            _ => Ok(0),
        }
    }
}

/// A reader that has gone is no failure.
fn is_failure(error: &io::Error) -> bool {
    error.kind() != ErrorKind::BrokenPipe
}

fn write_unless_broken(mut out: impl Write, bytes: &[u8], broken: &mut Option<io::Error>) -> bool {
    if broken.is_none() {
        *broken = out.write_all(bytes).and_then(|()| out.flush()).err();
    }
    broken.is_none()
}

/// Standard error, for the output of a guest's command. The first failure is kept for [`Self::finish`].
#[derive(Debug, Default)]
pub(super) struct Stderr {
    broken: Option<io::Error>,
}

impl Stderr {
    /// Writes bytes unchanged.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        write_unless_broken(io::stderr(), bytes, &mut self.broken);
    }

    /// Its reader has gone.
    pub(super) fn has_no_reader(&self) -> bool {
        self.broken.as_ref().is_some_and(|error| !is_failure(error))
    }

    /// Success, unless a write has failed.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.broken {
            Some(error) if is_failure(&error) => {
                Err(Failure::other(format!("standard error cannot be written: {error}")))
            }
            _ => Ok(()),
        }
    }
}

/// The error for copying to standard output; [`Stdout::finish`] returns the failure itself.
impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.raw(bytes) { Ok(bytes.len()) } else { Err(ErrorKind::BrokenPipe.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether standard output is a terminal.
pub(super) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether standard error is a terminal.
pub(super) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// The message when standard output cannot be written.
pub(super) fn unwritten(error: &io::Error) -> Failure {
    Failure::other(format!("standard output cannot be written: {error}"))
}

/// Writes a message to standard error: whole lines, made visible.
pub(super) fn tell(text: &str) {
    // a terminal may be in raw mode, where a newline needs a carriage return; elsewhere it does no harm
    let on_terminal = io::stderr().is_terminal();
    let end = if on_terminal { "\r\n" } else { "\n" };
    let mut text = visible::lines(text).replace('\n', end) + end;
    if on_terminal && must_end_line() {
        // not behind the prompt of a guest whose console is on the same terminal
        text.insert_str(0, end);
    }
    if LINE_IS_SHOWN.load(Ordering::Relaxed) {
        // what showed the line shows it again, below
        text.insert_str(0, ERASE);
    }
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Prints a help page, or the version, with clap's colours on a terminal.
pub(super) fn help(error: &clap::Error) -> Result<u8, Failure> {
    let page = error.render();
    let styled = |terminal: bool| match has_colours(terminal, |name| std::env::var_os(name)) {
        true => page.ansi().to_string(),
        false => page.to_string(),
    };
    if error.use_stderr() {
        let _ = io::stderr().write_all(styled(io::stderr().is_terminal()).as_bytes());
        return Ok(u8::try_from(error.exit_code()).unwrap_or(u8::MAX));
    }
    let mut stdout = Stdout::default();
    stdout.raw(styled(stdout_is_terminal()).as_bytes());
    stdout.finish()
}

/// Exits when the reader of our output has gone: a command that waits for more to print would not notice.
pub(super) fn end_with_reader() {
    std::thread::spawn(|| {
        let stdout = io::stdout();
        // with no requested events, poll reports errors: the other end of a pipe or socket is closed
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

/// Whether a stream gets colours. `$NO_COLOR` (no-color.org) stands above `$CLICOLOR_FORCE` and `$CLICOLOR` (bixense.com/clicolors),
/// and these above what the stream is.
fn has_colours(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() {
        return false;
    }
    if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return true;
    }
    is_terminal && !is_dumb(&variable) && set("CLICOLOR").is_none_or(|value| value != "0")
}

/// A terminal that shows control sequences instead of following them.
fn is_dumb(variable: &impl Fn(&str) -> Option<OsString>) -> bool {
    variable("TERM").is_some_and(|term| term == "dumb")
}

/// A terminal that can overwrite what it shows.
fn can_overwrite(is_terminal: bool) -> bool {
    is_terminal && !is_dumb(&|name: &str| std::env::var_os(name))
}

/// Whether standard output is a terminal on which a table can be drawn again and again.
pub(super) fn stdout_can_redraw() -> bool {
    can_overwrite(stdout_is_terminal())
}

/// Whether a [`Line`] is on the terminal: what is written next must not stand behind it.
static LINE_IS_SHOWN: AtomicBool = AtomicBool::new(false);
/// Moves to the start of the line and erases it.
const ERASE: &str = "\r\x1b[K";

/// A line on the terminal that is overwritten, and removed at the end.
#[derive(Debug)]
pub(super) struct Line {
    on_terminal: bool,
    shown: Option<Instant>,
}

impl Line {
    /// The shortest interval between two updates of the line.
    const PAUSE: Duration = Duration::from_millis(100);

    /// On stderr, if that is a terminal.
    pub(super) fn new() -> Self {
        Self { on_terminal: Self::is_possible(), shown: None }
    }

    /// Whether stderr is a terminal that can show it.
    pub(super) fn is_possible() -> bool {
        can_overwrite(io::stderr().is_terminal())
    }

    /// Shows a text, unless it follows too soon on the one before; the text is only made if it is shown.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        if self.on_terminal && self.shown.is_none_or(|shown| shown.elapsed() >= Self::PAUSE) {
            self.shown = Some(Instant::now());
            LINE_IS_SHOWN.store(true, Ordering::Relaxed);
            let _ = write!(io::stderr(), "{ERASE}{}", clipped(&visible::line(&text()), columns()));
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown.is_some() {
            LINE_IS_SHOWN.store(false, Ordering::Relaxed);
            let _ = write!(io::stderr(), "{ERASE}");
        }
    }
}

/// How wide the terminal is.
fn columns() -> usize {
    rustix::termios::tcgetwinsize(io::stderr()).map_or(80, |size| usize::from(size.ws_col)).max(20)
}

/// A text that leaves the last column free: one that goes on in the next row could not be erased.
fn clipped(text: &str, columns: usize) -> String {
    if text.width() < columns {
        return text.to_owned();
    }
    let mut width = 0;
    let kept = text.chars().take_while(|letter| {
        width += letter.width().unwrap_or(0);
        // one for the mark, one that stays free
        width + 2 <= columns
    });
    kept.chain(['…']).collect()
}

/// A table with a heading, columns as wide as their widest cell. Empty cells show as `-`.
pub(super) fn table<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Lines {
    wide_table(heading.to_vec(), rows.into_iter().map(Vec::from))
}

/// The same with optional columns.
pub(super) fn wide_table(heading: Vec<&str>, rows: impl IntoIterator<Item = Vec<String>>) -> Lines {
    let mut lines = vec![heading.into_iter().map(str::to_owned).collect()];
    for row in rows {
        lines.push(row.iter().map(|cell| visible::line(cell)).collect());
    }
    Lines(in_columns(&mut lines))
}

fn in_columns(lines: &mut [Vec<String>]) -> String {
    let mut widths = vec![0; lines.first().map_or(0, Vec::len)];
    for line in &mut *lines {
        for (cell, width) in line.iter_mut().zip(&mut widths) {
            if cell.is_empty() {
                cell.push('-');
            }
            *width = cell.width().max(*width);
        }
    }
    let mut text = String::new();
    for line in lines {
        let padded = |(cell, width): (&String, &usize)| cell.clone() + &" ".repeat(width - cell.width());
        let cells = line.iter().zip(&widths).map(padded);
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Lines `name: value`, names padded to the same width; entries without a value are left out.
pub(super) fn facts(facts: &[(&str, Option<String>)]) -> Lines {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let line = |(name, value): &(&str, Option<String>)| {
        value.as_ref().map(|value| format!("{:width$} {}\n", format!("{name}:"), visible::line(value)))
    };
    Lines(facts.iter().filter_map(line).collect())
}

/// A size for display: `1.5 GiB`.
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

/// A duration for display: `2m 5s`.
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
        assert_eq!(table(["ID", "WHAT"], rows).0, "ID      WHAT\na       long cell\nlonger  -\n");
        // a newline in a name starts no row, and the width counts as shown
        let rows = [["a\nb".to_owned(), "\x1b[2J".to_owned()]];
        assert_eq!(table(["ID", "WHAT"], rows).0, "ID    WHAT\na\\nb  \\u{1b}[2J\n");
        // as wide as a terminal shows it: two columns for an ideograph, none for an accent of its own
        let rows = [["虚拟".to_owned(), "x".to_owned()], ["e\u{301}".to_owned(), "y".to_owned()]];
        assert_eq!(table(["ID", "WHAT"], rows).0, "ID    WHAT\n虚拟  x\ne\u{301}     y\n");
        assert_eq!(facts(&[("file", Some("a\nstate: gone".to_owned()))]).0, "file: a\\nstate: gone\n");
    }

    #[test]
    fn variables_decide_on_colours_before_the_stream_does() {
        let has = |is_terminal: bool, set: &[(&str, &str)]| {
            has_colours(is_terminal, |name| {
                set.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(value))
            })
        };
        assert!(has(true, &[]) && !has(false, &[]));
        for off in [("NO_COLOR", "1"), ("NO_COLOR", "0"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
            assert!(!has(true, &[off]), "{off:?}");
        }
        // an empty one counts as not set
        assert!(has(true, &[("NO_COLOR", "")]) && has(true, &[("CLICOLOR", "1")]));
        assert!(has(false, &[("CLICOLOR_FORCE", "1")]) && !has(false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!has(true, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    }

    #[test]
    fn a_line_stays_in_its_row() {
        assert_eq!(clipped("abc", 20), "abc");
        assert_eq!(clipped("0123456789", 10), "01234567…");
        // two columns each
        assert_eq!(clipped("虚拟虚拟虚拟", 10), "虚拟虚拟…");
    }

    #[test]
    fn sizes_and_times_are_for_people() {
        assert_eq!([bytes(512), bytes(1 << 30), bytes(3 << 19)], ["512 B", "1 GiB", "1.5 MiB"]);
        assert_eq!([milliseconds(12), milliseconds(65_123)], ["12ms", "1m 5s"]);
    }
}
