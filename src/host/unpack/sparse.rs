//! Writes a stream into a file, with holes where there are zeros.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;

/// What is looked at for zeros: a file system's blocks are smaller, and a hole of this size is worth one.
const BLOCK: usize = 64 << 10;
/// Between two looks at how far it is.
const REPORT: u64 = 4 << 20;
/// Zeros take no room, but time: an image of more than this is one only if it would fit.
const MAX_BYTES: u64 = 1 << 40;

/// Copies all of it. `room`: as many bytes of data may be written.
pub(super) fn copy(
    from: &mut impl Read,
    to: &File,
    room: u64,
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let limit = MAX_BYTES.max(room);
    let (mut block, mut total, mut written, mut reported) = (vec![0; BLOCK], 0, 0, 0);
    loop {
        let count = fill(from, &mut block)?;
        if count == 0 {
            break;
        }
        let data = &block[..count];
        if data.iter().any(|byte| *byte != 0) {
            written += count as u64;
            if written > room {
                let why = format!("more than {room} bytes of data are in it, and no more fit on the disk");
                return Err(io::Error::new(ErrorKind::StorageFull, why));
            }
            to.write_all_at(data, total)?;
        }
        total += count as u64;
        if total > limit {
            let why = format!("more than {limit} bytes are in it, nearly all of them zeros");
            return Err(io::Error::new(ErrorKind::FileTooLarge, why));
        }
        if total - reported >= REPORT {
            reported = total;
            progress(total);
        }
    }
    to.set_len(total)
}

/// Reads until the buffer is full or there is no more.
fn fill(from: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < block.len() {
        match from.read(&mut block[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_become_holes_and_nothing_is_lost() {
        let mut bytes = vec![0; 5 << 20];
        bytes[3 << 20] = 7;
        bytes.extend([1; 1000]);
        bytes.extend([0; 10]);
        let file = tempfile::tempfile().unwrap();
        let mut seen = Vec::new();
        copy(&mut &bytes[..], &file, 1 << 20, &mut |total| seen.push(total)).unwrap();
        let mut read = vec![1; bytes.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes && file.metadata().unwrap().len() == bytes.len() as u64);
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
        assert_eq!(seen, [4 << 20]);
    }

    #[test]
    fn what_does_not_fit_ends_it() {
        let file = tempfile::tempfile().unwrap();
        let error = copy(&mut io::repeat(1), &file, 1 << 20, &mut |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(file.metadata().unwrap().blocks() * 512 <= 1 << 20);
    }
}
