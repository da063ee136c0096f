//! Everything that an image leads to, found by our own reading of its headers: QEMU is then given each file by name, and looks for none.
//!
//! An image from elsewhere can name any file of the host as its backing or data file, and the guest would read it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{DataFile, ImageError, ImageFacts, ImageIdentity, OpenFile, check_format};
use crate::spec::{HostFile, Image, ImageFormat};

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
    /// An extent of a vmdk image that has extents of its own, which QEMU looks for in the folder of the image at the top.
    #[error("{} has a part, {}, that consists of other files itself", image.display(), file.display())]
    Nested {
        /// The image.
        image: PathBuf,
        /// The extent.
        file: PathBuf,
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
            Self::Protocol { .. }
            | Self::Format { .. }
            | Self::TooDeep { .. }
            | Self::Relative { .. }
            | Self::Nested { .. } => Some("`qemu-img convert` makes one image of it".to_owned()),
            Self::Unusable { source, .. } | Self::Image(source) => source.hint(),
        }
    }
}

/// What an image is known to be, whatever its header says: by the open file, its identity and its path.
pub type Known<'a> = dyn Fn(&File, &ImageIdentity, &Path) -> Option<ImageFormat> + 'a;

/// Follows an image to all the files that belong to it.
/// They must be in the folder of `path` (links followed), or be or lie in something of `allow`. `known`: the format of an image that
/// is not to be guessed again.
///
/// # Errors
/// The first file that may not or cannot be used.
pub fn resolve(
    path: &Path,
    format: ImageFormat,
    allow: &[PathBuf],
    known: &Known<'_>,
) -> Result<Image, BackingError> {
    let io = |source| ImageError::Io { path: path.to_owned(), source };
    let path = std::path::absolute(path).map_err(io)?;
    let folder = path.parent().unwrap_or(Path::new("/")).canonicalize().map_err(io)?;
    let allowed = allow.iter().filter_map(|path| path.canonicalize().ok()).chain([folder]).collect();
    let file = OpenFile::open(&path)?;
    let image = Image { identity: Some(file.id()), ..Image::alone(&path, format) };
    Resolver { top: &path, allowed, known, files: 0 }.complete(image, &path, file, 1)
}

struct Resolver<'a> {
    /// The image at the top.
    top: &'a Path,
    allowed: Vec<PathBuf>,
    known: &'a Known<'a>,
    /// How many others there are.
    files: usize,
}

impl Resolver<'_> {
    /// Adds to an image what its header names. `named`: its name, from which relative names count.
    fn complete(
        &mut self,
        image: Image,
        named: &Path,
        file: OpenFile,
        depth: usize,
    ) -> Result<Image, BackingError> {
        // of what is opened as bytes the header means nothing
        if image.format == ImageFormat::Raw {
            return Ok(image);
        }
        let ImageFacts { format, backing, data_files, .. } = file.inspect()?;
        check_format(named, image.format, format)?;
        let mut image = image;
        for data in &data_files {
            let file = self.data_file(named, data)?;
            match data.from_working_directory {
                true => image.data_file = Some(file),
                false => image.extents.push(file),
            }
        }
        if let Some(backing) = backing.filter(|backing| !backing.name.is_empty()) {
            if depth == MAX_DEPTH {
                return Err(self.too_deep());
            }
            let name = beside(named, &backing.name)?;
            let declared =
                backing.format.as_deref().map(|format| backing_format(named, format)).transpose()?;
            let below = self.open(named, &name)?;
            let format = match declared {
                Some(format) => format,
                None => self.found_format(&below).map_err(unusable(named))?,
            };
            let real = below.real().to_owned();
            let under = Image { identity: Some(below.id()), ..Image::alone(real, format) };
            image.backing = Some(Box::new(self.complete(under, &name, below, depth + 1)?));
        }
        Ok(image)
    }

    /// A file with an image's data.
    fn data_file(&mut self, image: &Path, data: &DataFile) -> Result<HostFile, BackingError> {
        let name = beside(image, &data.name)?;
        if data.from_working_directory && !data.name.starts_with(b"/") {
            let name = String::from_utf8_lossy(&data.name).into_owned();
            return Err(BackingError::Relative { image: image.to_owned(), name });
        }
        let file = self.open(image, &name)?;
        if !data.raw {
            let facts = file.inspect().map_err(unusable(image))?;
            if !facts.data_files.is_empty() {
                return Err(BackingError::Nested { image: image.to_owned(), file: name });
            }
        }
        Ok(HostFile { path: file.real().to_owned(), identity: Some(file.id()) })
    }

    /// Opens a file that `image` names, if it may.
    fn open(&mut self, image: &Path, name: &Path) -> Result<OpenFile, BackingError> {
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(self.too_deep());
        }
        let file = OpenFile::open(name).map_err(unusable(image))?;
        if !self.allowed.iter().any(|allowed| file.real().starts_with(allowed)) {
            return Err(BackingError::Outside { image: image.to_owned(), file: file.real().to_owned() });
        }
        Ok(file)
    }

    fn found_format(&self, file: &OpenFile) -> Result<ImageFormat, ImageError> {
        match (self.known)(file.file(), &file.identity()?, file.real()) {
            Some(format) => Ok(format),
            None => Ok(file.inspect()?.format),
        }
    }

    fn too_deep(&self) -> BackingError {
        BackingError::TooDeep { image: self.top.to_owned() }
    }
}

