//! Disk images: which format they have, what other files they lead to, and making new ones.
//!
//! An own reader of headers, since QEMU's guess may be steered by the guest that wrote the image.

mod create;
mod foreign;
mod graph;
mod header;
mod qcow2;
mod vmdk;

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nix::libc;
use thiserror::Error;

pub use create::{CreateError, SECTOR, begin, create, create_overlay, finish, grow};
pub use foreign::Foreign;
pub use graph::{BackingError, Known, resolve};
pub use header::{Found, Header, HeaderError, parse};

use crate::spec::{FileId, ImageFormat};

/// As much of an image as its header can reach: a qcow2 cluster is 2 MiB at most, and the header lies in the first.
const HEADER_BYTES: u64 = 2 << 20;
/// The marks of all formats but two lie in these: an image that has none in here is raw, and the rest of it need not be read.
const MARK_BYTES: u64 = 4 << 10;
/// The two have theirs in the last of these.
const FOOTER_BYTES: u64 = 512;

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its format.
    pub format: ImageFormat,
    /// How large the guest sees it, in bytes, where that is simple to know.
    pub virtual_size_bytes: Option<u64>,
    /// The image under it.
    pub backing: Option<Backing>,
    /// Files with its data (qcow2's external data file, vmdk's extents), as named in it.
    pub data_files: Vec<DataFile>,
}

/// The image under an image, as named in its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// Its name: any bytes.
    pub name: Vec<u8>,
    /// Its format, if the header says so; else QEMU guesses.
    pub format: Option<String>,
}

/// A file with an image's data, as named in its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Its name: any bytes.
    pub name: Vec<u8>,
    /// It is opened as bytes; else it has a header that may lead further.
    pub raw: bool,
    /// QEMU looks for it from its own working directory, not from the image's folder.
    pub from_working_directory: bool,
}

/// Why an image cannot be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// Not there.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// A directory.
    #[error("{} is a directory, not an image", .0.display())]
    Directory(PathBuf),
    /// A pipe, a socket, a terminal…
    #[error("{} is neither a file nor a block device", .0.display())]
    Special(PathBuf),
    /// No permission.
    #[error("{} may not be read: mode {mode:04o}, owned by uid {uid} and gid {gid}", path.display())]
    Forbidden {
        /// The image.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// Nothing is in it.
    #[error("{} is empty (0 bytes)", .0.display())]
    Empty(PathBuf),
    /// Encrypted, which vmrun has no key for.
    #[error("{} is encrypted with LUKS", .0.display())]
    Luks(PathBuf),
    /// Something else than a disk, or of a format that vmrun does not take.
    #[error("{} is {}: no disk that vmrun can use", path.display(), foreign.what)]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        foreign: &'static Foreign,
    },
    /// Its header makes no sense.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        source: HeaderError,
    },
    /// It is not what was said.
    #[error("{} is {found}, not {asked}", path.display())]
    Contradiction {
        /// The image.
        path: PathBuf,
        /// What was said.
        asked: ImageFormat,
        /// What its header says.
        found: ImageFormat,
    },
    /// Anything else.
    #[error("cannot read {}", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ImageError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Empty(path) => {
                Some(format!("was it interrupted while it was made? remove '{}'", path.display()))
            }
            Self::Luks(_) => Some("give format=raw to hand it to the guest as it is".to_owned()),
            Self::Foreign { path, foreign } => Some(format!(
                "{}; to hand its bytes to the guest as they are, say `format=raw`",
                foreign.help(path)
            )),
            Self::Contradiction { .. } => Some("leave format= away to have it found".to_owned()),
            Self::Forbidden { .. } => Some("run as its owner, or change its permissions".to_owned()),
            Self::Missing(_)
            | Self::Directory(_)
            | Self::Special(_)
            | Self::Damaged { .. }
            | Self::Io { .. } => None,
        }
    }
}

/// Whether an image is there and can be read, whatever is in it; its size in bytes.
///
/// # Errors
/// It is missing, unreadable, empty, or no image at all.
pub fn look(path: &Path) -> Result<u64, ImageError> {
    OpenFile::open(path).map(|file| file.size)
}

/// Looks at an image.
///
/// # Errors
/// It is missing, unreadable, empty, encrypted, damaged, or no image at all.
pub fn inspect(path: &Path) -> Result<ImageFacts, ImageError> {
    OpenFile::open(path)?.inspect()
}

