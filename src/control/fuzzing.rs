//! The fuzzer's entry to what is private here.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::dispatch::RawCall;
use super::error::WireError;
use super::framing::{FrameError, FrameReader};
use super::parameters::read;
use super::shared_qmp::Scan;
use super::socket::{Guarded, Socket};
use super::verbs::{self, Method, Run, Visitor};

/// Each complete frame is a call or an error, and then the connection ends.
pub(crate) fn frames(bytes: &[u8]) {
    let bytes = bytes.to_owned();
    let whole = bytes.iter().filter(|byte| **byte == 0).count();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let answered = runtime.expect("a runtime").block_on(async {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let (calls, _replies) = Guarded(ours).split();
        let mut calls = FrameReader::new(calls);
        let client = tokio::spawn(async move { theirs.write_all(&bytes).await });
        let mut answered = 0;
        while let Ok(_) | Err(FrameError::Json(_)) = calls.next::<RawCall>().await {
            answered += 1;
        }
        // the peer may have closed the connection
        let _ = client.await;
        answered
    });
    assert!(answered <= whole, "{answered} calls in {whole} frames");
}

/// `Method\0parameters`: parsed by the method itself, and by all parsers of parameters.
pub(crate) fn calls(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == 0) else { return };
    let method = String::from_utf8_lossy(&bytes[..end]);
    let Ok(parameters) = serde_json::from_slice::<Value>(&bytes[end + 1..]) else { return };
    if let Some(Run::Change(change, _)) = verbs::find(&method).map(|entry| &entry.run)
        && let Err(error) = change(parameters.clone())
    {
        read_error(&error);
    }
    verbs::visit(&mut All(&parameters));
}

/// Parses the input as the parameters of every method, and as its reply, which a client may get from an unknown supervisor.
struct All<'a>(&'a Value);

impl Visitor for All<'_> {
    fn visit<M: Method>(&mut self) {
        again::<M>(self.0);
        again::<M::Reply>(self.0);
    }
}

fn again<T: DeserializeOwned + Serialize + PartialEq + Debug>(parameters: &Value) {
    match read::<T>(parameters.clone()) {
        Ok(value) => {
            let written = serde_json::to_value(&value).expect("it was JSON");
            assert_eq!(read::<T>(written).ok(), Some(value));
        }
        Err(error) => read_error(&error),
    }
}

fn read_error(error: &WireError) {
    let written = serde_json::to_vec(error).expect("an error is JSON");
    assert_eq!(serde_json::from_slice::<WireError>(&written).ok().as_ref(), Some(error));
}

/// Every input is answered and consumed, however it is split.
pub(crate) fn shared_qmp(bytes: &[u8]) {
    let [size, bytes @ ..] = bytes else { return };
    let (mut buffer, mut scan) = (Vec::new(), Scan::default());
    for piece in bytes.chunks(usize::from(*size).max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            if scan.next(&mut buffer).is_none() {
                assert_eq!(buffer.len(), before);
                break;
            }
            assert!(buffer.len() < before);
        }
    }
}
