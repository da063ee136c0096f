//! Screenshots and key presses, through QEMU's own display and keyboard.

use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qapi::qmp::{KeyValue, QKeyCode, QKeyCodeWrapper, send_key};
use serde_json::{Value, json};

use crate::host::dirs::short_path;
use crate::host::made::MadeFile;
use crate::qemu::Command;
use crate::qemu::refusals::Refusal;
use crate::spec::keys::KeyCombo;

use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::handle::Handle;

/// A key is held for half of the interval between two keys, and not longer than this.
const LONGEST_HOLD: Duration = Duration::from_millis(100);

/// A screenshot of the guest's display.
#[derive(Clone, PartialEq, Eq)]
pub struct Screenshot {
    /// A PNG file.
    pub png: Vec<u8>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Without the bytes of the file.
impl fmt::Debug for Screenshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let png = format_args!("{} bytes", self.png.len());
        let mut all = f.debug_struct("Screenshot");
        all.field("png", &png).field("width", &self.width).field("height", &self.height).finish()
    }
}

impl Handle {
    /// Takes a screenshot of the guest's display.
    ///
    /// # Errors
    /// `NotSupported`: the machine has no display.
    pub async fn screenshot(&self) -> Result<Screenshot, ChangeError> {
        let status = self.status().await?;
        let file = Temporary::new(&status.facts.run_directory).map_err(ChangeError::host)?;
        let arguments = json!({ "filename": file.told_to_qemu, "format": "png" });
        let done = self.qmp(Command::new("screendump", arguments)).await;
        done.map_err(ChangeError::from).map_err(|error| match Refusal::NoDisplay.is_in(&error.message) {
            true => ChangeError::unsupported("this VM has no display to take a picture of")
                .hint("start it with `--display headless`, which is a video device without a window"),
            false => error,
        })?;
        let png = tokio::task::spawn_blocking(move || std::fs::read(&file.path)).await;
        let png = png.map_err(ChangeError::host)?.map_err(ChangeError::host)?;
        let [width, height] = size(&png).ok_or_else(|| {
            let kind = ErrorKind::RefusedByQemu { class: "GenericError".to_owned() };
            ChangeError::new(kind, "QEMU's picture is not a PNG file")
        })?;
        Ok(Screenshot { png, width, height })
    }

    /// Presses one key combination after the other, `delay` apart; returns when the last has been released.
    ///
    /// # Errors
    /// QEMU does not know a key; the machine has no keyboard.
    pub async fn press(&self, combos: &[KeyCombo], delay: Duration) -> Result<(), ChangeError> {
        self.check_keyboard().await?;
        let hold = i64::try_from((delay / 2).min(LONGEST_HOLD).as_millis()).unwrap_or(1).max(1);
        for combo in combos {
            let key = |key: &QKeyCode| KeyValue::qcode(QKeyCodeWrapper { data: *key });
            let keys = combo.keys().iter().map(key).collect();
            self.query(send_key { keys, hold_time: Some(hold) }).await?;
            // QEMU replies at once, and its keyboards' queues are short
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = self.ended() => return Err(ChangeError::not_running()),
            }
        }
        Ok(())
    }
}

/// Device models that are keyboards, by the start of their names. x86 machines have the first built in.
const KEYBOARDS: [&str; 3] = ["i8042", "usb-kbd", "virtio-keyboard"];

/// Where QEMU's object tree has devices: those of the machine itself, those with ids, and those without.
const DEVICES: [&str; 3] = ["/machine/unattached", "/machine/peripheral", "/machine/peripheral-anon"];

impl Handle {
    /// Without a keyboard QEMU accepts keys all the same, and drops them.
    async fn check_keyboard(&self) -> Result<(), ChangeError> {
        for path in DEVICES {
            let list = Command::new("qom-list", json!({ "path": path }));
            match self.qmp(list).await {
                Ok(devices) if has_keyboard(&devices) => return Ok(()),
                Ok(_) => {}
                // a machine without such devices
                Err(error) if error.is_class("DeviceNotFound") => {}
                Err(error) => return Err(error.into()),
            }
        }
        let error = ChangeError::unsupported("this VM has no keyboard to type on");
        Err(error.hint(
            "plug one: `vmrun ctl usb-add usb-kbd`, or `device-add virtio-keyboard-pci` (s390x: `-ccw`)",
        ))
    }
}

fn has_keyboard(devices: &Value) -> bool {
    devices.as_array().into_iter().flatten().any(|device| {
        let model = device["type"].as_str().and_then(|kind| kind.strip_prefix("child<"));
        model.is_some_and(|model| KEYBOARDS.iter().any(|keyboard| model.starts_with(keyboard)))
    })
}

/// A file that QEMU writes to; only its owner can read it, and it is removed afterwards.
struct Temporary {
    path: PathBuf,
    made: MadeFile,
    /// QEMU's JSON can only hold UTF-8: any other folder is named through this process's descriptor of it.
    told_to_qemu: String,
    _folder: File,
}

impl Temporary {
    fn new(directory: &Path) -> std::io::Result<Self> {
        let folder = File::open(directory)?;
        let name = format!("screenshot-{:08x}.png", rand::random::<u32>());
        let path = short_path(&folder, directory, name.as_ref());
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        let made = MadeFile::of(&path, &file)?;
        let told_to_qemu = match directory.to_str() {
            Some(directory) => format!("{directory}/{name}"),
            None => format!("/proc/{}/fd/{}/{name}", std::process::id(), folder.as_raw_fd()),
        };
        Ok(Self { path, made, told_to_qemu, _folder: folder })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        self.made.remove();
    }
}

/// Width and height, from the first chunk of every PNG file.
fn size(png: &[u8]) -> Option<[u32; 2]> {
    let number = |at: usize| png.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    (png.starts_with(b"\x89PNG\r\n\x1a\n") && png.get(12..16) == Some(b"IHDR"))
        .then(|| Some([number(16)?, number(20)?]))
        .flatten()
}
