//! Finds which process holds an image that QEMU or qemu-img reports as locked.

use std::path::{Path, PathBuf};

use crate::host::dirs::{Holder, process_with};
use crate::qemu::refusals::Refusal;

use super::vm_file::vm_of;
use crate::vm::error::ChangeError;

/// Whether QEMU's error text is about a lock on an image.
pub(in crate::vm) fn is_lock(said: &str) -> bool {
    Refusal::ImageLocked.is_in(said)
}

/// What holds an image.
#[derive(Debug, Clone)]
pub(in crate::vm) struct ImageHolder {
    /// The image.
    pub(in crate::vm) path: PathBuf,
    /// The VM of this user, or the process, and what it does with the image.
    pub(in crate::vm) holder: String,
    /// It has the image open for writing.
    pub(in crate::vm) writes: bool,
}

/// Which of these files is locked, and by which VM of this user or which process. Searches all processes.
pub(in crate::vm) fn find<'a>(
    root: Option<&Path>,
    mut files: impl Iterator<Item = &'a Path>,
    said: &str,
    own_qemu: i32,
) -> Option<ImageHolder> {
    if !is_lock(said) {
        return None;
    }
    // QEMU names the file that it could not lock, unless it was given only one
    files.find_map(|file| {
        let named = file.to_str().is_some_and(|file| said.contains(file)) || !said.contains('/');
        let Holder { pid, program, writes } = process_with(file, own_qemu).filter(|_| named)?;
        let who = match root.and_then(|root| vm_of(root, pid)) {
            Some(name) => format!("VM '{name}'"),
            None => format!("process {pid} ({program})"),
        };
        // by its open file: an ephemeral VM writes to some of its images, too
        let holder = format!("{who}, which {}", if writes { "writes to it" } else { "only reads it" });
        Some(ImageHolder { path: file.to_owned(), holder, writes })
    })
}

impl ImageHolder {
    /// The error that this image cannot be used, in place of QEMU's.
    pub(in crate::vm) fn refusal(&self, error: ChangeError) -> ChangeError {
        let hint = match self.writes {
            true => "end that first: while one VM writes to an image, no other can use it",
            false => "end that first, or add the image with `readonly=on`: several VMs can read it",
        };
        ChangeError { message: format!("{} is in use by {}", self.path.display(), self.holder), ..error }
            .hint(hint)
    }

    /// The same, with what could not be done.
    pub(in crate::vm) fn refusal_of(&self, error: ChangeError) -> ChangeError {
        let what = error.message.clone();
        let refusal = self.refusal(error);
        ChangeError { message: format!("{}: {what}", refusal.message), ..refusal }
    }
}

/// The error that one of these files is locked by a process that cannot be found.
pub(in crate::vm) fn unknown(files: &[PathBuf], error: ChangeError) -> ChangeError {
    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    let message = format!(
        "{} is in use by a process that cannot be seen from here, of another user or in a container: {}",
        names.join(" or "),
        error.message
    );
    ChangeError { message, ..error }.hint("end that first")
}
