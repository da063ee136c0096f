//! Which files an image leads to, and whether it may.
//!
//! An image from elsewhere can name any file of the host as its backing or data file, and the guest would read it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{DataFile, ImageError, ImageFacts, inspect, look};

/// How deep a chain may be: longer ones are slow and mostly mistakes.
const MAX_DEPTH: usize = 16;
/// How many files there may be in all: a split vmdk has one for each 2 GB.
const MAX_FILES: usize = 1024;

/// Why the files that an image leads to are refused.
#[derive(Debug, Error)]
pub enum BackingError {
    /// The name is not a file's.
    #[error("{} names '{name}', which is not a plain file name", image.display())]
    Protocol {
        /// The image that names it.
        image: PathBuf,
        /// As named.
        name: String,
    },
    /// Neither in the image's own folder nor allowed.
    #[error("{} leads to {}, which is outside its own folder", image.display(), file.display())]
    Outside {
        /// The image that names it.
        image: PathBuf,
        /// What it names.
        file: PathBuf,
    },
    /// It cannot be used.
    #[error("{} needs a file that cannot be used", image.display())]
    Unusable {
        /// The image that names it.
        image: PathBuf,
        /// Why.
        source: ImageError,
    },
    /// A format that vmrun does not look into.
    #[error("{} says that its backing file has the format '{format}'", image.display())]
    Format {
        /// The image that says so.
        image: PathBuf,
        /// The format.
        format: String,
    },
    /// Relative, but not to the image.
    #[error(
        "{} names its data file '{name}', which QEMU would look for in its working directory",
        image.display()
    )]
    Relative {
        /// The image that names it.
        image: PathBuf,
        /// As named.
        name: String,
    },
    /// Too many, or a loop.
    #[error("{} leads to more than {MAX_DEPTH} images under each other, or in a circle", image.display())]
    TooDeep {
        /// The image at the top.
        image: PathBuf,
    },
    /// The image itself cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl BackingError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Outside { file, .. } => {
                Some(format!("if you trust the image: --allow-backing '{}'", file.display()))
            }
            Self::Protocol { .. } | Self::Format { .. } | Self::TooDeep { .. } | Self::Relative { .. } => {
                Some("`qemu-img convert` makes one image of it".to_owned())
            }
            Self::Unusable { source, .. } | Self::Image(source) => source.hint(),
        }
    }
}

/// Follows an image to all the files that QEMU would open with it.
/// They must be in the folder of `path` (links followed), or be or lie in something of `allow`.
///
/// # Errors
/// The first file that may not or cannot be used.
pub fn check_backing(path: &Path, allow: &[PathBuf]) -> Result<(), BackingError> {
    let io = |source| ImageError::Io { path: path.to_owned(), source };
    let path = std::path::absolute(path).map_err(io)?;
    let folder = path.parent().unwrap_or(Path::new("/")).canonicalize().map_err(io)?;
    let allowed: Vec<PathBuf> =
        allow.iter().filter_map(|path| path.canonicalize().ok()).chain([folder]).collect();

    let mut files = 0;
    let mut queue = VecDeque::from([(path.clone(), inspect(&path)?, 1)]);
    while let Some((image, facts, depth)) = queue.pop_front() {
        for reference in references(&image, facts)? {
            files += 1;
            if depth == MAX_DEPTH || files > MAX_FILES {
                return Err(BackingError::TooDeep { image: path });
            }
            let unusable = |source| BackingError::Unusable { image: image.clone(), source };
            // of what is opened as bytes the header means nothing
            let found = match reference.raw {
                true => look(&reference.file).map(|_| None),
                false => inspect(&reference.file).map(Some),
            };
            let found = found.map_err(unusable)?;
            let real = reference.file.canonicalize();
            let real =
                real.map_err(|source| unusable(ImageError::Io { path: reference.file.clone(), source }))?;
            if !allowed.iter().any(|place| real.starts_with(place)) {
                return Err(BackingError::Outside { image, file: real });
            }
            if let Some(found) = found {
                queue.push_back((reference.file, found, depth + 1));
            }
        }
    }
    Ok(())
}

struct Reference {
    file: PathBuf,
    /// Known to be opened as bytes: what its header says does not matter.
    raw: bool,
}

fn references(image: &Path, facts: ImageFacts) -> Result<Vec<Reference>, BackingError> {
    let mut found = Vec::new();
    for DataFile { name, raw, from_working_directory } in &facts.data_files {
        let file = resolve(image, name)?;
        if *from_working_directory && !name.starts_with(b"/") {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(BackingError::Relative { image: image.to_owned(), name });
        }
        found.push(Reference { file, raw: *raw });
    }
    let backing = facts.backing.filter(|backing| !backing.name.is_empty());
    if let Some(backing) = backing {
        let raw = match backing.format.as_deref() {
            Some("raw" | "file" | "host_device") => true,
            None | Some("qcow2" | "vmdk" | "vdi" | "vhdx" | "vpc" | "qed") => false,
            Some(other) => {
                return Err(BackingError::Format { image: image.to_owned(), format: other.to_owned() });
            }
        };
        found.push(Reference { file: resolve(image, &backing.name)?, raw });
    }
    Ok(found)
}