/// A file that has been opened once: what is said of it is true of one and the same file, whatever happens to its name.
struct OpenFile {
    /// As it was named.
    path: PathBuf,
    file: File,
    facts: Metadata,
    size: u64,
    real: PathBuf,
}

impl OpenFile {
    /// Opens a file or a block device for reading; never hangs on a pipe.
    fn open(path: &Path) -> Result<Self, ImageError> {
        let (mut file, facts) = open(path)?;
        let io = |source| ImageError::Io { path: path.to_owned(), source };
        let size = if facts.is_file() { facts.len() } else { file.seek(SeekFrom::End(0)).map_err(io)? };
        if size == 0 {
            return Err(ImageError::Empty(path.to_owned()));
        }
        let real = real_path(&file, path).map_err(io)?;
        Ok(Self { path: path.to_owned(), file, facts, size, real })
    }

    /// Where it lies, links followed.
    fn real(&self) -> &Path {
        &self.real
    }

    fn file(&self) -> &File {
        &self.file
    }

    fn id(&self) -> FileId {
        file_id(&self.facts)
    }

    fn identity(&self) -> Result<ImageIdentity, ImageError> {
        ImageIdentity::from_facts(&self.facts, &self.real)
    }

    fn inspect(&self) -> Result<ImageFacts, ImageError> {
        let io = |source| ImageError::Io { path: self.path.clone(), source };
        let mut file = &self.file;
        file.rewind().map_err(io)?;
        let mut start = Vec::new();
        file.by_ref().take(MARK_BYTES).read_to_end(&mut start).map_err(io)?;
        if parse(&start) != Ok(Found::Raw) {
            file.by_ref().take(HEADER_BYTES - MARK_BYTES).read_to_end(&mut start).map_err(io)?;
        }
        match parse(&start) {
            Ok(Found::Luks) => Err(ImageError::Luks(self.path.clone())),
            Ok(Found::Foreign(foreign)) => Err(ImageError::Foreign { path: self.path.clone(), foreign }),
            Ok(Found::Raw) => self.inspect_end(),
            Ok(Found::Image(Header { format, virtual_size_bytes, backing, data_files })) => {
                Ok(ImageFacts { format, virtual_size_bytes, backing, data_files })
            }
            Err(source) => Err(ImageError::Damaged { path: self.path.clone(), source }),
        }
    }
}

impl OpenFile {
    /// What shows no format at its start may do so at its end.
    fn inspect_end(&self) -> Result<ImageFacts, ImageError> {
        let path = || self.path.clone();
        let mut end = [0; FOOTER_BYTES as usize];
        if let Some(offset) = self.size.checked_sub(FOOTER_BYTES) {
            let io = |source| ImageError::Io { path: path(), source };
            self.file.read_exact_at(&mut end, offset).map_err(io)?;
        }
        if let Some(foreign) = foreign::at_end(&self.path, &end) {
            return Err(ImageError::Foreign { path: path(), foreign });
        }
        let damaged = |source| ImageError::Damaged { path: path(), source };
        let format = header::parse_end(&end).map_err(damaged)?.unwrap_or(ImageFormat::Raw);
        let virtual_size_bytes = (format == ImageFormat::Raw).then_some(self.size);
        Ok(ImageFacts { format, virtual_size_bytes, backing: None, data_files: Vec::new() })
    }
}

/// Which file this is, for as long as the host runs.
pub fn file_id(facts: &Metadata) -> FileId {
    match facts.file_type().is_block_device() {
        true => FileId { device: facts.rdev(), inode: 0 },
        false => FileId { device: facts.dev(), inode: facts.ino() },
    }
}

/// The kernel's own name of an open file: the one that it was opened by may lead elsewhere by now.
fn real_path(file: &File, path: &Path) -> io::Result<PathBuf> {
    match fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) {
        Ok(real) => Ok(real),
        Err(_) => path.canonicalize(),
    }
}

fn open(path: &Path) -> Result<(File, Metadata), ImageError> {
    let path = path.to_owned();
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ImageError::Missing(path.clone()),
        _ => ImageError::Io { path: path.clone(), source },
    };
    let named = fs::metadata(&path).map_err(io)?;
    check_kind(&path, &named)?;
    match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path) {
        Ok(file) => {
            // it may be another by now
            let facts = file.metadata().map_err(io)?;
            check_kind(&path, &facts)?;
            Ok((file, facts))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(ImageError::Forbidden {
            mode: named.mode() & 0o7777,
            uid: named.uid(),
            gid: named.gid(),
            path,
        }),
        Err(source) => Err(io(source)),
    }
}

