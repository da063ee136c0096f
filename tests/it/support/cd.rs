//! A CD that boots one of the boot-sector guests: as little of ISO 9660 and El Torito as a BIOS looks at.

use std::path::Path;

use super::boot_sector::{self, Guest};

const SECTOR: usize = 2048;
/// Sector 16 is the primary volume descriptor, 17 El Torito's boot record, 18 ends the list.
const DESCRIPTORS: [(usize, u8); 3] = [(16, 1), (17, 0), (18, 255)];
const CATALOG: usize = 19;
const IMAGE: usize = 20;

/// Writes the CD to `path`.
pub(crate) fn write(guest: Guest, path: &Path) {
    let mut cd = vec![0; (IMAGE + 12) * SECTOR];
    for (sector, kind) in DESCRIPTORS {
        put(&mut cd, sector, 0, &[kind]);
        put(&mut cd, sector, 1, b"CD001\x01");
    }
    put(&mut cd, 17, 7, b"EL TORITO SPECIFICATION");
    put(&mut cd, 17, 0x47, &number(CATALOG));
    // validation entry for x86: its 16-bit words add up to 0
    put(&mut cd, CATALOG, 0, &[1]);
    put(&mut cd, CATALOG, 28, &[0xaa, 0x55, 0x55, 0xaa]);
    // default entry: bootable, no emulation, loaded at 7c00, one sector of 512 bytes
    put(&mut cd, CATALOG, 32, &[0x88, 0, 0, 0, 0, 0, 1, 0]);
    put(&mut cd, CATALOG, 40, &number(IMAGE));
    put(&mut cd, IMAGE, 0, &boot_sector::boot_sector(guest));
    std::fs::write(path, cd).unwrap();
}

fn put(cd: &mut [u8], sector: usize, offset: usize, bytes: &[u8]) {
    let at = sector * SECTOR + offset;
    cd[at..at + bytes.len()].copy_from_slice(bytes);
}

fn number(sector: usize) -> [u8; 4] {
    u32::try_from(sector).unwrap().to_le_bytes()
}
