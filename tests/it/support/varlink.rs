//! Varlink by hand: frames as bytes, so that wrong ones can be sent too.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// One connection to a control socket.
pub(crate) struct Raw {
    pub(crate) stream: UnixStream,
    buffer: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(socket: &Path) -> Self {
        Self::try_connect(socket).unwrap()
    }

    /// The other side of a connection, or one that is there already.
    pub(crate) fn over(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// `None` once there is no listener any more.
    pub(crate) fn try_connect(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Some(Self { stream, buffer: Vec::new() })
    }

    /// Sends a frame, right or wrong.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.stream.write_all(frame).unwrap();
        self.stream.write_all(&[0]).unwrap();
    }

    /// The next frame; none if the other side has hung up.
    pub(crate) fn receive(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == 0) {
                let rest = self.buffer.split_off(end + 1);
                let frame = std::mem::replace(&mut self.buffer, rest);
                return Some(serde_json::from_slice(&frame[..end]).unwrap());
            }
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// Calls a method by its full name.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        let call = json!({ "method": method, "parameters": parameters });
        self.send(call.to_string().as_bytes());
        self.receive().expect("an answer")
    }
}