fn unusable(image: &Path) -> impl FnOnce(ImageError) -> BackingError + use<'_> {
    |source| BackingError::Unusable { image: image.to_owned(), source }
}

/// The format that a header says its backing file has.
fn backing_format(image: &Path, format: &str) -> Result<ImageFormat, BackingError> {
    match format {
        "raw" | "file" | "host_device" => Ok(ImageFormat::Raw),
        _ => format
            .parse()
            .map_err(|_| BackingError::Format { image: image.to_owned(), format: format.to_owned() }),
    }
}

/// A name in an image, as a path: relative to the folder of the image. Where QEMU might read anything else into it (`path_has_protocol`: a
/// colon before any slash, `file:` too) it is refused.
fn beside(image: &Path, name: &[u8]) -> Result<PathBuf, BackingError> {
    let before_slash = name.split(|byte| *byte == b'/').next().unwrap_or_default();
    if before_slash.contains(&b':') || name.is_empty() || name.contains(&0) {
        let name = String::from_utf8_lossy(name).into_owned();
        return Err(BackingError::Protocol { image: image.to_owned(), name });
    }
    Ok(image.parent().unwrap_or(Path::new("/")).join(OsStr::from_bytes(name)))
}

#[cfg(test)]
mod tests {
    use super::super::inspect;
    use super::*;
    use crate::spec::FileId;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::process::Command;

