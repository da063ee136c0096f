//! The same as client.c in Rust: what a program of this language takes that does nothing else.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (socket, mut message) = (arguments.next().unwrap(), arguments.next().unwrap());
    message.push('\0');
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(message.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while answer.last() != Some(&0) {
        let mut bytes = [0; 65536];
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0);
        answer.extend_from_slice(&bytes[..count]);
    }
    println!("{}", answer.len());
}
