//! `--warm`: starts are forks of a template that the first start makes.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::control::verbs;
use crate::host::PROGRESS;
use crate::host::accel;
use crate::host::programs::{self, SearchPath};
use crate::host::template_cache::{Cached, InUse, TemplateCache};
use crate::qemu::immovable;
use crate::spec::{Condition, DiskBus, DiskSpec, Request};
use crate::vm::{ErrorChain, StartError, check_template};

use super::{Error, Machine};

/// How long the first start may take to meet its condition: as long as a large guest takes to boot without KVM.
const BOOT: Duration = Duration::from_secs(600);
/// How much of the console is shown if it does not.
const SHOWN_LINES: usize = 20;
const SHOWN_BYTES: usize = 8 << 10;

/// A request with which [`Request::warm`] is met.
#[derive(Debug)]
pub struct Warm {
    /// The request for a fork.
    pub request: Request,
    /// Keeps the template in the cache until the fork itself uses it: to be kept until the VM is prepared.
    pub in_use: Option<InUse>,
}

/// The request for a fork of a template with which [`Request::warm`] is met: of the one in the cache, or of a new one, for which the VM
/// is booted once, in this process.
///
/// # Errors
/// The VM cannot be started or frozen, does not meet the condition, or the cache cannot be used.
pub async fn warm(request: Request) -> Result<Warm, Error> {
    let Some(condition) = request.warm.clone() else { return Ok(Warm { request, in_use: None }) };
    check(&request)?;
    let cache = TemplateCache::open().map_err(cache_error)?;
    let key = key(&request, &condition)?;
    if let Ok(in_use) = good(&cache, &key, &request) {
        return Ok(fork(request, &cache, &key, in_use));
    }
    let lock = {
        let path = cache.path(&key);
        let (waiting, key) = (key.clone(), key.clone());
        let locked = move || {
            let cache = TemplateCache::open().map_err(cache_error)?;
            let busy = || log::info!(target: PROGRESS, "another vmrun boots the template {waiting}");
            cache.lock(&key, busy).map_err(|error| {
                Error::TemplateCache(format!("no template can be made in {}: {error}", folder_of(&path)))
            })
        };
        tokio::task::spawn_blocking(locked).await.map_err(cache_error)??
    };
    // the process that had the lock may have made it
    let in_use = match good(&cache, &key, &request) {
        Ok(in_use) => in_use,
        Err(unfit) => {
            match unfit {
                Unfit::Missing => log::info!("there is no template {key} yet"),
                Unfit::Changed(cached, why) => {
                    log::info!("template {key} is of no use any more: {why}");
                    cached.remove();
                }
            }
            make(&request, &condition, &cache, &key).await?;
            let gone = || Error::TemplateCache(format!("template {key} is gone already"));
            // before others are removed for it: it stays even if it alone is larger than the cache may be
            let made = cache.hold(&key).ok_or_else(gone)?;
            let limit = cache.limit().map_err(|error| Error::File { path: cache.path(&key), error })?;
            for gone in cache.prune(Some(limit), None) {
                log::info!("template {} was not used for longest, and made room", gone.key);
            }
            made
        }
    };
    drop(lock);
    Ok(fork(request, &cache, &key, in_use))
}

fn folder_of(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}

/// Refuses devices that no template can have, before a VM is booted for it.
fn check(request: &Request) -> Result<(), Error> {
    let image =
        request.image.iter().map(|image| (format!("IMAGE ({})", image.display()), &request.image_options));
    let disks = request.disks.iter().map(|disk| (format!("--disk {disk}"), disk));
    let nvme =
        |disk: &DiskSpec| (disk.bus == DiskBus::Nvme).then(|| immovable::why("nvme", &Map::new())).flatten();
    let mut of_disks = image.chain(disks).filter_map(|(what, disk)| Some((what, nvme(disk)?)));
    let mut of_devices = request.devices.iter().filter_map(|device| {
        let value = |(name, value): &(String, String)| (name.clone(), Value::from(value.as_str()));
        let properties = device.properties.iter().map(value).collect();
        Some((format!("--device {device}"), immovable::why(&device.driver, &properties)?))
    });
    let mut of_shares =
        request.shares.first().map(|_| ("--virtiofs".to_owned(), "its server knows one guest only"));
    match of_disks.next().or_else(|| of_devices.next()).or_else(|| of_shares.take()) {
        None => Ok(()),
        Some((what, why)) => Err(Error::from(StartError::Usage {
            message: format!("{what} cannot be frozen into a template for `--warm`: {why}"),
            hint: Some(
                "leave it out (a disk can be on another bus), or start the VM without `--warm`".to_owned(),
            ),
        })),
    }
}

/// A template whose files are as they were, which is in use from now on; or why there is none.
fn good(cache: &TemplateCache, key: &str, request: &Request) -> Result<InUse, Unfit> {
    let cached = cache.find(key).ok_or(Unfit::Missing)?;
    // before it is looked at: it is not removed in between
    let in_use = cache.hold(key);
    match check_template(&cached.path, request) {
        Ok(()) => in_use.ok_or(Unfit::Missing),
        Err(why) => Err(Unfit::Changed(cached, Box::new(why))),
    }
}

