//! Files of settings: what is in one decides what vmrun does, so it must be writable by its user (and root) only.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

use super::{DirError, ancestors};

/// More is no file of settings.
const MOST_BYTES: u64 = 1 << 20;

/// Reads a file that only this user or root can have written, and that lies where only they could have put it; `None` if there is
/// none. Links are followed: a user's settings may lie in a folder of their own.
///
/// # Errors
/// It is no file, too large, not UTF-8, another user's, or other users can write to it or to a folder on the way.
pub fn read_trusted(path: &Path, role: &'static str) -> Result<Option<String>, DirError> {
    let io = |source| DirError::Io { action: "read", path: path.to_owned(), source };
    let invalid = |why: &str| io(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()));
    // a pipe must not be waited for
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(io(error)),
    };
    let facts = file.metadata().map_err(io)?;
    if !facts.is_file() {
        return Err(invalid("it is not a regular file"));
    }
    let hint =
        || "make it your own: chown $USER FILE, chmod go-w FILE, and the same for its folder".to_owned();
    ancestors::check(path, role, hint)?;
    ancestors::check_file(path, &facts, role, hint)?;
    let mut text = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(invalid("it is larger than 1 MiB"));
    }
    String::from_utf8(text).map(Some).map_err(|_| invalid("it is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn read(path: &Path) -> Result<Option<String>, String> {
        let text = |error: DirError| match error {
            DirError::Io { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        read_trusted(path, "settings").map_err(text)
    }

    #[test]
    fn only_what_nobody_else_can_have_written_is_read() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("settings");
        assert_eq!(read(&file), Ok(None));
        fs::write(&file, "a = 1").unwrap();
        let set_mode =
            |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set_mode(&file, 0o644);
        assert_eq!(read(&file), Ok(Some("a = 1".to_owned())));
        let link = root.path().join("link");
        symlink(&file, &link).unwrap();
        assert_eq!(read(&link), Ok(Some("a = 1".to_owned())));
        set_mode(&file, 0o646);
        assert!(read(&file).unwrap_err().contains("can be written by other users"));
        assert!(read(&link).unwrap_err().contains("can be written by other users"));
        set_mode(&file, 0o644);
        set_mode(root.path(), 0o777);
        assert!(read(&file).unwrap_err().contains("which can be written by other users"));
        set_mode(root.path(), 0o700);
        if nix::unistd::geteuid().is_root() {
            chown(&file, Some(1234), None).unwrap();
            assert!(read(&file).unwrap_err().contains("belongs to another user (uid 1234)"));
            chown(&file, Some(0), Some(1234)).unwrap();
            set_mode(&file, 0o664);
            assert!(read(&file).unwrap_err().contains("can be written by other users"));
        }
    }

    #[test]
    fn what_is_no_text_is_refused_at_once() {
        let root = tempfile::tempdir().unwrap();
        assert!(read(root.path()).unwrap_err().contains("not a regular file"));
        let pipe = root.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(&pipe).unwrap_err().contains("not a regular file"));
        let bytes = root.path().join("bytes");
        fs::write(&bytes, [0xff, 0xfe]).unwrap();
        assert!(read(&bytes).unwrap_err().contains("not UTF-8"));
        fs::write(&bytes, vec![b'#'; 2 << 20]).unwrap();
        assert!(read(&bytes).unwrap_err().contains("larger than 1 MiB"));
    }
}
