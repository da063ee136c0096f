//! Whether this host can read and write an image in the way that was asked for: looked at before QEMU is, which would say so in words
//! of its own, and late.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use thiserror::Error;

use crate::spec::{AioMode, CacheMode, DiskOptions};

use super::sys;

/// Why it cannot.
#[derive(Debug, Error)]
pub enum DiskIoError {
    /// The file system has no `O_DIRECT`.
    #[error("cache={cache}: the file system of {path} cannot go past the page cache (it has no O_DIRECT)")]
    Direct {
        /// What was asked for.
        cache: CacheMode,
        /// The file.
        path: PathBuf,
    },
    /// The kernel, or what this process may do, does not allow it.
    #[error("aio=io_uring: this system does not let programs use io_uring ({0})")]
    IoUring(std::io::Error),
}

impl DiskIoError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Direct { .. } => {
                "leave `cache=` out, or use cache=writeback, writethrough or unsafe".to_owned()
            }
            Self::IoUring(_) => "leave `aio=` out, or use aio=threads".to_owned(),
        })
    }
}

/// Checks the files of an image.
///
/// # Errors
/// The file system or the kernel cannot do what the options say.
pub fn check<'a>(
    options: &DiskOptions,
    files: impl IntoIterator<Item = &'a Path>,
) -> Result<(), DiskIoError> {
    if options.aio == Some(AioMode::IoUring) {
        sys::try_io_uring().map_err(DiskIoError::IoUring)?;
    }
    if let Some(cache) = options.cache.filter(|cache| cache.is_direct()) {
        for file in files {
            if !can_be_direct(file) {
                return Err(DiskIoError::Direct { cache, path: file.to_owned() });
            }
        }
    }
    Ok(())
}

/// Linux refuses to open a file directly, with `EINVAL`, where its file system cannot (open(2)). Whatever else is wrong with the file
/// is not for here.
fn can_be_direct(file: &Path) -> bool {
    let flags = libc::O_NONBLOCK | libc::O_DIRECT;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(file);
    opened.err().and_then(|error| error.raw_os_error()) != Some(libc::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_not_open_directly_is_refused() {
        // /proc has never had direct I/O
        let file = Path::new("/proc/self/status");
        let direct = |cache| DiskOptions { cache: Some(cache), ..DiskOptions::default() };
        let error = check(&direct(CacheMode::None), [file]).unwrap_err();
        assert!(error.to_string().starts_with("cache=none: the file system of /proc/self/status"), "{error}");
        assert!(error.hint().is_some());
        check(&direct(CacheMode::Writethrough), [file]).unwrap();
        check(&direct(CacheMode::Directsync), [Path::new("/no/such/file")]).unwrap();
    }
}
