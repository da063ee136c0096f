//! Runs a command by typing it into the shell on the guest's serial console, for guests without an agent.
//!
//! The shell prints a line before and behind the command's output, with a random word that the echo of what is typed does not have in one
//! piece. What the kernel or other programs print in between is taken for output; there is no input, and standard error is in the output.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use tokio::time::Instant;

use crate::control::client::{AsyncClient, Client, ClientError};
use crate::control::verbs::{ReadConsole, WriteConsole};
use crate::spec::duration;
use crate::vm::Executed;
use crate::vm::console::Harmless;

use super::super::failure::Failure;
use super::super::guest_command::SIGPIPE;
use super::super::output::{Stdout, stdout_is_terminal};

/// The most that a terminal's line has on Linux, less something (N_TTY's 4096).
const LONGEST: usize = 4000;
/// How long a shell may take to begin.
const BEGIN: Duration = Duration::from_secs(30);
/// Interrupts the command.
const INTERRUPT: &[u8] = b"\x03";

/// Runs it on the console of this VM.
pub(super) async fn run(
    connect: impl Fn() -> Result<Client, Failure>,
    line: Line,
    timeout: Option<Duration>,
) -> Result<Executed, Failure> {
    let mut writer = AsyncClient::new(connect()?)?;
    // what was printed before has not the random word
    let from = ReadConsole { from: Some("recent".to_owned()), follow: None };
    let mut output = AsyncClient::new(connect()?)?.start(from).await?;
    let write = |bytes: &[u8]| WriteConsole { data: BASE64.encode(bytes) };
    writer.call(write(line.text.as_bytes())).await?;
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let begin = Instant::now() + BEGIN;
    let mut found = Found::new(&line.word);
    let mut stdout = Stdout::default();
    // the guest gets no input: a shell would read what the terminal answers
    let mut harmless = stdout_is_terminal().then(Harmless::with_modes);
    loop {
        let until = match (deadline, found.has_begun) {
            (Some(deadline), true) => Some(deadline),
            (None, true) => None,
            (deadline, false) => Some(deadline.map_or(begin, |deadline| deadline.min(begin))),
        };
        let next = output.next();
        let reply = match until {
            None => next.await?,
            Some(until) => match tokio::time::timeout_at(until, next).await {
                Ok(reply) => reply?,
                Err(_) if found.has_begun || deadline == Some(until) => {
                    writer.call(write(INTERRUPT)).await?;
                    let limit = duration::format(timeout.unwrap_or_default());
                    let message = format!("the command did not end within {limit} and was interrupted");
                    return Err(Failure::timed_out(message));
                }
                Err(_) => return Err(no_shell()),
            },
        };
        let Some(reply) = reply else { return Err(ClientError::Gone.into()) };
        let bytes = BASE64.decode(&reply.data).unwrap_or_default();
        let code = found.take(&bytes, |text| match &mut harmless {
            Some(harmless) => stdout.raw(&harmless.filter(text)),
            None => stdout.raw(text),
        });
        if let Some(code) = code {
            stdout.finish()?;
            return Ok(Executed { exit_code: Some(code), ..Executed::default() });
        }
        if stdout.is_broken() {
            writer.call(write(INTERRUPT)).await?;
            stdout.finish()?;
            return Ok(Executed { signal: Some(SIGPIPE), ..Executed::default() });
        }
    }
}

fn no_shell() -> Failure {
    let hint = "`--console=REGEX` says what the prompt looks like at which a command can be typed; `vmrun run --keep` leaves the VM \
                running, and `vmrun console` shows it";
    let message = format!("no shell on the console answered within {}", duration::format(BEGIN));
    Failure::other(message).hint(Some(hint.to_owned()))
}

/// What is typed.
#[derive(Debug)]
pub(super) struct Line {
    text: String,
    word: String,
}

impl Line {
    /// The line that runs this command.
    ///
    /// # Errors
    /// It cannot be typed.
    pub(super) fn of(command: &[String], env: &[String]) -> Result<Self, Failure> {
        let word = format!("{:032x}", rand::random::<u128>());
        let env = if env.is_empty() { Vec::new() } else { [vec!["env".to_owned()], env.to_vec()].concat() };
        let words = env.iter().chain(command).map(String::as_str);
        let typed = shlex::try_join(words).map_err(|error| Failure::usage(format!("COMMAND: {error}")))?;
        if typed.chars().any(char::is_control) {
            return Err(Failure::usage("a command with control characters cannot be typed into a console"));
        }
        let text = format!(
            "printf '\\n%s%s\\n' vmrun-begin- {word}; ({typed}) < /dev/null 2>&1; printf '\\n%s%s %s\\n' vmrun-end- {word} $?\r"
        );
        if text.len() > LONGEST {
            let message =
                format!("the command has more than the {LONGEST} bytes that a console takes in a line");
            return Err(Failure::usage(message));
        }
        Ok(Self { text, word })
    }
}

/// Finds the output of the command in that of the console.
struct Found {
    begin: String,
    end: String,
    /// The line that is not complete yet.
    line: Vec<u8>,
    has_begun: bool,
    has_line: bool,
}

impl Found {
    fn new(word: &str) -> Self {
        let (begin, end) = (format!("vmrun-begin-{word}"), format!("vmrun-end-{word} "));
        Self { begin, end, line: Vec::new(), has_begun: false, has_line: false }
    }

    /// Takes what the console has printed; returns the exit code when it has come. `print` gets the command's output, and says whether
    /// there still is a reader.
    fn take(&mut self, bytes: &[u8], mut print: impl FnMut(&[u8]) -> bool) -> Option<i64> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend(piece);
            if !piece.ends_with(b"\n") {
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if !self.has_begun {
                self.has_begun = text == self.begin.as_bytes();
                continue;
            }
            if let Some(code) = text.strip_prefix(self.end.as_bytes()) {
                let code = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok());
                return Some(code.unwrap_or(-1));
            }
            // the line's end before the last line is the script's own
            if std::mem::replace(&mut self.has_line, true) {
                print(b"\n");
            }
            print(text);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the output is cut into pieces.
    #[test]
    fn output_is_what_is_between_the_marks() {
        let echo = "guest# \x1b[6nprintf '\\n%s%s\\n' vmrun-begin- w; (x) < /dev/null 2>&1; printf vmrun-end- w $?\r\n";
        for (printed, expected, code) in [
            ("", "", 0),
            ("a\r\n", "a\n", 0),
            ("a", "a", 7),
            ("a\r\n\r\nb\r\n", "a\n\nb\n", 255),
            ("\r\n", "\n", 1),
        ] {
            let all = format!("{echo}\r\nvmrun-begin-w\r\n{printed}\r\nvmrun-end-w {code}\r\nguest# ");
            for size in [1, 3, 1000] {
                let (mut found, mut output, mut ended) = (Found::new("w"), Vec::new(), None);
                for piece in all.as_bytes().chunks(size) {
                    let print = |text: &[u8]| {
                        output.extend(text);
                        true
                    };
                    ended = ended.or(found.take(piece, print));
                    if ended.is_some() {
                        break;
                    }
                }
                assert_eq!((String::from_utf8(output).unwrap().as_str(), ended), (expected, Some(code)));
            }
        }
    }

    #[test]
    fn what_cannot_be_typed_is_refused() {
        let of = |word: &str| Line::of(&["echo".to_owned(), word.to_owned()], &[]);
        assert!(of("a b'c").unwrap().text.contains("echo \"a b'c\""));
        for word in ["a\nb", "\x03", &"x".repeat(4000)] {
            assert_eq!(of(word).unwrap_err().exit_code, 2);
        }
    }
}