/// Why a template in the cache cannot be used.
enum Unfit {
    /// There is none, or it is being removed.
    Missing,
    Changed(Cached, Box<StartError>),
}

async fn make(
    request: &Request,
    condition: &Condition,
    cache: &TemplateCache,
    key: &str,
) -> Result<(), Error> {
    log::info!(target: PROGRESS, "booting once, until {condition}; further starts are forks");
    let boot = Request {
        warm: None,
        forkable: true,
        ephemeral: true,
        publish: Vec::new(),
        paused: false,
        qmp: None,
        name: None,
        ..request.clone()
    };
    let vm = Machine::launch(boot).await?;
    let mut console = Vec::new();
    let ready = {
        let text = condition.to_string();
        let mut waiting = pin!(vm.wait(&text, BOOT));
        let mut reading = pin!(follow_console(&vm, &mut console));
        tokio::select! { biased;
            // the VM may have ended, of which its console says why
            () = &mut reading => waiting.await,
            ready = &mut waiting => ready,
        }
    };
    if let Err(why) = ready {
        let console = last_lines(&console);
        let console =
            if console.is_empty() { console } else { format!("; its console ends with\n{console}") };
        return Err(Error::NotWarm { why: Box::new(why), console });
    }
    vm.freeze(cache.path(key)).await.map_err(|error| not_frozen(error, cache, key))?;
    log::info!(target: PROGRESS, "");
    Ok(())
}

/// What `freeze` says is of a VM that keeps running, which this one does not.
fn not_frozen(error: Error, cache: &TemplateCache, key: &str) -> Error {
    if error.refusal().is_some_and(|refusal| refusal.name() != "HostProblem") {
        return Error::NotWarm { why: Box::new(error), console: String::new() };
    }
    let folder = folder_of(&cache.path(key));
    Error::TemplateCache(format!(
        "no template could be made in {folder}, and the VM that was booted for it has ended: {error}"
    ))
}

fn cache_error(why: impl std::error::Error) -> Error {
    Error::TemplateCache(why.with_causes())
}

/// Keeps the end of what a VM's console prints, until the VM ends.
async fn follow_console(vm: &Machine, end: &mut Vec<u8>) {
    let call = verbs::ReadConsole { from: Some("start".to_owned()), follow: None };
    let Ok(mut replies) = vm.stream(call).await else { return };
    while let Ok(Some(reply)) = replies.next().await {
        end.extend(BASE64_STANDARD.decode(&reply.data).unwrap_or_default());
        end.drain(..end.len().saturating_sub(SHOWN_BYTES));
    }
}

/// The last lines that are not empty.
fn last_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES));
    last.map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// The same request, but of a fork. What shapes the machine is the template's.
fn fork(request: Request, cache: &TemplateCache, key: &str, in_use: InUse) -> Warm {
    cache.touch(key);
    log::info!("starting as a fork of template {key}");
    let request = Request {
        from: Some(cache.path(key)),
        image: request.image,
        allow_backing: request.allow_backing,
        firmware: request.firmware,
        display: request.display,
        qemu: request.qemu,
        publish: request.publish,
        networking: request.networking,
        nics: Vec::new(),
        devices: request.devices,
        runtime: request.runtime,
        state_home: request.state_home,
        name: request.name,
        stop_timeout: request.stop_timeout,
        on_panic: request.on_panic,
        no_reboot: request.no_reboot,
        paused: request.paused,
        max_resets: request.max_resets,
        log_size: request.log_size,
        qmp: request.qmp,
        sandbox: request.sandbox,
        extra: request.extra,
        ..Request::default()
    };
    Warm { request, in_use: Some(in_use) }
}

/// Everything that a boot depends on, as 32 hexadecimal digits: what shapes the machine, which files it boots from, QEMU's program, the
/// processor, this version, and the condition. Backing files are checked by the template itself.
fn key(request: &Request, condition: &Condition) -> Result<String, Error> {
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
        log_size: None,
        qmp: None,
        sandbox: true,
        ..request.clone()
    };
    let arch = request.arch.or_else(|| accel::Machine::here().map(|here| here.arch));
    let arch = arch.ok_or_else(|| Error::from(StartError::UnknownHost))?;
    let qemu = programs::qemu(arch, request.qemu.as_deref(), &SearchPath::from_env())
        .map_err(|error| Error::from(StartError::from(error)))?;
    let mut text = format!("{}\n{condition}\n{machine:?}\n", env!("CARGO_PKG_VERSION"));
    let current = std::env::current_dir().unwrap_or_default();
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
    let digest = Sha256::digest(text.as_bytes());
    Ok(digest.iter().take(16).fold(String::new(), |mut key, byte| {
        let _ = write!(key, "{byte:02x}");
        key
    }))
}
