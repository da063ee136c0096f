//! Assembles the replies of `Exec`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

use crate::control::verbs;
use crate::vm::Executed;

/// The output and status of a command in the guest so far.
#[derive(Debug, Default)]
pub struct Output {
    so_far: Executed,
}

impl Output {
    /// Adds one reply.
    pub fn take(&mut self, reply: verbs::ExecReply) {
        let bytes = |data: Option<String>| BASE64.decode(data.unwrap_or_default()).unwrap_or_default();
        let Executed { stdout, stderr, exit_code, signal, truncated } = &mut self.so_far;
        stdout.extend(bytes(reply.stdout));
        stderr.extend(bytes(reply.stderr));
        *exit_code = exit_code.or(reply.exit_code);
        *signal = signal.or(reply.signal);
        *truncated |= reply.truncated.unwrap_or(false);
    }

    /// The output since the last call, of standard output and of standard error.
    pub fn pieces(&mut self) -> (Vec<u8>, Vec<u8>) {
        (std::mem::take(&mut self.so_far.stdout), std::mem::take(&mut self.so_far.stderr))
    }

    /// The exit status; `None` if the stream ended first, as it does with the VM.
    pub fn ended(self) -> Option<Executed> {
        (self.so_far.exit_code.is_some() || self.so_far.signal.is_some()).then_some(self.so_far)
    }
}
