//! Encoded replies.

use serde::Serialize;

use crate::vm::ChangeError;

use super::error::WireError;

/// Initial capacity in bytes: more than most replies need; the status of a small VM has a thousand.
const USUAL_REPLY: usize = 2048;

/// An encoded reply.
pub(super) struct Frame(Vec<u8>);

impl Frame {
    /// From a method's reply.
    pub(super) fn of(reply: &impl Serialize) -> Result<Self, WireError> {
        let mut frame = Vec::with_capacity(USUAL_REPLY);
        frame.extend_from_slice(br#"{"parameters":"#);
        serde_json::to_writer(&mut frame, reply).map_err(ChangeError::host)?;
        frame.extend_from_slice(b"}\0");
        Ok(Self(frame))
    }

    /// All bytes, including the terminating 0.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
