//! `--warm`: starts are forks of a template that the first start makes.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use crate::control::verbs;
use crate::host::PROGRESS;
use crate::host::accel;
use crate::host::programs::{self, SearchPath};
use crate::host::template_cache::TemplateCache;
use crate::spec::{Condition, Request};
use crate::vm::{ErrorChain, StartError, check_template};

use super::{Error, Machine};

/// How long the first start may take to meet its condition: as long as a large guest takes to boot without KVM.
const BOOT: Duration = Duration::from_secs(600);
/// How much of the console is shown if it does not.
const SHOWN_LINES: usize = 20;
const SHOWN_BYTES: usize = 8 << 10;

/// The request for a fork of a template with which [`Request::warm`] is met: of the one in the cache, or of a new one, for which the VM
/// is booted once, in this process.
///
/// # Errors
/// The VM cannot be started or frozen, does not meet the condition, or the cache cannot be used.
pub async fn warm(request: Request) -> Result<Request, Error> {
    let Some(condition) = request.warm.clone() else { return Ok(request) };
    let cache = TemplateCache::open().map_err(cache_error)?;
    let key = key(&request, &condition)?;
    if is_good(&cache, &key, &request) {
        return Ok(fork(request, &cache, &key));
    }
    let lock = {
        let path = cache.path(&key);
        let (waiting, key) = (key.clone(), key.clone());
        let locked = move || {
            let cache = TemplateCache::open().map_err(cache_error)?;
            let busy = || log::info!(target: PROGRESS, "another vmrun boots the template {waiting}");
            cache.lock(&key, busy).map_err(|error| Error::File { path, error })
        };
        tokio::task::spawn_blocking(locked).await.map_err(cache_error)??
    };
    // whoever had the lock has made it
    if !is_good(&cache, &key, &request) {
        make(&request, &condition, &cache, &key).await?;
        let limit = cache.limit().map_err(|error| Error::File { path: cache.path(&key), error })?;
        for gone in cache.prune(Some(limit), None) {
            log::info!("template {} was not used for longest, and made room", gone.key);
        }
    }
    drop(lock);
    Ok(fork(request, &cache, &key))
}

/// Whether there is a template whose files are as they were. One that cannot be used is removed.
fn is_good(cache: &TemplateCache, key: &str, request: &Request) -> bool {
    let Some(cached) = cache.find(key) else {
        log::info!("there is no template {key} yet");
        return false;
    };
    match check_template(&cached.path, request) {
        Ok(()) => true,
        Err(error) => {
            log::info!("template {key} is of no use any more: {error}");
            cached.remove();
            false
        }
    }
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
    vm.freeze(cache.path(key)).await?;
    log::info!(target: PROGRESS, "");
    Ok(())
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
fn fork(request: Request, cache: &TemplateCache, key: &str) -> Request {
    cache.touch(key);
    log::info!("starting as a fork of template {key}");
    Request {
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
    }
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
    let disks = request.disks.iter().filter_map(|disk| disk.file.clone());
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
