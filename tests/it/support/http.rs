//! As much HTTP as the Linux guest's web server needs: one request a connection, over the standard library.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// A request that was sent, whose answer has not been read.
pub(crate) struct Sent(TcpStream);

/// Connects to a port of this machine and sends a request.
pub(crate) fn send(port: u16, method: &str, path: &str, body: &str) -> io::Result<Sent> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: guest\r\nContent-Length: {length}\r\n\r\n{body}")?;
    Ok(Sent(stream))
}

impl Sent {
    /// Whether anything has come within this time; nothing is taken.
    pub(crate) fn is_answered_within(&self, time: Duration) -> bool {
        self.0.set_read_timeout(Some(time)).unwrap();
        self.0.peek(&mut [0]).is_ok()
    }

    /// The body of a good answer.
    pub(crate) fn answer(mut self, patience: Duration) -> io::Result<String> {
        self.0.set_read_timeout(Some(patience))?;
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        match text.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
            _ => Err(io::Error::other(format!("not a good answer: {text:?}"))),
        }
    }
}