fn check_kind(path: &Path, facts: &Metadata) -> Result<(), ImageError> {
    if facts.is_dir() {
        return Err(ImageError::Directory(path.to_owned()));
    }
    if !facts.is_file() && !facts.file_type().is_block_device() {
        return Err(ImageError::Special(path.to_owned()));
    }
    Ok(())
}

/// Holds what was said about an image against what was found. Anything may be used as raw.
///
/// # Errors
/// They contradict each other.
pub fn check_format(path: &Path, asked: ImageFormat, found: ImageFormat) -> Result<(), ImageError> {
    if asked == found || asked == ImageFormat::Raw {
        return Ok(());
    }
    Err(ImageError::Contradiction { path: path.to_owned(), asked, found })
}

/// Says which file an image is, whatever is written to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageIdentity(String);

impl ImageIdentity {
    /// The identity of the image at `path`: inode and time of birth (device numbers change between boots); inode and device where a
    /// file system does not know births; a block device's path, since its node is made anew at every boot.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn of(path: &Path) -> Result<Self, ImageError> {
        let facts = fs::metadata(path).map_err(|source| ImageError::Io { path: path.to_owned(), source })?;
        Self::from_facts(&facts, path)
    }

    fn from_facts(facts: &Metadata, path: &Path) -> Result<Self, ImageError> {
        if facts.file_type().is_block_device() {
            let io = |source| ImageError::Io { path: path.to_owned(), source };
            let path = path.canonicalize().map_err(io)?;
            return Ok(Self(format!("block {}", path.display())));
        }
        let born = facts.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(Self(match born {
            Some(born) => format!("inode {} born {}.{:09}", facts.ino(), born.as_secs(), born.subsec_nanos()),
            None => format!("inode {} device {}", facts.ino(), facts.dev()),
        }))
    }

    /// For tests of other file systems than this machine's.
    #[cfg(test)]
    pub(in crate::host) fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn qemu_img(arguments: &[&str]) {
        let output = Command::new("qemu-img").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn knows_what_qemu_img_makes() {
        let root = tempfile::tempdir().unwrap();
        for (name, format, sized) in [
            ("raw", ImageFormat::Raw, true),
            ("qcow2", ImageFormat::Qcow2, true),
            ("vmdk", ImageFormat::Vmdk, true),
            ("vdi", ImageFormat::Vdi, true),
            ("vhdx", ImageFormat::Vhdx, false),
            ("vpc", ImageFormat::Vpc, false),
            ("qed", ImageFormat::Qed, true),
        ] {
            let path = root.path().join(name);
            qemu_img(&["create", "-q", "-f", name, path.to_str().unwrap(), "64M"]);
            let facts = inspect(&path).unwrap();
            assert_eq!(facts.format, format, "{name}");
            assert_eq!(facts.virtual_size_bytes, sized.then_some(64 << 20), "{name}");
            assert_eq!((facts.backing, facts.data_files.len()), (None, 0), "{name}");
        }
    }

    /// What QEMU takes a file for, left to itself; none if it took it for something and then could not open it.
    fn probed_by_qemu(path: &Path) -> Option<String> {
        let output = Command::new("qemu-img").args(["info", "--output=json"]).arg(path).output().unwrap();
        let facts: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        facts["format"].as_str().map(str::to_owned)
    }

    #[test]
    fn nothing_that_qemu_takes_for_something_else_is_raw() {
        let root = tempfile::tempdir().unwrap();
        let written = |name: &str, offset: usize, mark: &[u8]| {
            let path = root.path().join(name);
            let mut bytes = vec![0; 64 << 10];
            bytes[offset..offset + mark.len()].copy_from_slice(mark);
            fs::write(&path, bytes).unwrap();
            path
        };
        let made = |format: &str, options: &str| {
            let path = root.path().join(format!("{format}{options}"));
            let name = path.to_str().unwrap();
            match options {
                "" => qemu_img(&["create", "-q", "-f", format, name, "64M"]),
                _ => qemu_img(&["create", "-q", "-f", format, "-o", options, name, "64M"]),
            }
            path
        };
        let mut parallels = b"WithoutFreeSpace\x02\0\0\0".to_vec();
        let bochs = [
            &b"Bochs Virtual HD Image"[..],
            &[0; 10],
            b"Redolog",
            &[0; 9],
            b"Growing",
            &[0; 9],
            b"\0\0\x02\0",
        ];
        let bochs = bochs.concat();
        let cloop = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";
        let mut files = vec![
            written("parallels", 0, &parallels),
            written("bochs", 0, &bochs),
            written("cloop", 0, cloop),
            written("qcow", 0, b"QFI\xfb\0\0\0\x01"),
            written("qcow2", 0, b"QFI\xfb\0\0\0\x02"),
            written("qcow3", 0, b"QFI\xfb\0\0\0\x03"),
            written("qed", 0, b"QED\0"),
            written("vdi", 0x40, b"\x7f\x10\xda\xbe"),
            written("vhdx", 0, b"vhdxfile"),
            written("vpc", 0, b"conectix"),
            written("vmdk3", 0, b"COWD"),
            written("vmdk4", 0, b"KDMV"),
            written("vmdk.text", 0, b"# comment\nversion=1\nCID=1\n"),
            written("luks", 0, b"LUKS\xba\xbe\0\x01"),
            written("apple.dmg", 0, b""),
            made("vpc", "subformat=dynamic"),
            made("vmdk", "subformat=monolithicFlat"),
            made("vmdk", "subformat=streamOptimized"),
        ];
        parallels[..16].copy_from_slice(b"WithouFreSpacExt");
        files.push(written("parallels.ext", 0, &parallels));
        // not luks: qemu-img measures the processor for its key, and fails on a machine that is busy
        let made = ["qcow", "qcow2", "qed", "vdi", "vhdx", "vmdk", "parallels"];
        for format in made {
            let path = root.path().join(format!("made.{format}"));
            let name = path.to_str().unwrap();
            qemu_img(&["create", "-q", "-f", format, name, "1M"]);
            files.push(path);
        }
        for path in &files {
            let name = path.display();
            assert_ne!(probed_by_qemu(path).as_deref(), Some("raw"), "{name} shows nothing here");
            let ours = inspect(path);
            assert!(!matches!(&ours, Ok(facts) if facts.format == ImageFormat::Raw), "{name}: {ours:?}");
        }
        assert_eq!(probed_by_qemu(&written("raw", 0, b"")).as_deref(), Some("raw"));
    }

    #[test]
    fn a_vhd_of_fixed_size_is_known_by_its_end() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("fixed.vhd");
        qemu_img(&["create", "-q", "-f", "vpc", "-o", "subformat=fixed", path.to_str().unwrap(), "8M"]);
        assert_eq!(fs::read(&path).unwrap()[..8], [0; 8]);
        assert_eq!(inspect(&path).unwrap().format, ImageFormat::Vpc);
        // a dynamic one that has lost its beginning
        let bytes = fs::read(&path).unwrap();
        let mut lost = bytes.clone();
        lost[bytes.len() - 512 + 63] = 3;
        fs::write(&path, lost).unwrap();
        assert!(matches!(inspect(&path), Err(ImageError::Damaged { .. })));
    }

    #[test]
    fn says_what_is_wrong() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("empty"), "").unwrap();
        fs::write(at("luks"), b"LUKS\xba\xbe\0\x02").unwrap();
        fs::write(at("short"), b"QFI\xfb\0\0\0\x03").unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(inspect(&at("none")), Err(ImageError::Missing(_))));
        assert!(matches!(inspect(root.path()), Err(ImageError::Directory(_))));
        assert!(matches!(inspect(&at("empty")), Err(ImageError::Empty(_))));
        assert!(matches!(inspect(&at("luks")), Err(ImageError::Luks(_))));
        assert!(matches!(inspect(&at("short")), Err(ImageError::Damaged { .. })));
        assert!(matches!(inspect(&at("pipe")), Err(ImageError::Special(_))));
        assert!(matches!(inspect(Path::new("/dev/null")), Err(ImageError::Special(_))));
    }

    #[test]
    fn a_contradiction_is_an_error_but_anything_may_be_raw() {
        let path = Path::new("a");
        check_format(path, ImageFormat::Raw, ImageFormat::Qcow2).unwrap();
        let error = check_format(path, ImageFormat::Qcow2, ImageFormat::Raw).unwrap_err();
        assert_eq!(error.to_string(), "a is raw, not qcow2");
    }
}
