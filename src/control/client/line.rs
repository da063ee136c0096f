//! Calls and replies as they travel, over any kind of socket.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ClientError;
use crate::control::INTERFACE;
use crate::control::error::WireError;
use crate::control::framing::{FrameError, FrameReader, WriteBytes, frame};
use crate::control::socket::Socket;
use crate::control::verbs::Method;

/// A call before it is sent.
#[derive(Debug, Serialize)]
pub(super) struct Call {
    pub(super) method: String,
    pub(super) parameters: Value,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) more: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) oneway: bool,
    /// See [`Method::REPEATABLE`].
    #[serde(skip)]
    pub(super) repeatable: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Call {
    /// Reduces the call's timeout by the elapsed time, if it has one.
    pub(super) fn shorten(&mut self, limit: Option<i64>, elapsed: Duration) {
        if let Some(limit) = limit {
            let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
            self.parameters["timeout_ms"] = limit.saturating_sub(elapsed).max(0).into();
        }
    }
}

pub(super) fn call<M: Method>(call: &M) -> Result<Call, ClientError> {
    message(M::NAME, M::REPEATABLE, serde_json::to_value(call))
}

/// Only [`call`] and [`decode`] depend on the method; the code between them is not generic, so the program has it once.
fn message(
    method: &str,
    repeatable: bool,
    parameters: serde_json::Result<Value>,
) -> Result<Call, ClientError> {
    let parameters = parameters.map_err(unclear)?;
    Ok(Call { method: format!("{INTERFACE}.{method}"), parameters, more: false, oneway: false, repeatable })
}

/// A reply of either kind, as it is received.
#[derive(Debug, Deserialize)]
struct Received {
    error: Option<String>,
    parameters: Option<Map<String, Value>>,
    continues: Option<bool>,
}

/// A connection over any kind of socket.
#[derive(Debug)]
pub(super) struct Line<S: Socket> {
    replies: FrameReader<S::ReadHalf>,
    pub(super) calls: S::WriteHalf,
}

impl<S: Socket> Line<S> {
    pub(super) fn new(socket: S) -> Self {
        let (replies, calls) = socket.split();
        Self { replies: FrameReader::new(replies), calls }
    }

    pub(super) async fn send(&mut self, call: &Call) -> Result<(), ClientError> {
        self.calls.write(&frame(call).map_err(unclear)?).await.map_err(|_| ClientError::Gone)
    }

    /// The next reply, and whether more follow.
    pub(super) async fn receive(&mut self) -> Result<(Map<String, Value>, bool), ClientError> {
        let Received { error, parameters, continues } = self.replies.next().await.map_err(unreadable)?;
        let parameters = parameters.unwrap_or_default();
        match error {
            Some(error) => Err(ClientError::Remote(WireError { error, parameters })),
            None => Ok((parameters, continues == Some(true))),
        }
    }
}

/// The next reply of a stream; `None` for the empty one that ends it.
pub(super) fn streamed<R: DeserializeOwned>(
    (parameters, more): (Map<String, Value>, bool),
) -> Result<Option<R>, ClientError> {
    if more { decode(parameters).map(Some) } else { Ok(None) }
}

pub(super) fn decode<R: DeserializeOwned>(parameters: Map<String, Value>) -> Result<R, ClientError> {
    R::deserialize(parameters).map_err(unclear)
}

pub(super) fn unclear(error: serde_json::Error) -> ClientError {
    ClientError::Protocol(error.to_string())
}

fn unreadable(error: FrameError) -> ClientError {
    match error {
        FrameError::Io(_) => ClientError::Gone,
        other => ClientError::Protocol(other.to_string()),
    }
}
