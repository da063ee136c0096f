//! The least that a client can do: write a message, read up to the end of the answer, look into nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection whose messages end with a certain byte.
pub(crate) struct Line {
    stream: UnixStream,
    end: u8,
    buffer: Vec<u8>,
}

impl Line {
    /// To a monitor of QEMU, without its greeting having been read.
    pub(crate) fn qmp(socket: &Path) -> Self {
        Self::connect(socket, b'\n')
    }

    /// To a VM's control socket.
    pub(crate) fn control(socket: &Path) -> Self {
        Self::connect(socket, 0)
    }

    fn connect(socket: &Path, end: u8) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream, end, buffer: Vec::with_capacity(64 << 10) }
    }

    /// Reads QEMU's greeting and leaves the state of negotiation: QMP is ready.
    pub(crate) fn negotiate(&mut self) {
        let greeting = self.receive();
        assert!(greeting.contains("QMP"), "{greeting}");
        self.ask(r#"{"execute":"qmp_capabilities"}"#);
    }

    pub(crate) fn send(&mut self, message: &str) {
        let mut bytes = Vec::with_capacity(message.len() + 1);
        bytes.extend_from_slice(message.as_bytes());
        bytes.push(self.end);
        self.stream.write_all(&bytes).unwrap();
    }

    /// Sends and receives the answer. On a monitor, events that come in between are passed over.
    pub(crate) fn ask(&mut self, message: &str) -> String {
        self.send(message);
        loop {
            let answer = self.receive();
            assert!(!answer.contains("\"error\""), "{message}: {answer}");
            if self.end == 0 || answer.contains("\"return\"") {
                return answer;
            }
        }
    }

    /// Passes over everything until an event of this name.
    pub(crate) fn wait_for(&mut self, event: &str) {
        while !self.receive().contains(event) {}
    }

    pub(crate) fn receive(&mut self) -> String {
        let mut seen = 0;
        loop {
            if let Some(place) = self.buffer[seen..].iter().position(|byte| *byte == self.end) {
                let rest = self.buffer.split_off(seen + place + 1);
                let mut message = std::mem::replace(&mut self.buffer, rest);
                message.pop();
                return String::from_utf8(message).unwrap();
            }
            seen = self.buffer.len();
            let mut bytes = [0; 16 << 10];
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the other side has hung up");
            self.buffer.extend_from_slice(&bytes[..count]);
        }
    }
}
