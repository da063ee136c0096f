//! What a test that fails says of its VM.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

use crate::control::client::Client;
use crate::control::verbs;

use super::Machine;
use super::console::{SHOWN_BYTES, last_lines};

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(words) = last_words(self)
        {
            say(&words);
        }
    }
}

/// On standard error, by the macro whose output test runners show with the test.
#[expect(clippy::print_stderr, reason = "for the person who reads of the panic, which is printed there, too")]
fn say(words: &str) {
    // it panics if standard error is closed, which must not end the process
    let _ = std::panic::catch_unwind(|| eprintln!("{words}"));
}

/// How the VM is, or how it ended, and what its console printed last.
fn last_words(vm: &Machine) -> Option<String> {
    let mut client = vm.client().ok()?;
    let status = client.call(verbs::GetStatus {}).ok()?.status;
    let how = match status.outcome {
        Some(outcome) => format!("has ended: {outcome} (exit code {})", outcome.exit_code),
        None => format!("is {}", status.state),
    };
    let console = last_lines(&recent(&mut client));
    Some(match console.is_empty() {
        true => format!("VM '{}' {how}; its console printed nothing", vm.name),
        false => format!("VM '{}' {how}; its console ends with\n{console}", vm.name),
    })
}

fn recent(client: &mut Client) -> Vec<u8> {
    let mut output = Vec::new();
    let call = verbs::ReadConsole { from: Some("recent".to_owned()), follow: Some(false) };
    // an error: what has come by then is shown
    let _ = client.stream(call, |reply| {
        output.extend(BASE64.decode(&reply.data).unwrap_or_default());
        true
    });
    output.drain(..output.len().saturating_sub(SHOWN_BYTES));
    output
}
