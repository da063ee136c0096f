//! `vmrun console` and `vmrun logs`: the output of the guest's console, input to it, and its size.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::Value;

use crate::control::error::WireError;
use crate::control::permits::Use;
use crate::control::wire::{self, Nothing};
use crate::vm::console::{From, Reader};
use crate::vm::{ChangeError, Handle, ResizedBy};

use super::method::{CallMethod, EndedVm, Stream, StreamMethod, Uploads, method};
use super::one_reply::{MOST, text_of_end};

/// The most bytes of a VM that has ended in one reply.
const PIECE: usize = 16 << 10;

method! {
    /// Reads the console's output.
    ReadConsole { ; from: String, follow: bool } -> ConsoleReply, repeatable
}

method! {
    /// Writes input to the console.
    WriteConsole { data: String; } -> Nothing
}

method! {
    /// Sets the size of the guest's console.
    ResizeConsole { rows: i64, columns: i64; } -> ResizeConsoleReply, repeatable
}

wire::replies! {
    /// Replies of `ReadConsole`.
    ConsoleReply { data: String, skipped: u64; text: String, earlier: u64 }
    /// Reply of `ResizeConsole`.
    ResizeConsoleReply { by: String; }
}

impl Stream for ReadConsole {
    /// A repeated call continues after the output that was read.
    fn goes_on(parameters: &mut Value) {
        parameters["from"] = "now".into();
    }
}

impl StreamMethod for ReadConsole {
    fn start(self, vm: &Handle) -> Result<BoxStream<'static, Result<ConsoleReply, WireError>>, WireError> {
        let mut reader = self.reader(vm)?;
        if self.follow.unwrap_or(true) {
            return Ok(stream::unfold(reader, |mut reader: Reader| async move {
                let chunk = reader.next().await?;
                let earlier = Some(chunk.earlier as u64).filter(|earlier| *earlier > 0);
                Some((Ok(ConsoleReply { earlier, ..piece(&chunk.bytes, chunk.skipped) }), reader))
            })
            .boxed());
        }
        let mut there = Vec::new();
        while let Some(chunk) = reader.try_next() {
            there.push(Ok(piece(&chunk.bytes, chunk.skipped)));
        }
        Ok(stream::iter(there).boxed())
    }

    /// What is there, or the end of it.
    async fn once(self, vm: &Handle) -> Result<ConsoleReply, WireError> {
        let mut reader = self.reader(vm)?;
        if self.follow == Some(true) {
            return Err(WireError::expected_more());
        }
        let (mut last, mut skipped) = (Vec::new(), 0);
        while let Some(chunk) = reader.try_next() {
            last.extend_from_slice(&chunk.bytes);
            let before = last.len().saturating_sub(MOST);
            last.drain(..before);
            skipped += chunk.skipped + before as u64;
        }
        let text = text_of_end(&last, skipped > 0);
        Ok(ConsoleReply { text, ..piece(&last, skipped) })
    }

    fn after_the_end(self, ended: &EndedVm<'_>) -> Option<Vec<ConsoleReply>> {
        Some(ended.record.console().chunks(PIECE).map(|bytes| piece(bytes, 0)).collect())
    }
}

impl ReadConsole {
    fn reader(&self, vm: &Handle) -> Result<Reader, WireError> {
        let from = match self.from.as_deref() {
            Some("start") => From::Start,
            None | Some("recent") => From::Recent,
            Some("now") => From::Now,
            Some(_) => return Err(ChangeError::invalid("from", "from must be start, recent or now").into()),
        };
        vm.console.check()?;
        Ok(vm.console.hub.reader(from))
    }
}

fn piece(bytes: &[u8], skipped: u64) -> ConsoleReply {
    ConsoleReply { data: BASE64.encode(bytes), skipped, text: None, earlier: None }
}

impl CallMethod for WriteConsole {
    const NEEDS: Use = Use::Change;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<Nothing, WireError> {
        let bytes = BASE64.decode(&self.data).map_err(|error| ChangeError::invalid("data", error))?;
        vm.console.check()?;
        vm.console.input.send(bytes).await.map_err(|_| ChangeError::not_running())?;
        Ok(Nothing {})
    }
}

impl CallMethod for ResizeConsole {
    const NEEDS: Use = Use::Wait;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<ResizeConsoleReply, WireError> {
        let count = |name: &str, count: i64| match u16::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(ChangeError::invalid(name, "a console has 1 to 65535 of them")),
        };
        let (rows, columns) = (count("rows", self.rows)?, count("columns", self.columns)?);
        let by = match vm.resize_console(rows, columns).await? {
            ResizedBy::Agent => "agent",
            ResizedBy::Typing => "typing",
        };
        Ok(ResizeConsoleReply { by: by.to_owned() })
    }
}
