//! Runs a command in the guest while its streams flow, without a runtime.

use std::io::{ErrorKind, Read};
use std::thread;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

use crate::control::client::{Client, ClientError};
use crate::control::verbs::{ExecReply, WriteExecInput};
use crate::vm::{Exec, Executed};

use super::exec::Output;
use super::exec_call;

/// Bytes of input in one call.
const INPUT_PIECE: usize = 48 << 10;

/// What happens with a command.
pub enum Happened<'a> {
    /// It runs; the guest's id of the process, where it is known.
    Started(Option<i64>),
    /// It has written this to its standard output and to its standard error.
    Wrote(&'a [u8], &'a [u8]),
}

/// What a command reads, while it runs.
pub struct Input {
    /// Read on a thread of its own.
    pub source: Box<dyn Read + Send>,
    /// Called there if it cannot be read; the command's input ends then.
    pub broken: fn(std::io::Error),
}

/// Runs a command; `each` is told what happens with it, and returns whether it is to go on.
///
/// A read of the input that never ends does not keep this from returning.
///
/// # Errors
/// Those of the call; [`ClientError::Gone`] if the VM has ended, or `each` did not want more.
pub fn exec_streamed(
    client: &mut Client,
    exec: Exec,
    input: Option<Input>,
    mut each: impl FnMut(Happened<'_>) -> bool,
) -> Result<Executed, ClientError> {
    let mut second = input.and_then(|input| Some((client.another()?, input)));
    let exec = Exec { input: second.is_some(), ..exec };
    let mut output = Output::default();
    let take = |reply: ExecReply| {
        // the first reply
        let mut wanted = true;
        if reply.pid.is_some() || reply.input.is_some() {
            if let (Some(handle), Some((Ok(client), input))) = (reply.input, second.take()) {
                thread::spawn(move || feed(client, handle, input));
            }
            wanted = each(Happened::Started(reply.pid));
        }
        output.take(reply);
        let (stdout, stderr) = output.pieces();
        wanted && ((stdout.is_empty() && stderr.is_empty()) || each(Happened::Wrote(&stdout, &stderr)))
    };
    client.stream(exec_call(exec), take)?;
    // the stream also ends, without a reply, when the VM does
    output.ended().ok_or(ClientError::Gone)
}

/// Passes the input on until it or the command ends.
fn feed(mut client: Client, handle: i64, input: Input) {
    let Input { mut source, broken } = input;
    let mut piece = vec![0; INPUT_PIECE];
    loop {
        let read = match source.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Ok(read) => read,
            Err(error) => {
                broken(error);
                0
            }
        };
        let end = (read == 0).then_some(true);
        let data = (read > 0).then(|| BASE64.encode(&piece[..read]));
        // an error: the command has ended
        if client.call(WriteExecInput { input: handle, data, end }).is_err() || end.is_some() {
            return;
        }
    }
}
