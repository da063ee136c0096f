//! The guest's serial console: always drained, kept, and sent to readers, each at its own speed.
//!
//! An undrained console blocks the guest (a full pipe or socket is enough). So QEMU's end is always read; readers have positions in
//! a ring of recent output, and lose what they were too slow for.

/// Target of log records that answer a user at the console: they are no warnings, but always shown.
pub const ANSWER: &str = "vmrun::answer";

mod escape;
mod foreground;
mod harmless;
mod hub;
mod last_line;
mod log_file;
mod pump;
mod stdio;
mod terminal;

pub use escape::EscapeKey;
pub use foreground::{OnSuspend, is_watched};
pub use harmless::Harmless;
pub use hub::{Chunk, From, Hub, Reader};
pub use last_line::{LastLine, progress};
pub use terminal::{Attached, attach, must_end_line};

pub(super) use log_file::{CURRENT as LOG, ConsoleLog};
pub use pump::Console;
pub(super) use pump::connect;

/// The fuzzer's entry to the console's keys: split input means the same as whole input, and no byte is lost.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_escape(bytes: &[u8], size: usize) {
    use escape::{Escape, Typed};
    let joined = |all: Vec<Typed>| {
        let mut joined: Vec<Typed> = Vec::new();
        for typed in all {
            match (joined.last_mut(), typed) {
                (Some(Typed::Bytes(before)), Typed::Bytes(bytes)) => before.extend(bytes),
                (_, typed) => joined.push(typed),
            }
        }
        joined
    };
    let mut escape = Escape::new(EscapeKey::default());
    let pieces = joined(bytes.chunks(size).flat_map(|piece| escape.split(piece)).collect());
    assert_eq!(pieces, joined(Escape::new(EscapeKey::default()).split(bytes)));
}
