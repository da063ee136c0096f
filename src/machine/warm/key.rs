//! The key of a template in the cache.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::super::Error;
use crate::host::accel;
use crate::host::programs::{self, SearchPath};
use crate::spec::{Condition, Display, Request};
use crate::vm::StartError;

/// The most templates of one boot that are in the cache at once.
const MOST_TEMPLATES: u32 = 8;

/// Everything that a boot depends on, as 32 hexadecimal digits: what shapes the machine, which files it boots from, QEMU's program, the
/// processor, this version, and the condition. Backing files are checked by the template itself.
pub(super) fn key(request: &Request, condition: &Condition) -> Result<String, Error> {
    // what a fork has of its own
    let machine = Request {
        warm: None,
        publish: Vec::new(),
        runtime: None,
        state_home: None,
        name: None,
        stop_timeout: Duration::ZERO,
        on_panic: Default::default(),
        no_reboot: false,
        paused: false,
        max_resets: None,
        max_lifetime: None,
        log_size: None,
        keep_logs: None,
        qmp: None,
        sandbox: true,
        ..request.clone()
    };
    let arch = request.arch.or_else(|| accel::Machine::here().map(|here| here.arch));
    let arch = arch.ok_or_else(|| Error::from(StartError::UnknownHost))?;
    let qemu = programs::qemu(arch, request.qemu.as_deref(), &SearchPath::from_env())
        .map_err(|error| Error::from(StartError::from(error)))?;
    let mut text = format!("{}\n{condition}\n{machine:?}\n", env!("CARGO_PKG_VERSION"));
    let current = match depends_on_folder(&machine) {
        true => std::env::current_dir().unwrap_or_default(),
        false => PathBuf::new(),
    };
    let _ = writeln!(text, "{current:?} {:?}", accel::override_from(|name| std::env::var(name).ok()));
    let prefix = |suffix: &str| {
        request.image.as_ref().map(|image| {
            let mut name = image.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        })
    };
    let parts = ["", "-kernel", "-initrd.img", "-cmdline", "-squashfs.img"].into_iter().filter_map(prefix);
    let given = [&request.kernel, &request.initrd, &request.firmware].into_iter().flatten().cloned();
    // a disk that the first start makes would be another for the second: the template itself looks whether it is as it was
    let disks = request.disks.iter().filter(|disk| disk.size.is_none()).filter_map(|disk| disk.file.clone());
    for file in parts.chain(given).chain(disks).chain([qemu]) {
        if let Ok(facts) = fs::metadata(&file) {
            let (device, inode, size) = (facts.dev(), facts.ino(), facts.size());
            let _ =
                writeln!(text, "{file:?} {device} {inode} {size} {}.{}", facts.mtime(), facts.mtime_nsec());
        }
    }
    text.push_str(&accel::processor());
    Ok(digest(&text))
}

/// Whether the same request means something else in another working directory: a path in it is relative, or it has text that QEMU reads.
fn depends_on_folder(request: &Request) -> bool {
    let named = [
        &request.image,
        &request.kernel,
        &request.initrd,
        &request.firmware,
        &request.qemu,
        &request.virtiofsd,
        &request.state,
    ];
    let named = named.into_iter().flatten().chain(&request.allow_backing);
    let mut files = named.chain(request.disks.iter().filter_map(|disk| disk.file.as_ref()));
    files.any(|file| file.is_relative())
        || !matches!(request.display, Display::None | Display::Headless)
        || !(request.devices.is_empty() && request.shares.is_empty() && request.extra.is_empty())
}

/// Further keys of the same boot, where a template is in the way: a VM uses it, or it has foreign files, but its files have changed since.
pub(super) fn further(key: &str) -> impl Iterator<Item = String> {
    (1..MOST_TEMPLATES).map(move |number| digest(&format!("{key} {number}")))
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(16).fold(String::new(), |mut key, byte| {
        let _ = write!(key, "{byte:02x}");
        key
    })
}
