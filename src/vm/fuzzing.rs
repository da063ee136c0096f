//! The fuzzer's entry to what is private here.

use regex_lite::Regex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host;

use super::console::{EscapeKey, From, Hub, fuzz_escape};
use super::wait::find_line;
use crate::vm::changes::saving::Saved;
use crate::vm::changes::snapshots::Entries;
use crate::vm::launch::prepare::fuzz_restored;
use crate::vm::state::journal::Pending;
use crate::vm::state::outcome::Outcome;
use crate::vm::state::plugged::Record;
use crate::vm::state::vm_file::VmFile;

pub(crate) fn saved(bytes: &[u8]) {
    let (file, path) = host::fuzzing::file(bytes);
    // otherwise all of them were cut off
    file.set_len(1 << 20).expect("memory");
    match host::saved::open(&path) {
        Ok((description, _)) => {
            again::<Saved>(&description);
            if let Ok(saved) = serde_json::from_slice::<Saved>(&description) {
                fuzz_restored(&saved);
            }
        }
        Err(error) => drop(error.to_string()),
    }
    again::<Saved>(bytes);
}

pub(crate) fn state_files(bytes: &[u8]) {
    again::<VmFile>(bytes);
    again::<Pending>(bytes);
    again::<Entries>(bytes);
    again::<Outcome>(bytes);
    again::<Record>(bytes);
    if let Ok(record) = serde_json::from_slice::<Record>(bytes) {
        record.arguments();
    }
    host::fuzzing::formats(bytes);
}

/// What can be parsed is written and parsed back unchanged.
fn again<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    match serde_json::from_slice::<T>(bytes) {
        Ok(value) => {
            let written = serde_json::to_vec(&value).expect("it was JSON");
            let read: T = serde_json::from_slice(&written).expect("vmrun reads what it writes");
            assert_eq!(serde_json::to_vec(&read).expect("it was JSON"), written);
        }
        Err(error) => drop(error.to_string()),
    }
}

/// Split keys mean the same as whole ones; readers get all of the guest's output, and lines are found.
pub(crate) fn console(bytes: &[u8]) {
    if let Ok(key) = String::from_utf8_lossy(bytes).parse::<EscapeKey>() {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    let [size, bytes @ ..] = bytes else { return };
    let size = usize::from(*size).max(1);
    fuzz_escape(bytes, size);

    let hub = Hub::default();
    let (mut reader, looking) = (hub.reader(From::Start), hub.reader(From::Start));
    for piece in bytes.chunks(size) {
        hub.push(piece);
    }
    hub.close();
    let mut read = Vec::new();
    while let Some(chunk) = reader.try_next() {
        assert_eq!(chunk.skipped, 0);
        read.extend(chunk.bytes);
    }
    assert_eq!(read, bytes);
    let regex = Regex::new("a(b+)c").expect("an expression");
    let there = bytes.split(|byte| *byte == b'\n').any(|line| regex.is_match(&String::from_utf8_lossy(line)));
    // for its timer, which never expires (the output has ended), and for the search's thread
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let found = runtime.block_on(find_line(looking, regex));
    assert_eq!(found.is_some(), there);
}
