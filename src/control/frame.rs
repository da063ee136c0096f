//! Replies as they are written: made once, without a tree of values in between.

use std::sync::Arc;

use serde::Serialize;

use crate::vm::Status;

use super::{translate, wire};

/// More than most replies have, in bytes; the status of a small VM has a thousand.
const USUAL_REPLY: usize = 2048;
/// In front of the only part of a status that changes while nothing happens. No text can look like it: the quotation marks in a
/// text have backslashes in front of them.
const UPTIME: &[u8] = br#""uptime_ms":"#;

/// A reply as it is written.
pub(super) struct Frame(Vec<u8>);

impl Frame {
    pub(super) fn of(parameters: &impl Serialize) -> serde_json::Result<Self> {
        let mut frame = Vec::with_capacity(USUAL_REPLY);
        frame.extend_from_slice(br#"{"parameters":"#);
        serde_json::to_writer(&mut frame, parameters)?;
        frame.extend_from_slice(b"}\0");
        Ok(Self(frame))
    }

    /// All of it, with the byte 0 at its end.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The whole status as a client got it last. It gets most of it again as long as nothing has happened to the VM.
#[derive(Default)]
pub(super) struct LastStatus(Option<Written>);

struct Written {
    status: Arc<Status>,
    /// What was written, in front of the uptime and behind it.
    before: Vec<u8>,
    after: Vec<u8>,
}

impl LastStatus {
    /// The reply to `GetStatus`.
    pub(super) fn frame(&mut self, status: Arc<Status>) -> serde_json::Result<Frame> {
        if let Some(written) = &self.0
            && Arc::ptr_eq(&written.status, &status)
        {
            return Ok(written.anew());
        }
        let frame = Frame::of(&wire::StatusReply { status: translate::status(&status) })?;
        self.0 = Written::of(status, &frame);
        Ok(frame)
    }
}

impl Written {
    fn of(status: Arc<Status>, frame: &Frame) -> Option<Self> {
        let frame = frame.as_bytes();
        let at = frame.windows(UPTIME.len()).position(|bytes| bytes == UPTIME)? + UPTIME.len();
        let (before, rest) = frame.split_at(at);
        let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
        Some(Self { status, before: before.to_vec(), after: rest[digits..].to_vec() })
    }

    fn anew(&self) -> Frame {
        let uptime = translate::milliseconds(self.status.uptime()).to_string();
        Frame([&self.before, uptime.as_bytes(), &self.after].concat())
    }
}
