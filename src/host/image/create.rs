//! Making new images.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use thiserror::Error;

use crate::host::made::{MadeFile, NewFile};
use crate::host::{environment, sys};
use crate::spec::{FileId, Image, ImageFormat, Size};

/// Disks consist of sectors of this many bytes.
pub const SECTOR: u64 = 512;

/// Why an image could not be made.
#[derive(Debug, Error)]
pub enum CreateError {
    /// Something has its name.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// `qemu-img` could not be run.
    #[error("cannot run {}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `qemu-img` refused.
    #[error("cannot create {}: {message}", path.display())]
    Refused {
        /// The image.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// It cannot be made larger.
    #[error("cannot make {} larger: {message}", path.display())]
    NotGrown {
        /// The image.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// Of the file system.
    #[error("cannot create {}", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CreateError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists(_) => Some("leave size= away to use it as it is".to_owned()),
            Self::Program { .. } => Some("apt-get install qemu-utils".to_owned()),
            Self::Refused { .. } | Self::NotGrown { .. } | Self::Io { .. } => None,
        }
    }
}

/// Begins to make an image; never over a file that is there. Where the file system can, nothing is at the path yet.
///
/// # Errors
/// Why not; nothing is left behind.
pub fn begin(path: &Path) -> Result<NewFile, CreateError> {
    // absolute, so that `nbd:x` and `-o` are names of files
    let absolute = std::path::absolute(path);
    let path = absolute.map_err(|source| CreateError::Io { path: path.to_owned(), source })?;
    NewFile::create(&path).map_err(|error| not_made(&path, error))
}

/// Makes it an image of a size (rounded up to a sector). A raw one needs no `qemu-img`.
///
/// # Errors
/// Why not; nothing is left behind.
pub fn finish(
    mut new: NewFile,
    qemu_img: &Path,
    format: ImageFormat,
    size: Size,
) -> Result<MadeFile, CreateError> {
    let path = new.made().path().to_owned();
    let bytes = size.bytes().next_multiple_of(SECTOR);
    // takes the name first, so that nothing of anybody's is ever overwritten
    new.take_name().map_err(|error| not_made(&path, error))?;
    match format {
        ImageFormat::Raw => new.file().set_len(bytes).map_err(|error| not_made(&path, error))?,
        _ => {
            let mut command = Command::new(qemu_img);
            command.args(["create", "-q", "-f", format.as_str(), "--"]).arg(&path).arg(bytes.to_string());
            run(command, qemu_img, &path)?;
        }
    }
    Ok(new.keep())
}

/// [`begin`] and [`finish`] in one.
///
/// # Errors
/// As of these.
pub fn create(
    qemu_img: &Path,
    path: &Path,
    format: ImageFormat,
    size: Size,
) -> Result<MadeFile, CreateError> {
    finish(begin(path)?, qemu_img, format, size)
}

fn not_made(path: &Path, source: io::Error) -> CreateError {
    match source.kind() {
        io::ErrorKind::AlreadyExists => CreateError::Exists(path.to_owned()),
        _ => CreateError::Io { path: path.to_owned(), source },
    }
}

/// Makes a qcow2 overlay over an image, as large as that: `size_bytes`, or what `qemu-img` finds, of an image that leads nowhere.
/// The overlay names the image for people only: QEMU is given both.
///
/// # Errors
/// Why not; nothing is left behind.
pub fn create_overlay(
    qemu_img: &Path,
    path: &Path,
    image: &Path,
    image_format: ImageFormat,
    size_bytes: Option<u64>,
) -> Result<MadeFile, CreateError> {
    let mut new = NewFile::create(path).map_err(|error| not_made(path, error))?;
    new.take_name().map_err(|error| not_made(path, error))?;
    let mut command = Command::new(qemu_img);
    command.args(["create", "-q", "-f", "qcow2", "-F", image_format.as_str(), "-b"]).arg(image);
    // with its size said, nothing in it is looked at, nor followed
    command.args(size_bytes.map(|_| "-u")).arg("--").arg(path);
    command.args(size_bytes.map(|bytes| bytes.next_multiple_of(SECTOR).to_string()));
    run(command, qemu_img, path)?;
    Ok(new.keep())
}

