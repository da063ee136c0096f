//! The small CD with metadata for the guest, for linuxkit (`config`) and cloud-init (`user-data`, `meta-data`).
//!
//! Mounted by a Linux 6.1 guest (isofs, with and without Rock Ridge) the names and contents were exact, for 0 bytes and for 5 MiB.

use std::io::Cursor;
use std::path::PathBuf;

use hadris_iso::joliet::JolietLevel;
use hadris_iso::read::PathSeparator;
use hadris_iso::write::options::{CreationFeatures, IsoFormatOptions};
use hadris_iso::write::{InputEntry, InputMetadata, InputTree, IsoImageWriter};
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

use super::dirs::Directory;

/// The label that cloud-init's NoCloud source looks for.
const LABEL: &str = "cidata";
/// Far more than any configuration; the CD is made in memory.
pub const MAX_DATA_BYTES: usize = 256 << 20;

/// How much of the data's hash is part of the instance's id: enough to tell any two versions of it apart.
const INSTANCE_HASH_BYTES: usize = 8;

/// Why the CD could not be made.
#[derive(Debug, Error)]
pub enum IsoError {
    /// More data than sensible.
    #[error("metadata of {0} bytes is too large (at most {MAX_DATA_BYTES})")]
    TooLarge(usize),
    /// The image could not be put together.
    #[error("cannot make the metadata CD")]
    Format(#[source] hadris_iso::write::IsoCreationError),
    /// The file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl IsoError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        matches!(self, Self::TooLarge(_))
            .then(|| "give the guest a --disk or a --virtiofs folder instead".to_owned())
    }
}

/// Writes the CD to a file in a folder (mode 0600, in one step): `config` and `user-data` with `data`, `meta-data` with the instance's id and host name.
///
/// The id is the machine's UUID and a hash of the data: cloud-init applies what is new once, and nothing twice.
///
/// # Errors
/// Too much data, or of the file system.
pub fn metadata_iso(
    folder: &Directory,
    name: &str,
    data: &[u8],
    machine: Uuid,
    hostname: &str,
) -> Result<PathBuf, IsoError> {
    if data.len() > MAX_DATA_BYTES {
        return Err(IsoError::TooLarge(data.len()));
    }
    let image = image(data, machine, hostname)?;
    let path = folder.path().join(name);
    match folder.write_for_now(name, &image) {
        Ok(()) => Ok(path),
        Err(source) => Err(IsoError::Write { path, source }),
    }
}

fn image(data: &[u8], machine: Uuid, hostname: &str) -> Result<Vec<u8>, IsoError> {
    let hash = Sha256::digest(data);
    let hash: String = hash.iter().take(INSTANCE_HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
    let meta_data = format!("instance-id: {machine}-{hash}\nlocal-hostname: {hostname}\n");
    // root's, and for root only once mounted: there may be passwords and keys in it
    let private = InputMetadata { mode: Some(0o400), uid: Some(0), gid: Some(0), ..InputMetadata::default() };
    let file = |name, contents: &[u8]| InputEntry::file(name, contents).with_metadata(private);
    let files = vec![file("config", data), file("meta-data", meta_data.as_bytes()), file("user-data", data)];
    let options = IsoFormatOptions {
        volume_name: LABEL.to_owned(),
        system_id: None,
        volume_set_id: None,
        publisher_id: None,
        preparer_id: None,
        application_id: None,
        sector_size: 2048,
        path_separator: PathSeparator::ForwardSlash,
        // Rock Ridge for Linux and the BSDs, Joliet for Windows (cloudbase-init)
        features: CreationFeatures { joliet: Some(JolietLevel::Level3), ..CreationFeatures::extensions() },
        strict_charset: false,
    };
    let tree = InputTree::new(PathSeparator::ForwardSlash, files);
    let image = IsoImageWriter::create(Cursor::new(Vec::new()), tree, options).map_err(IsoError::Format)?;
    Ok(image.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::Command;

    use super::super::dirs::StateDir;

    fn samples() -> [Vec<u8>; 5] {
        let noise: Vec<u8> = (0..5u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        [Vec::new(), b"#cloud-config\n".to_vec(), vec![0xff; 2048], (0..=255).collect(), noise]
    }

    fn make(folder: &Path, data: &[u8]) -> PathBuf {
        let state = StateDir::open(folder).unwrap();
        metadata_iso(&state, "metadata.iso", data, Uuid::nil(), "web").unwrap()
    }

    #[test]
    #[cfg_attr(lacks = "isoinfo", ignore = "needs isoinfo")]
    fn isoinfo_reads_what_was_written() {
        let root = tempfile::tempdir().unwrap();
        for data in samples() {
            let path = make(root.path(), &data);
            for namespace in ["-R", "-J"] {
                let read = |arguments: &[&str]| {
                    let output =
                        Command::new("isoinfo").arg("-i").arg(&path).arg(namespace).args(arguments).output();
                    output.unwrap().stdout
                };
                let names = String::from_utf8(read(&["-f"])).unwrap();
                assert_eq!(names, "/config\n/meta-data\n/user-data\n", "{namespace}");
                assert_eq!(read(&["-x", "/config"]), data, "{namespace}");
                assert_eq!(read(&["-x", "/user-data"]), data, "{namespace}");
                let mut sum = Command::new("sh");
                sum.arg("-c").arg("isoinfo -i \"$0\" -R -x /user-data | sha256sum").arg(&path);
                let sum = String::from_utf8(sum.output().unwrap().stdout).unwrap();
                let meta_data = format!("instance-id: {}-{}\nlocal-hostname: web\n", Uuid::nil(), &sum[..16]);
                assert_eq!(read(&["-x", "/meta-data"]), meta_data.as_bytes(), "{namespace}");
            }
            let output = Command::new("isoinfo").arg("-d").arg("-i").arg(&path).output().unwrap();
            assert!(String::from_utf8_lossy(&output.stdout).contains("Volume id: cidata\n"));
        }
    }

    #[test]
    fn is_private_and_replaces_an_old_one() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), b"one");
        let path = make(root.path(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // and the folder's lock
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
        let image = fs::read(&path).unwrap();
        assert!(
            image.windows(3).any(|window| window == b"two")
                && !image.windows(3).any(|window| window == b"one")
        );
    }
}
