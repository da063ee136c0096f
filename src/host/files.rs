//! Files that a user names are opened here, and nowhere else: opening one never waits. Opening a pipe (FIFO) that no process has at its
//! other end would, for good; so would some devices.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

/// Linux' number of `/dev/null` (Documentation/admin-guide/devices.txt).
const NULL: u64 = 0x103;

/// An absolute path for this one, without `.`, and without `..` behind what is a folder itself: behind a link it leads elsewhere.
///
/// # Errors
/// There is no working directory.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for part in std::path::absolute(path)?.components() {
        let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|facts| facts.is_dir());
        match part {
            Component::ParentDir if plain.parent().is_none() => {}
            Component::ParentDir if !plain.ends_with("..") && is_folder(&plain) => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    // what must be a folder stays so
    match path.as_os_str().as_bytes().ends_with(b"/") && plain.parent().is_some() {
        true => Ok(plain.join("")),
        false => Ok(plain),
    }
}

/// Opens a regular file or a block device to read it.
///
/// # Errors
/// It is something else, or of the file system.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let (file, facts) = opened(path)?;
    match facts.is_file() || facts.file_type().is_block_device() {
        true => blocking(file).map(|file| (file, facts)),
        false => Err(wrong_kind(&facts)),
    }
}

/// Opens what only has to be read from its beginning to its end: also a device, and a pipe that this process was given
/// (`<(COMMAND)` of a shell, `/dev/stdin`).
///
/// # Errors
/// It is something else, or of the file system.
pub fn open_input(path: &Path) -> io::Result<(File, Metadata)> {
    let (file, facts) = opened(path)?;
    let kind = facts.file_type();
    let ours = ["/dev/fd", "/proc/self/fd", "/dev/stdin"].iter().any(|own| path.starts_with(own));
    match facts.is_file() || kind.is_block_device() || kind.is_char_device() || (kind.is_fifo() && ours) {
        true => blocking(file).map(|file| (file, facts)),
        false => Err(wrong_kind(&facts)),
    }
}

/// Opens a file to add to it, and makes it (mode 0600) if it is not there. Into a pipe or a terminal it writes without ever waiting.
///
/// # Errors
/// Of the file system; the pipe has no reader.
pub fn append(path: &Path) -> io::Result<File> {
    let opened = File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    opened.map_err(nobody_reads)
}

/// Opens what is there to write to it, and neither makes nor empties anything: a file, a device, or a pipe or terminal that has its
/// other end. Writing to it waits as long as its reader does.
///
/// # Errors
/// Of the file system; it is a socket, or a pipe without a reader.
pub fn open_to_write(path: &Path) -> io::Result<(File, Metadata)> {
    let opened = File::options().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = opened.map_err(nobody_reads)?;
    let facts = file.metadata()?;
    Ok((blocking(file)?, facts))
}

/// Whether this is `/dev/null`.
///
/// # Errors
/// It is no open file.
pub fn is_null(file: impl AsFd) -> io::Result<bool> {
    let facts = nix::sys::stat::fstat(file)?;
    Ok(facts.st_mode & libc::S_IFMT == libc::S_IFCHR && facts.st_rdev == NULL)
}

fn nobody_reads(error: io::Error) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENXIO) => io::Error::other("it is a pipe or a socket that nobody reads from"),
        _ => error,
    }
}

fn opened(path: &Path) -> io::Result<(File, Metadata)> {
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = match opened {
        // sockets cannot be opened at all
        Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENXIO) => {
            return Err(fs::metadata(path).map_or(error, |facts| wrong_kind(&facts)));
        }
        other => other?,
    };
    let facts = file.metadata()?;
    Ok((file, facts))
}

/// What was opened without waiting is read as any other.
fn blocking(file: File) -> io::Result<File> {
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(file)
}

fn wrong_kind(facts: &Metadata) -> io::Error {
    let kind = facts.file_type();
    let what = match () {
        () if kind.is_dir() => return io::ErrorKind::IsADirectory.into(),
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_would_wait_is_refused_at_once() {
        let root = tempfile::tempdir().unwrap();
        let (pipe, socket) = (root.path().join("pipe"), root.path().join("socket"));
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        for (path, why) in [
            (pipe.as_path(), "it is a pipe, not a file"),
            (&socket, "it is a socket, not a file"),
            (root.path(), "is a directory"),
            (Path::new("/dev/tty0/none"), "os error"),
        ] {
            for opened in [open(path), open_input(path)] {
                let error = opened.unwrap_err().to_string();
                assert!(error.contains(why), "{}: {error}", path.display());
            }
        }
        assert!(open(Path::new("/dev/null")).unwrap_err().to_string().contains("a device"));
        assert!(append(&pipe).unwrap_err().to_string().contains("nobody reads"));
        for waits in [&pipe, &socket] {
            assert!(open_to_write(waits).unwrap_err().to_string().contains("nobody reads"));
        }
    }

    #[test]
    fn what_was_given_to_this_process_is_read_to_its_end() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let (mut file, _) = open_input(Path::new(&format!("/dev/fd/{}", reader.as_raw_fd()))).unwrap();
        let writing = std::thread::spawn(move || File::from(writer).write_all(&[7; 100_000]).unwrap());
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        writing.join().unwrap();
        assert_eq!(text.len(), 100_000);
        assert!(open_input(Path::new("/dev/null")).is_ok());
    }

    #[test]
    fn a_pipe_that_is_full_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let (_reader, _) = opened(&pipe).unwrap();
        let mut log = append(&pipe).unwrap();
        assert_eq!(log.write_all(&vec![0; 10 << 20]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_file_is_a_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log");
        append(&path).unwrap().write_all(b"a").unwrap();
        append(&path).unwrap().write_all(b"b").unwrap();
        let mut text = String::new();
        open(&path).unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ab");
        assert_eq!(open(&root.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_a_folder_itself_is_left_by_two_dots() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a/b", root.join("link")).unwrap();
        for (typed, expected) in [
            ("a/../x.img", "x.img"),
            ("a/b/../../a/./x.img", "a/x.img"),
            ("link/../x.img", "link/../x.img"),
            ("link/../../x.img", "link/../../x.img"),
            ("nowhere/../x.img", "nowhere/../x.img"),
            ("a/b/../", "a/"),
        ] {
            let shown = absolute(&root.join(typed)).unwrap();
            assert_eq!(shown.as_os_str(), root.join(expected).as_os_str(), "{typed}");
        }
        assert_eq!(absolute("/../../etc".as_ref()).unwrap(), Path::new("/etc"));
    }
}