/// Makes an image larger; what is in it stays as it is. `qemu-img` opens this very file, nothing that it leads to, and not while
/// another process has made it.
///
/// # Errors
/// Why not; the image is as it was.
pub fn grow(qemu_img: &Path, image: &Image, bytes: u64) -> Result<(), CreateError> {
    let not_grown = |message: String| CreateError::NotGrown { path: image.file.clone(), message };
    if image.identity.is_some_and(FileId::is_block_device) {
        return Err(not_grown("it is a device".to_owned()));
    }
    if image.data_file.is_some() || !image.extents.is_empty() {
        return Err(not_grown("its data are in other files".to_owned()));
    }
    let file = json!({ "driver": "file", "filename": image.file.to_str() });
    let mut node = json!({ "driver": image.format.as_str(), "file": file });
    if matches!(image.format, ImageFormat::Qcow2 | ImageFormat::Qed | ImageFormat::Vmdk) {
        node["backing"] = Value::Null;
    }
    let mut command = Command::new(qemu_img);
    command.args(["resize", "-q", "--", &format!("json:{node}"), &bytes.to_string()]);
    run(command, qemu_img, &image.file).map_err(|error| match error {
        CreateError::Refused { message, .. } => not_grown(message),
        other => other,
    })
}

fn run(mut command: Command, qemu_img: &Path, path: &Path) -> Result<(), CreateError> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    environment::apply(&mut command);
    sys::prepare_child(&mut command, Vec::new(), false, true);
    let output =
        command.output().map_err(|source| CreateError::Program { program: qemu_img.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let message = text.trim().strip_prefix("qemu-img: ").unwrap_or(text.trim());
    let message = if message.is_empty() {
        format!("qemu-img ended with {}", output.status)
    } else {
        message.to_owned()
    };
    Err(CreateError::Refused { path: path.to_owned(), message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::image::inspect;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    const PROGRAM: &str = "/usr/bin/qemu-img";

    #[test]
    fn any_name_is_just_a_name() {
        let root = tempfile::tempdir().unwrap();
        let names: [&[u8]; 8] = [
            b"a.qcow2",
            b"nbd:x",
            b"json:{}",
            b"a,size=1",
            b"-o",
            b"with space\nand line",
            b"fat:rw:x",
            b"\xff\xfe",
        ];
        for name in names {
            let path = root.path().join(OsStr::from_bytes(name));
            create(Path::new(PROGRAM), &path, ImageFormat::Qcow2, Size(8 << 20)).unwrap();
            let facts = inspect(&path).unwrap();
            assert_eq!((facts.format, facts.virtual_size_bytes), (ImageFormat::Qcow2, Some(8 << 20)));
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), names.len());
    }

    #[test]
    fn a_raw_one_needs_no_program() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("disk.img");
        create(Path::new("/nonexistent"), &path, ImageFormat::Raw, Size(1000)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 1024);
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_left() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("disk");
        fs::write(&path, "precious").unwrap();
        let error = create(Path::new(PROGRAM), &path, ImageFormat::Qcow2, Size(1 << 20)).unwrap_err();
        assert!(matches!(error, CreateError::Exists(_)));
        assert_eq!(fs::read(&path).unwrap(), b"precious");

        let path = root.path().join("new");
        let error = create(Path::new("/nonexistent"), &path, ImageFormat::Qcow2, Size(1 << 20)).unwrap_err();
        assert!(matches!(error, CreateError::Program { .. }) && !path.exists());
        let error = create(Path::new(PROGRAM), &path, ImageFormat::Vdi, Size(1 << 62)).unwrap_err();
        assert!(
            matches!(&error, CreateError::Refused { message, .. } if !message.contains("qemu-img:")),
            "{error}"
        );
        assert!(!path.exists());
    }

    /// A program instead of `qemu-img` that swaps the file under its hands, and then fails.
    #[test]
    fn what_has_taken_the_place_of_a_half_made_image_stays() {
        use std::os::unix::fs::PermissionsExt;

        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("swaps");
        let script = "#!/bin/sh\nfor last; do case $last in */new|*/overlay) path=$last;; esac; done\n\
                      mv \"$path\" \"$path.moved\" && echo precious >\"$path\"\nexit 1\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let (new, overlay) = (root.path().join("new"), root.path().join("overlay"));
        create(&program, &new, ImageFormat::Qcow2, Size(1 << 20)).unwrap_err();
        create_overlay(&program, &overlay, &new, ImageFormat::Raw, Some(1 << 20)).unwrap_err();
        for path in [new, overlay] {
            assert_eq!(fs::read(path).unwrap(), b"precious\n");
        }
    }
}
