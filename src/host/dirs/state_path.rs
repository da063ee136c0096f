//! Where the state directory of an image is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Extensions of images, which are not part of the prefix.
const IMAGE_EXTENSIONS: [&str; 9] = ["qcow2", "raw", "img", "iso", "vmdk", "vdi", "vhd", "vhdx", "qed"];

/// Where the state of an image's VM is unless `--state` says otherwise: `foo-state` beside `foo.qcow2` or the prefix `foo`.
pub fn state_path(image: &Path) -> PathBuf {
    let known =
        |extension: &OsStr| IMAGE_EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known));
    let prefix =
        if image.extension().is_some_and(known) { image.with_extension("") } else { image.to_owned() };
    let mut path = OsString::from(prefix);
    path.push("-state");
    path.into()
}

/// Where linuxkit has the state of an image: its whole name is the prefix, but for an ISO.
pub fn linuxkit_state_path(image: &Path) -> PathBuf {
    let bytes = image.as_os_str().as_bytes();
    let mut path = OsStr::from_bytes(bytes.strip_suffix(b".iso").unwrap_or(bytes)).to_owned();
    path.push("-state");
    path.into()
}

/// The same under a service manager: in the folder that it gives (`$STATE_DIRECTORY`, the first of a colon list) rather than
/// beside the image.
///
/// A folder that linuxkit has made for this image is used, unless vmrun has made one.
pub fn state_path_in(given: Option<OsString>, image: &Path) -> PathBuf {
    let (ours, theirs) = (state_path(image), linuxkit_state_path(image));
    let beside = if theirs.is_dir() && ours.symlink_metadata().is_err() { theirs } else { ours };
    let first = given.as_deref().and_then(|list| list.as_bytes().split(|byte| *byte == b':').next());
    match (first.filter(|folder| !folder.is_empty()), beside.file_name()) {
        (Some(folder), Some(name)) => Path::new(OsStr::from_bytes(folder)).join(name),
        _ => beside,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn is_named_after_the_image() {
        for (image, state) in [
            ("foo.qcow2", "foo-state"),
            ("/a/b.c/Disk.IMG", "/a/b.c/Disk-state"),
            ("linuxkit", "linuxkit-state"),
            ("v1.2", "v1.2-state"),
            ("x.iso", "x-state"),
        ] {
            assert_eq!(state_path(Path::new(image)), Path::new(state));
        }
    }

    #[test]
    fn a_folder_that_linuxkit_has_made_is_used() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for (image, linuxkits) in [
            ("a.qcow2", "a.qcow2-state"),
            ("b.iso", "b-state"),
            ("c-bios.img", "c-bios.img-state"),
            ("d", "d-state"),
        ] {
            assert_eq!(linuxkit_state_path(&at(image)), at(linuxkits));
            fs::create_dir(at(linuxkits)).unwrap();
            assert_eq!(state_path_in(None, &at(image)), at(linuxkits), "{image}");
        }
        // vmrun's own goes before it
        fs::create_dir(at("a-state")).unwrap();
        assert_eq!(state_path_in(None, &at("a.qcow2")), at("a-state"));
    }

    #[test]
    fn a_service_manager_gives_the_folder() {
        let in_folder = |given: &str| state_path_in(Some(given.into()), Path::new("/images/foo.qcow2"));
        assert_eq!(in_folder("/var/lib/vm"), Path::new("/var/lib/vm/foo-state"));
        assert_eq!(in_folder("/var/lib/vm:/var/lib/other"), Path::new("/var/lib/vm/foo-state"));
        assert_eq!(in_folder(""), Path::new("/images/foo-state"));
        assert_eq!(state_path_in(None, Path::new("/images/foo")), Path::new("/images/foo-state"));
    }
}
