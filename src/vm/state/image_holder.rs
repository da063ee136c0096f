//! Finds which process holds an image that QEMU or qemu-img reports as locked.

use std::path::{Path, PathBuf};

use crate::host::dirs::process_with;
use crate::qemu::refusals::Refusal;

use super::vm_file::vm_of;
use crate::vm::error::ChangeError;

/// Whether QEMU's error text is about a lock on an image.
pub(in crate::vm) fn is_lock(said: &str) -> bool {
    Refusal::ImageLocked.is_in(said)
}

/// Which of these files is locked, and by which VM of this user or which process. Searches all processes.
pub(in crate::vm) fn find<'a>(
    root: Option<&Path>,
    mut files: impl Iterator<Item = &'a Path>,
    said: &str,
    own_qemu: i32,
) -> Option<(PathBuf, String)> {
    if !is_lock(said) {
        return None;
    }
    // QEMU names the file that it could not lock, unless it was given only one
    files.find_map(|file| {
        let named = file.to_str().is_some_and(|file| said.contains(file)) || !said.contains('/');
        let (pid, program) = process_with(file, own_qemu).filter(|_| named)?;
        Some((file.to_owned(), holder(root, pid, &program)))
    })
}

/// The error with the holder of the image added.
pub(in crate::vm) fn named(error: ChangeError, path: &Path, holder: &str) -> ChangeError {
    let message = format!("{} is in use by {holder}: {}", path.display(), error.message);
    ChangeError { message, ..error }.hint("end that first")
}

fn holder(root: Option<&Path>, pid: i32, program: &str) -> String {
    match root.and_then(|root| vm_of(root, pid)) {
        Some((name, true)) => format!("VM '{name}', which reads it under an overlay (`--ephemeral`)"),
        Some((name, false)) => format!("VM '{name}'"),
        None => format!("process {pid} ({program})"),
    }
}
