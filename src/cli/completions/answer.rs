//! `vmrun __complete -- WORD...`: what the last word can become, one candidate a line, with a tab before its description.
//!
//! A person has pressed TAB and waits. So this takes a second at most, prints nothing but candidates, changes nothing and always
//! succeeds.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use clap::{Command, CommandFactory};
use clap_complete::CompletionCandidate;
use clap_complete::engine::complete;

use super::super::args::Cli;
use super::super::output::Stdout;
use super::super::visible;
use super::values;

/// The command's name. It is for the scripts only, and not among the commands that help and the man pages list.
pub(in crate::cli) const COMMAND: &str = "__complete";
/// How long it may take in all, whatever hangs: a supervisor, a network file system.
const PATIENCE: Duration = Duration::from_secs(1);

/// Prints the candidates for these words, of which the first is the program's name.
pub(in crate::cli) fn run(words: &[OsString]) {
    let words: Vec<OsString> = words.iter().skip_while(|word| *word != "--").skip(1).cloned().collect();
    // an error here would be printed into the line that is being typed
    std::panic::set_hook(Box::new(|_| {}));
    let (found, candidates) = channel();
    thread::spawn(move || found.send(lines(words)));
    // a thread that hangs ends with the process
    let Ok(lines) = candidates.recv_timeout(PATIENCE) else { return };
    let mut stdout = Stdout::default();
    stdout.raw(lines.as_bytes());
    // a shell shows no message of a completion
    let _ = stdout.finish();
}

fn lines(words: Vec<OsString>) -> String {
    let Some(last) = words.len().checked_sub(1) else { return String::new() };
    let mut grammar = grammar(&words);
    let here = std::env::current_dir().ok();
    let candidates = complete(&mut grammar, words, last, here.as_deref()).unwrap_or_default();
    candidates.iter().filter_map(line).collect()
}

/// The grammar, in which each argument knows its values.
fn grammar(words: &[OsString]) -> Command {
    let mut grammar = Cli::command();
    grammar.build();
    values::attach(grammar, "", &Arc::from(words))
}

/// `None` for a value that a line cannot hold, or that would control the terminal.
fn line(candidate: &CompletionCandidate) -> Option<String> {
    let value = candidate.get_value().to_str()?;
    if value.is_empty() || visible::line(value) != value {
        return None;
    }
    let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
    match help.lines().next() {
        Some(help) => Some(format!("{value}\t{}\n", visible::line(help))),
        None => Some(format!("{value}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(line: &str) -> Vec<String> {
        let all = lines(line.split(' ').map(OsString::from).collect());
        all.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn commands_flags_and_fixed_values_are_completed() {
        assert_eq!(values("vmrun comp"), ["completions"]);
        assert_eq!(values("vmrun ctl disk-a"), ["disk-add"]);
        assert_eq!(values("vmrun qemu --pub"), ["--publish"]);
        assert_eq!(values("vmrun qemu --on-panic p"), ["poweroff", "pause"]);
        assert_eq!(values("vmrun qemu --on-panic=r"), ["--on-panic=reset"]);
        assert_eq!(values("vmrun ctl wait ag"), ["agent"]);
        assert_eq!(values("vmrun ctl send-key ctrl-alt-dele"), ["ctrl-alt-delete"]);
        assert_eq!(values("vmrun qemu --wait event=GUEST_PANI"), ["event=GUEST_PANICKED"]);
        assert_eq!(values("vmrun manual vmrun-ctl-usb-a"), ["vmrun-ctl-usb-add"]);
        assert!(values("vmrun exec x --").contains(&"--timeout".to_owned()));
        assert!(values("vmrun exec x -- ").is_empty());
        assert!(lines(Vec::new()).is_empty());
        // the command itself is not typed
        assert!(values("vmrun __").is_empty());
    }

    #[test]
    fn a_candidate_that_would_steer_a_terminal_is_left_out() {
        assert_eq!(line(&CompletionCandidate::new("a b")).as_deref(), Some("a b\n"));
        for name in ["a\nb", "a\tb", "\u{1b}[2J", "x\u{202e}y", ""] {
            assert_eq!(line(&CompletionCandidate::new(name)), None, "{name:?}");
        }
        let helped = CompletionCandidate::new("1.4").help(Some("Mouse\u{202e}x".to_owned().into()));
        assert_eq!(line(&helped).as_deref(), Some("1.4\tMouse\\u{202e}x\n"));
    }
}
