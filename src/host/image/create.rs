//! Making new images.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

use crate::host::{environment, sys};
use crate::spec::{ImageFormat, Size};

/// Disks consist of sectors of this many bytes.
const SECTOR: u64 = 512;

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
            Self::Refused { .. } | Self::Io { .. } => None,
        }
    }
}

/// Makes an image of a size (rounded up to a sector); never over a file that is there. A raw one needs no `qemu-img`.
///
/// # Errors
/// Why not; nothing is left behind.
pub fn create(qemu_img: &Path, path: &Path, format: ImageFormat, size: Size) -> Result<(), CreateError> {
    let io = |source| CreateError::Io { path: path.to_owned(), source };
    // absolute, so that `nbd:x` and `-o` are names of files
    let path = std::path::absolute(path).map_err(io)?;
    // takes the name first, so that nothing of anybody's is ever overwritten
    let file = claim(&path)?;
    let bytes = size.bytes().next_multiple_of(SECTOR);
    let made = match format {
        ImageFormat::Raw => file.set_len(bytes).map_err(io),
        _ => run(qemu_img, &path, format, bytes),
    };
    made.inspect_err(|_| drop(fs::remove_file(&path)))
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
) -> Result<(), CreateError> {
    claim(path)?;
    let mut command = Command::new(qemu_img);
    command.args(["create", "-q", "-f", "qcow2", "-F", image_format.as_str(), "-b"]).arg(image);
    // with its size said, nothing in it is looked at, nor followed
    command.args(size_bytes.map(|_| "-u")).arg("--").arg(path);
    command.args(size_bytes.map(|bytes| bytes.next_multiple_of(SECTOR).to_string()));
    finish(command, qemu_img, path).inspect_err(|_| drop(fs::remove_file(path)))
}

/// Makes an empty file that is ours alone, whatever the umask; `qemu-img` leaves it so.
fn claim(path: &Path) -> Result<File, CreateError> {
    let io = |source| CreateError::Io { path: path.to_owned(), source };
    let file = match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(CreateError::Exists(path.to_owned()));
        }
        other => other.map_err(io)?,
    };
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(io)?;
    Ok(file)
}

fn run(qemu_img: &Path, path: &Path, format: ImageFormat, bytes: u64) -> Result<(), CreateError> {
    let mut command = Command::new(qemu_img);
    command.args(["create", "-q", "-f", format.as_str(), "--"]).arg(path).arg(bytes.to_string());
    finish(command, qemu_img, path)
}

fn finish(mut command: Command, qemu_img: &Path, path: &Path) -> Result<(), CreateError> {
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
}
