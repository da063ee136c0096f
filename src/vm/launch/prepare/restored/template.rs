//! A template, from which a fork starts.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::host::saved::SavedError;
use crate::host::template::{MACHINE, hold, open_memory};
use crate::qemu::quote;
use crate::spec::{Boot, Request, VmSpec};

use super::super::MemoryFile;
use super::{images, nonsense, read, refused};
use crate::vm::changes::saving::{Saved, TemplateFacts, with_paths};
use crate::vm::start_error::{StartError, system};
use crate::vm::state::templates::templates_below;

/// The description, if it is of what the command line says, with the paths of a template's files where they are now.
pub(super) fn fitting(saved: Saved, request: &Request, path: &Path) -> Result<Saved, StartError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let shown = |path: &Path| quote::word(path.as_os_str());
    match (&saved.template, request.from.is_some()) {
        (None, false) => Ok(saved),
        (Some(_), false) => Err(refused(
            format!("{} is part of a template, which stays as it is", shown(path)),
            format!("a fork of it: `vmrun qemu --from {}`", shown(folder)),
        )),
        (None, true) => Err(refused(
            format!("{} is a saved VM, and no template", shown(path)),
            "`vmrun qemu --restore FILE` goes on with a saved VM; `vmrun ctl freeze DIR` makes a template",
        )),
        (Some(template), true) => {
            let was = template.folder.clone();
            if !was.is_absolute() || !saved.spec.forkable {
                return Err(nonsense("a template without a folder, or of a VM that cannot be forked"));
            }
            let now = |path: &Path| match path.strip_prefix(&was) {
                Ok(name) => folder.join(name),
                Err(_) => path.to_owned(),
            };
            let spec = with_paths(saved.spec.clone(), &mut |path: &Path| now(path));
            let template = Some(TemplateFacts { folder: folder.to_owned(), ..template.clone() });
            Ok(Saved { spec, template, ..saved })
        }
    }
}

/// Why a folder is no template, in place of what is wrong with its file `machine`.
pub(super) fn unreadable(folder: &Path, error: StartError) -> StartError {
    let StartError::Saved(error) = error else { return error };
    let why = match &error {
        SavedError::Io { source, .. } if source.kind() == ErrorKind::NotADirectory => {
            "it is no folder, and so no template".to_owned()
        }
        SavedError::Io { source, .. } if source.kind() == ErrorKind::NotFound => match folder.is_dir() {
            true => format!("it has no file `{MACHINE}`, and so is no template"),
            false => "there is no such folder".to_owned(),
        },
        SavedError::Foreign(_) | SavedError::Special(_) => {
            format!("its file `{MACHINE}` is none that vmrun has made, and so it is no template")
        }
        _ => return StartError::Saved(error),
    };
    let hint = match folder.is_file() {
        true => {
            "`vmrun qemu --restore FILE` goes on with a saved VM; `vmrun ctl freeze DIR` makes a template"
        }
        false => "`vmrun ctl freeze DIR` makes a template of a running VM that was started with `--forkable`",
    };
    StartError::File { what: "template", path: folder.to_owned(), why, hint: Some(hint.to_owned()) }
}

/// The files that a template's images lie over: each was looked at when it was frozen, and is among those that must not have changed.
pub(super) fn below(saved: &Saved) -> Vec<PathBuf> {
    let layers = saved.spec.disks.iter().flat_map(|disk| disk.image.layers().skip(1));
    let known = |path: &PathBuf| saved.files.iter().any(|file| file.path == *path);
    layers.map(|layer| layer.file.clone()).filter(known).collect()
}

/// The template's memory, which stays as it is; none where it comes out of the stream.
pub(super) fn memory(saved: &Saved) -> Result<Option<MemoryFile>, StartError> {
    let Some(TemplateFacts { folder, memory_bytes: Some(bytes), .. }) = &saved.template else {
        return Ok(None);
    };
    let file = open_memory(folder, *bytes).map_err(system("the template's memory"))?;
    Ok(Some(MemoryFile { file, shared: false }))
}

/// Locks of the templates that a fork uses: its own, unless its memory is locked already, and those that images of that lie over.
pub(super) fn in_use(saved: &Saved, spec: &VmSpec, memory_is_locked: bool) -> Result<Vec<File>, StartError> {
    let own = saved.template.as_ref().map(|template| template.folder.clone());
    let mut folders: Vec<PathBuf> = templates_below(spec);
    folders.extend(own.clone());
    folders.sort();
    folders.dedup();
    folders.retain(|folder| !(memory_is_locked && own.as_ref() == Some(folder)));
    let held = |folder: &PathBuf| {
        let gone = || std::io::Error::other(format!("{} is gone", folder.display()));
        hold(folder).ok_or_else(gone).map_err(system("a template"))
    };
    folders.iter().map(held).collect()
}

/// Looks whether a fork of the template in this folder could be started: it is complete, and its files have not changed.
///
/// # Errors
/// Why not.
pub fn check_template(folder: &Path, request: &Request) -> Result<(), StartError> {
    let path = folder.join(MACHINE);
    let (saved, _) = read(&path)?;
    let request = Request { from: Some(folder.to_owned()), ..request.clone() };
    let saved = fitting(saved, &request, &path)?;
    saved.files.iter().try_for_each(images::unchanged)?;
    memory(&saved).map(drop)
}

/// The image or kernel that was booted for the template in this folder, if there was one.
///
/// # Errors
/// Its description or its memory cannot be read.
pub fn template_source(folder: &Path) -> Result<Option<PathBuf>, StartError> {
    let (saved, _) = read(&folder.join(MACHINE))?;
    if let Some(TemplateFacts { memory_bytes: Some(bytes), .. }) = &saved.template {
        open_memory(folder, *bytes).map_err(system("the template's memory"))?;
    }
    let spec = &saved.spec;
    let first = spec.disks.first().map(|disk| match &disk.image.backing {
        Some(backing) => backing.file.clone(),
        None => disk.image.file.clone(),
    });
    Ok(match &spec.boot {
        Boot::Kernel { kernel, .. } | Boot::Squashfs { kernel, .. } => Some(kernel.clone()),
        Boot::Iso { path } => Some(path.clone()),
        Boot::Disk | Boot::Firmware => first,
    })
}