    fn qemu_img(folder: &Path, arguments: &[&str]) {
        let output = Command::new("qemu-img").args(arguments).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn overlay(folder: &Path, name: &str, backing: &str, format: &str) {
        qemu_img(folder, &["create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", format, name, "1M"]);
    }

    fn check(path: &Path, allow: &[PathBuf]) -> Result<Image, BackingError> {
        resolve(path, inspect(path)?.format, allow, &|_, _, _| None)
    }

    fn sparse(sectors: u64, description: &str) -> Vec<u8> {
        let mut image = vec![0; 512];
        image[..4].copy_from_slice(b"KDMV");
        image[12..20].copy_from_slice(&sectors.to_le_bytes());
        image[28] = 1;
        [&image, description.as_bytes()].concat()
    }

    #[test]
    fn a_chain_within_the_folder_is_fine() {
        let root = tempfile::tempdir().unwrap();
        qemu_img(root.path(), &["create", "-q", "-f", "qcow2", "base", "1M"]);
        overlay(root.path(), "middle", "base", "qcow2");
        overlay(root.path(), "top", "middle", "qcow2");
        let top = check(&root.path().join("top"), &[]).unwrap();
        let layers: Vec<_> =
            top.layers().map(|image| (image.file.file_name().unwrap(), image.format)).collect();
        assert_eq!(layers, ["top", "middle", "base"].map(|name| (OsStr::new(name), ImageFormat::Qcow2)));
        for layer in top.layers() {
            let facts = fs::metadata(&layer.file).unwrap();
            assert_eq!(layer.identity, Some(FileId { device: facts.dev(), inode: facts.ino() }));
        }
    }

    #[test]
    fn a_vmdk_consists_of_its_extents() {
        let root = tempfile::tempdir().unwrap();
        qemu_img(
            root.path(),
            &["create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "a.vmdk", "1M"],
        );
        let image = check(&root.path().join("a.vmdk"), &[]).unwrap();
        let extents: Vec<_> = image.extents.iter().map(|file| file.path.file_name().unwrap()).collect();
        assert_eq!(extents, ["a-s001.vmdk"]);
        // QEMU would look for those of an extent in the folder of the image at the top
        let description = "#\nversion=1\nRW 2048 FLAT \"x\" 0\n";
        fs::create_dir(root.path().join("in")).unwrap();
        fs::write(root.path().join("in/part"), sparse(0, description)).unwrap();
        fs::write(root.path().join("in/x"), "x").unwrap();
        fs::write(root.path().join("top.vmdk"), "#\nversion=1\nRW 2048 SPARSE \"in/part\"\n").unwrap();
        assert!(matches!(check(&root.path().join("top.vmdk"), &[]), Err(BackingError::Nested { .. })));
    }

    #[test]
    fn what_is_known_is_not_guessed() {
        let root = tempfile::tempdir().unwrap();
        qemu_img(root.path(), &["create", "-q", "-f", "qcow2", "base", "1M"]);
        overlay(root.path(), "top", "base", "qcow2");
        let top = root.path().join("top");
        // the extension with the format becomes an unknown one
        let mut bytes = fs::read(&top).unwrap();
        let at = bytes.windows(4).position(|window| window == 0xe279_2aca_u32.to_be_bytes()).unwrap();
        bytes[at..at + 4].copy_from_slice(&0x7777_7777_u32.to_be_bytes());
        fs::write(&top, bytes).unwrap();
        let under = |image: Image| image.backing.unwrap().format;
        assert_eq!(under(check(&top, &[]).unwrap()), ImageFormat::Qcow2);
        let raw = |_: &File, _: &ImageIdentity, _: &Path| Some(ImageFormat::Raw);
        assert_eq!(under(resolve(&top, ImageFormat::Qcow2, &[], &raw).unwrap()), ImageFormat::Raw);
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
        check(&inner.join("external"), &[]).unwrap();
        fs::remove_file(inner.join("data")).unwrap();
        symlink("../secret", inner.join("data")).unwrap();
        fs::write(inner.join("text.vmdk"), "# Disk DescriptorFile\nversion=1\nRW 1 FLAT \"../secret\" 0\n")
            .unwrap();
        for name in ["dots", "absolute", "linked", "external", "text.vmdk"] {
            let image = inner.join(name);
            let error = check(&image, &[]).unwrap_err();
            assert!(
                matches!(&error, BackingError::Outside { file, .. } if *file == secret.canonicalize().unwrap())
            );
            assert!(error.hint().unwrap().contains("--allow-backing"));
            check(&image, std::slice::from_ref(&secret)).unwrap();
            check(&image, &[root.path().to_owned()]).unwrap();
        }
    }

    #[test]
    fn other_names_than_files_are_refused() {
        let root = tempfile::tempdir().unwrap();
        for (name, backing) in [
            ("a", "nbd://localhost/x"),
            ("b", "json:{\"driver\":\"file\"}"),
            ("c", "nbd:u:/s"),
            ("e", "file:base"),
        ] {
            overlay(root.path(), name, backing, "raw");
            let error = check(&root.path().join(name), &[]).unwrap_err();
            assert!(matches!(error, BackingError::Protocol { .. }), "{error}");
        }
        overlay(root.path(), "d", "x", "blkdebug");
        assert!(matches!(check(&root.path().join("d"), &[]).unwrap_err(), BackingError::Format { .. }));
    }

    #[test]
    fn circles_end_and_missing_files_are_named() {
        let root = tempfile::tempdir().unwrap();
        overlay(root.path(), "a", "b", "qcow2");
        overlay(root.path(), "b", "a", "qcow2");
        assert!(matches!(check(&root.path().join("a"), &[]), Err(BackingError::TooDeep { .. })));
        overlay(root.path(), "c", "gone", "qcow2");
        let error = check(&root.path().join("c"), &[]).unwrap_err();
        assert!(matches!(error, BackingError::Unusable { source: ImageError::Missing(_), .. }));
    }

    #[test]
    fn a_raw_backing_file_is_not_looked_into() {
        let root = tempfile::tempdir().unwrap();
        overlay(root.path(), "evil", "/etc/passwd", "raw");
        overlay(root.path(), "as-raw", "evil", "raw");
        check(&root.path().join("as-raw"), &[]).unwrap();
        overlay(root.path(), "as-qcow2", "evil", "qcow2");
        assert!(matches!(check(&root.path().join("as-qcow2"), &[]), Err(BackingError::Outside { .. })));
    }
}
