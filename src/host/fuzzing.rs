//! The fuzzer's entry to what is private here.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{image, uki};

pub(crate) use super::dirs::fuzz_formats as formats;
pub(crate) use super::firmware::fuzz_descriptor as firmware;

/// A file that is nowhere but has a path.
pub(crate) fn file(bytes: &[u8]) -> (File, PathBuf) {
    let mut file = File::from(memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC).expect("memory"));
    file.write_all(bytes).expect("memory");
    // as vmrun makes its files
    file.set_permissions(Permissions::from_mode(0o600)).expect("memory");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    (file, path)
}

/// What it names lies within its header; and what it leads to is never outside its folder, which has no files but open ones.
pub(crate) fn image(bytes: &[u8]) {
    let found = image::parse(bytes);
    if let Ok(image::Found::Image(header)) = &found {
        for name in header
            .data_files
            .iter()
            .map(|file| &file.name)
            .chain(header.backing.iter().map(|backing| &backing.name))
        {
            assert!(name.len() <= bytes.len());
        }
    }
    let _ = uki::sections(bytes);
    let (_file, path) = file(bytes);
    let format = image::inspect(&path).map(|facts| facts.format);
    match format.map_err(Into::into).and_then(|format| image::resolve(&path, format, &[], &|_, _, _| None)) {
        Ok(_) => assert!(found.is_ok()),
        Err(error) => drop((error.to_string(), error.hint())),
    }
}
