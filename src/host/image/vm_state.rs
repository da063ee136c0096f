//! The state of a machine in a qcow2 image, where QEMU's snapshots have it, as the stream that it is.
//!
//! Layout: QEMU's `docs/interop/qcow2.txt`. All numbers are big-endian. The state lies behind the disk's last cluster, in the clusters
//! of the snapshot's own table.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;

const MAGIC: u64 = 0x5146_49fb;
/// Bits of a table's entry that are an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bits of an entry of the second table: compressed, and all zeroes.
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;
/// The fixed part of a snapshot's entry.
const SNAPSHOT: usize = 40;

/// Copies the state of the image's only snapshot, and returns how large it is.
///
/// # Errors
/// It has another number of snapshots, or none that this reads; it cannot be read, or `to` not written.
pub fn copy_vm_state(image: &File, mut to: impl Write) -> io::Result<u64> {
    let header = Header::read(image)?;
    let snapshot = Snapshot::read(image, header.snapshots_at)?;
    let mut position = header.state_begins()?;
    let mut left = snapshot.state_bytes;
    let mut piece = vec![0; 1 << header.cluster_bits];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        match header.find(image, &snapshot, position)? {
            Some(at) => image.read_exact_at(&mut piece[..most], at)?,
            None => piece.fill(0),
        }
        to.write_all(&piece[..most])?;
        left -= most as u64;
        position += piece.len() as u64;
    }
    Ok(snapshot.state_bytes)
}

struct Header {
    cluster_bits: u32,
    disk_bytes: u64,
    snapshots_at: u64,
}

struct Snapshot {
    table_at: u64,
    table_entries: u64,
    state_bytes: u64,
}

impl Header {
    fn read(image: &File) -> io::Result<Self> {
        let mut bytes = [0; 72];
        image.read_exact_at(&mut bytes, 0)?;
        let cluster_bits = u32::try_from(number(&bytes[20..24])).unwrap_or(0);
        // 512 bytes to 2 MiB; one snapshot
        if number(&bytes[..4]) != MAGIC || !(9..=21).contains(&cluster_bits) || number(&bytes[60..64]) != 1 {
            return Err(nonsense("it is no qcow2 image with one snapshot"));
        }
        Ok(Self { cluster_bits, disk_bytes: number(&bytes[24..32]), snapshots_at: number(&bytes[64..72]) })
    }

    /// Bits of a position that one entry of the first table stands for.
    fn table_bits(&self) -> u32 {
        2 * self.cluster_bits - 3
    }

    fn state_begins(&self) -> io::Result<u64> {
        let tables = self.disk_bytes.div_ceil(1 << self.table_bits());
        tables.checked_mul(1 << self.table_bits()).ok_or_else(|| nonsense("its disk is too large"))
    }

    /// Where in the file a position is; `None`: it is all zeroes.
    fn find(&self, image: &File, snapshot: &Snapshot, position: u64) -> io::Result<Option<u64>> {
        let first = position >> self.table_bits();
        if first >= snapshot.table_entries {
            return Err(nonsense("its state is cut off"));
        }
        let table = entry(image, snapshot.table_at, first)? & OFFSET;
        if table == 0 {
            return Ok(None);
        }
        let second = (position >> self.cluster_bits) & ((1 << (self.cluster_bits - 3)) - 1);
        let found = entry(image, table, second)?;
        if found & COMPRESSED != 0 {
            return Err(nonsense("its state is compressed"));
        }
        Ok(Some(found & OFFSET).filter(|at| *at != 0 && found & ZERO == 0))
    }
}

impl Snapshot {
    fn read(image: &File, at: u64) -> io::Result<Self> {
        let mut bytes = [0; SNAPSHOT + 8];
        image.read_exact_at(&mut bytes, at)?;
        let extra_bytes = number(&bytes[36..40]);
        // the size is 64 bits wide where there is room for it
        let state_bytes = if extra_bytes >= 8 { number(&bytes[40..]) } else { number(&bytes[32..36]) };
        let (table_at, table_entries) = (number(&bytes[..8]), number(&bytes[8..12]));
        Ok(Self { table_at, table_entries, state_bytes })
    }
}

fn entry(image: &File, table: u64, index: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    let at = index.checked_mul(8).and_then(|offset| table.checked_add(offset));
    image.read_exact_at(&mut bytes, at.ok_or_else(|| nonsense("a table is nowhere"))?)?;
    Ok(u64::from_be_bytes(bytes))
}

/// A number of up to 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn nonsense(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image with clusters of 512 bytes and a disk of none, whose snapshot has a state of 1100 bytes: its second cluster is zeroes.
    fn image() -> (File, Vec<u8>) {
        let file = tempfile::tempfile().unwrap();
        let put = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).unwrap();
        file.set_len(8 * 512).unwrap();
        put(0, &0x5146_49fb_u32.to_be_bytes());
        put(20, &9_u32.to_be_bytes());
        put(60, &1_u32.to_be_bytes());
        put(64, &512_u64.to_be_bytes());
        // the snapshot: its table, the old size, the extra data
        put(512, &1024_u64.to_be_bytes());
        put(512 + 8, &1_u32.to_be_bytes());
        put(512 + 36, &16_u32.to_be_bytes());
        put(512 + 40, &1100_u64.to_be_bytes());
        put(1024, &(1536_u64 | 1 << 63).to_be_bytes());
        put(1536, &(2048_u64 | 1 << 63).to_be_bytes());
        put(1536 + 16, &2560_u64.to_be_bytes());
        put(2048, &[7; 512]);
        put(2560, &[8; 512]);
        let state = [vec![7; 512], vec![0; 512], vec![8; 76]].concat();
        (file, state)
    }

    #[test]
    fn the_state_is_found_where_the_snapshot_has_it() {
        let (file, state) = image();
        let mut copied = Vec::new();
        assert_eq!(copy_vm_state(&file, &mut copied).unwrap(), 1100);
        assert!(copied == state);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (at, bytes) in [
            (0, &b"x"[..]),
            // clusters, snapshots, where the snapshot is, its table
            (20, &[9, 9, 9, 9]),
            (60, &[0, 0, 0, 2]),
            (64, &[0xff; 8]),
            (512, &[0xff; 8]),
            (512 + 8, &[0; 4]),
            (512 + 40, &[0, 0, 1, 0, 0, 0, 0, 0]),
            // a disk larger than any, and a compressed cluster
            (24, &[0xff; 8]),
            (1536, &[0x40]),
        ] {
            let (file, _) = image();
            file.write_all_at(bytes, at).unwrap();
            copy_vm_state(&file, io::sink()).unwrap_err();
        }
    }
}
