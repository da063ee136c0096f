//! The state of a paused VM that goes on, or may have to: written as a snapshot into an image of its own, and copied from there.
//!
//! A migration would leave a VM that does not run in QEMU's run state `postmigrate`: its images closed, and no other migration possible
//! until the guest runs. A snapshot changes nothing, and its stream is byte for byte the same.

use std::fs::File;
use std::path::Path;

use serde_json::json;

use crate::host::files;
use crate::host::image::{self, CreateError, copy_vm_state};
use crate::host::made::MadeFile;
use crate::host::programs::{self, ProgramError, SearchPath};
use crate::host::template::STATE;
use crate::qemu::{Command, snapshot};
use crate::qmp::Session;
use crate::spec::{ImageFormat, Size};
use crate::vm::bus::Bus;
use crate::vm::changes::snapshots::run_job;
use crate::vm::error::ChangeError;
use crate::vm::steps::{blocking, to_the_end};

/// The block node of the image.
const NODE: &str = "vmrun-state";
/// The snapshot in it.
const TAG: &str = "state";
/// The image as a disk has this many bytes: one cluster.
const DISK: Size = Size(64 << 10);

/// Writes it into a file; `folder` is where the image can be meanwhile. Returns how many bytes it has.
pub(super) async fn write(session: &Session, bus: &Bus, folder: &Path, to: File) -> Result<u64, ChangeError> {
    let path = folder.join(STATE);
    let made = blocking(move || {
        let qemu_img =
            programs::qemu_img(&SearchPath::from_env()).map_err(ChangeError::hinted(ProgramError::hint))?;
        image::create(&qemu_img, &path, ImageFormat::Qcow2, DISK)
            .map_err(ChangeError::hinted(CreateError::hint))
    });
    let made = made.await?;
    let saved = save(session, bus, made.path()).await;
    let copied = blocking(move || {
        let copied = saved.and_then(|()| copy(&made, &to));
        made.remove();
        copied
    });
    copied.await
}

async fn save(session: &Session, bus: &Bus, image: &Path) -> Result<(), ChangeError> {
    let file = json!({ "driver": "file", "filename": image });
    let open = Command::new("blockdev-add", json!({ "driver": "qcow2", "node-name": NODE, "file": file }));
    to_the_end(session.submit(&open)).await?;
    let saved = run_job(session, bus, &snapshot::save(TAG, NODE, &[NODE]), None).await;
    close(session).await;
    saved.map_err(ChangeError::from)
}

/// Closes the image, if it is open.
pub(in crate::vm) async fn close(session: &Session) {
    let close = Command::new("blockdev-del", json!({ "node-name": NODE }));
    if let Err(error) = to_the_end(session.submit(&close)).await {
        log::debug!("{NODE} is not closed: {error}");
    }
}

fn copy(image: &MadeFile, to: &File) -> Result<u64, ChangeError> {
    let read = files::open(image.path()).and_then(|(image, _)| copy_vm_state(&image, to));
    read.map_err(|error| ChangeError::host(format!("the VM's state in {}: {error}", image.path().display())))
}