/// As QEMU does (`path_has_protocol`, `path_combine`): a colon before any slash makes a protocol, `file:` is a file,
/// and names are relative to the folder of the image that has them.
fn resolve(image: &Path, name: &[u8]) -> Result<PathBuf, BackingError> {
    let plain = name.strip_prefix(b"file:").unwrap_or(name);
    let before_slash = plain.split(|byte| *byte == b'/').next().unwrap_or_default();
    if before_slash.contains(&b':') || plain.is_empty() || plain.contains(&0) {
        let name = String::from_utf8_lossy(name).into_owned();
        return Err(BackingError::Protocol { image: image.to_owned(), name });
    }
    Ok(image.parent().unwrap_or(Path::new("/")).join(OsStr::from_bytes(plain)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    fn qemu_img(folder: &Path, arguments: &[&str]) {
        let output = Command::new("qemu-img").args(arguments).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn overlay(folder: &Path, name: &str, backing: &str, format: &str) {
        qemu_img(folder, &["create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", format, name, "1M"]);
    }

    #[test]
    fn a_chain_within_the_folder_is_fine() {
        let root = tempfile::tempdir().unwrap();
        qemu_img(root.path(), &["create", "-q", "-f", "qcow2", "base", "1M"]);
        overlay(root.path(), "middle", "base", "qcow2");
        overlay(root.path(), "top", "file:middle", "qcow2");
        check_backing(&root.path().join("top"), &[]).unwrap();
        let top = inspect(&root.path().join("top")).unwrap().backing.unwrap();
        assert_eq!((top.name.as_slice(), top.format.as_deref()), (&b"file:middle"[..], Some("qcow2")));
    }

    #[test]
    fn a_file_elsewhere_must_be_allowed() {
        let root = tempfile::tempdir().unwrap();
        let (inner, secret) = (root.path().join("inner"), root.path().join("secret"));
        fs::create_dir(&inner).unwrap();
        fs::write(&secret, "s").unwrap();
        overlay(&inner, "dots", "../secret", "raw");
        overlay(&inner, "absolute", secret.to_str().unwrap(), "raw");
        symlink("../secret", inner.join("link")).unwrap();
        overlay(&inner, "linked", "link", "raw");
        let data = format!("data_file={}", inner.join("data").display());
        qemu_img(&inner, &["create", "-q", "-f", "qcow2", "-o", &data, "external", "1M"]);
        check_backing(&inner.join("external"), &[]).unwrap();
        fs::remove_file(inner.join("data")).unwrap();
        symlink("../secret", inner.join("data")).unwrap();
        fs::write(inner.join("text.vmdk"), "# Disk DescriptorFile\nversion=1\nRW 1 FLAT \"../secret\" 0\n")
            .unwrap();
        for name in ["dots", "absolute", "linked", "external", "text.vmdk"] {
            let image = inner.join(name);
            let error = check_backing(&image, &[]).unwrap_err();
            assert!(
                matches!(&error, BackingError::Outside { file, .. } if *file == secret.canonicalize().unwrap())
            );
            assert!(error.hint().unwrap().contains("--allow-backing"));
            check_backing(&image, std::slice::from_ref(&secret)).unwrap();
            check_backing(&image, &[root.path().to_owned()]).unwrap();
        }
    }

    #[test]
    fn other_names_than_files_are_refused() {
        let root = tempfile::tempdir().unwrap();
        for (name, backing) in
            [("a", "nbd://localhost/x"), ("b", "json:{\"driver\":\"file\"}"), ("c", "nbd:u:/s")]
        {
            overlay(root.path(), name, backing, "raw");
            let error = check_backing(&root.path().join(name), &[]).unwrap_err();
            assert!(matches!(error, BackingError::Protocol { .. }), "{error}");
        }
        overlay(root.path(), "d", "x", "blkdebug");
        assert!(matches!(
            check_backing(&root.path().join("d"), &[]).unwrap_err(),
            BackingError::Format { .. }
        ));
    }

    #[test]
    fn circles_end_and_missing_files_are_named() {
        let root = tempfile::tempdir().unwrap();
        overlay(root.path(), "a", "b", "qcow2");
        overlay(root.path(), "b", "a", "qcow2");
        assert!(matches!(check_backing(&root.path().join("a"), &[]), Err(BackingError::TooDeep { .. })));
        overlay(root.path(), "c", "gone", "qcow2");
        let error = check_backing(&root.path().join("c"), &[]).unwrap_err();
        assert!(matches!(error, BackingError::Unusable { source: ImageError::Missing(_), .. }));
    }

    #[test]
    fn a_raw_backing_file_is_not_looked_into() {
        let root = tempfile::tempdir().unwrap();
        overlay(root.path(), "evil", "/etc/passwd", "raw");
        overlay(root.path(), "as-raw", "evil", "raw");
        check_backing(&root.path().join("as-raw"), &[]).unwrap();
        overlay(root.path(), "as-qcow2", "evil", "qcow2");
        assert!(matches!(
            check_backing(&root.path().join("as-qcow2"), &[]),
            Err(BackingError::Outside { .. })
        ));
    }
}
