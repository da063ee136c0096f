//! Which file of an archive is the image.

use super::{Packing, UnpackError};

/// An archive with more names than this holds no appliance.
pub(super) const MAX_LIST_BYTES: u64 = 1 << 20;

const IMAGES: [&str; 9] = ["qcow2", "raw", "img", "iso", "vmdk", "vdi", "vhd", "vhdx", "qed"];
const PACKED: [&str; 7] = ["xz", "gz", "zst", "bz2", "lz4", "lz", "tar"];

/// The first that is called like an image; or the only one that there is.
pub(super) fn image(listing: &str, packing: Packing) -> Result<&str, UnpackError> {
    let names: Vec<&str> = listing.lines().filter(|name| !name.is_empty() && !name.ends_with('/')).collect();
    let mut images = names.iter().filter(|name| is_image(name));
    let found = match (images.next(), &names[..]) {
        (Some(first), _) => {
            let others = images.count();
            if others > 0 {
                log::warn!("of {} images in the archive only '{first}' is unpacked", others + 1);
            }
            first
        }
        (None, [only]) => only,
        (None, []) => return Err(UnpackError::NoImage("nothing".to_owned())),
        (None, all) => {
            let more = if all.len() > 5 { ", …" } else { "" };
            let names: Vec<String> = all.iter().take(5).map(|name| format!("'{name}'")).collect();
            return Err(UnpackError::NoImage(names.join(", ") + more));
        }
    };
    // unzip takes these for a pattern, and the first for an option
    let is_plain = !found.contains(['*', '?', '[', ']', '\\']) && !found.starts_with('-');
    if packing == Packing::Zip && !is_plain {
        return Err(UnpackError::NoImage(format!("'{found}', whose name unzip cannot be told")));
    }
    Ok(found)
}

/// By its extension, behind which there may be another of a packing.
fn is_image(name: &str) -> bool {
    let is_one_of =
        |list: &[&str], extension: &str| list.iter().any(|known| extension.eq_ignore_ascii_case(known));
    match name.rsplit_once('.') {
        Some((_, extension)) if is_one_of(&IMAGES, extension) => true,
        Some((stem, extension)) if is_one_of(&PACKED, extension) => {
            stem.rsplit_once('.').is_some_and(|(_, extension)| is_one_of(&IMAGES, extension))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_image_or_the_only_file_is_meant() {
        let found = |listing: &str| image(listing, Packing::Tar).map(str::to_owned);
        assert_eq!(found("box.ovf\nbox.mf\nbox-disk1.vmdk\nbox-disk2.vmdk\n").unwrap(), "box-disk1.vmdk");
        assert_eq!(found("./\n./disk.raw\n").unwrap(), "./disk.raw");
        assert_eq!(found("a/readme.txt\na/disk.IMG.gz\n").unwrap(), "a/disk.IMG.gz");
        assert_eq!(found("debian\n").unwrap(), "debian");
        assert!(found("a.txt\nb.gz\n").unwrap_err().to_string().contains("'a.txt', 'b.gz'"));
        assert!(found("").unwrap_err().to_string().contains("nothing"));
    }

    #[test]
    fn a_name_is_no_pattern_and_no_option() {
        for name in ["a[1].img", "-d.img", "*.img"] {
            assert!(image(name, Packing::Zip).is_err(), "{name}");
            assert_eq!(image(name, Packing::Tar).unwrap(), name);
        }
    }
}
