//! Opens an image and reads as much of it as its format needs to be recognised.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use super::{Found, Header, ImageError, ImageFacts, ImageIdentity, file_id, foreign, header, parse};
use crate::spec::{FileId, ImageFormat};

/// As much of an image as its header can reach: a qcow2 cluster is 2 MiB at most, and the header lies in the first.
const HEADER_BYTES: u64 = 2 << 20;
/// The marks of all formats but two lie in these: an image that has none in here is raw, and the rest of it need not be read.
const MARK_BYTES: u64 = 4 << 10;
/// The two have theirs in the last of these.
const FOOTER_BYTES: u64 = 512;

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
pub(super) struct OpenFile {
    /// As it was named.
    path: PathBuf,
    file: File,
    facts: Metadata,
    size: u64,
    real: PathBuf,
}

impl OpenFile {
    /// Opens a file or a block device for reading; never hangs on a pipe.
    pub(super) fn open(path: &Path) -> Result<Self, ImageError> {
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
    pub(super) fn real(&self) -> &Path {
        &self.real
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn id(&self) -> FileId {
        file_id(&self.facts)
    }

    pub(super) fn identity(&self) -> Result<ImageIdentity, ImageError> {
        ImageIdentity::from_facts(&self.facts, &self.real)
    }

    pub(super) fn inspect(&self) -> Result<ImageFacts, ImageError> {
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
