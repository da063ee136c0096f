//! `--warm`: starts are forks of a template that the first start makes.

mod check;
mod key;

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::control::verbs;
use crate::host::PROGRESS;
use crate::host::template_cache::{InUse, KeyLock, TemplateCache};
use crate::spec::{Condition, Request};
use crate::vm::{ErrorChain, StartError, check_template};

use super::console::{SHOWN_BYTES, last_lines};
use super::{Error, Machine};

/// How long the first start may take to meet its condition: as long as a large guest takes to boot without KVM.
const BOOT: Duration = Duration::from_secs(600);

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
    check::check(&request)?;
    let cache = TemplateCache::open().map_err(cache_error)?;
    let key = key::key(&request, &condition)?;
    let keys = || std::iter::once(key.clone()).chain(key::further(&key));
    let find = || keys().find_map(|key| good(&cache, &key, &request).ok().map(|in_use| (key, in_use)));
    if let Some((key, in_use)) = find() {
        return Ok(fork(request, &cache, &key, in_use));
    }
    let lock = lock(&cache, &key).await?;
    // the process that had the lock may have made it
    let (key, in_use) = match find() {
        Some(found) => found,
        None => {
            let taken =
                || Error::TemplateCache("templates that fit no more are in the way, and in use".to_owned());
            let free = keys().find(|key| is_free(&cache, key, &request)).ok_or_else(taken)?;
            let own_lock = if free == key { None } else { Some(self::lock(&cache, &free).await?) };
            make(&request, &condition, &cache, &free).await?;
            let gone = || Error::TemplateCache(format!("template {free} is gone already"));
            // before others are removed for it: it stays even if it alone is larger than the cache may be
            let made = cache.hold(&free).ok_or_else(gone)?;
            drop(own_lock);
            let limit = cache.limit().map_err(|error| Error::File { path: cache.path(&free), error })?;
            for gone in cache.prune(Some(limit), None) {
                log::info!("template {} was not used for longest, and made room", gone.key);
            }
            (free, made)
        }
    };
    drop(lock);
    Ok(fork(request, &cache, &key, in_use))
}

/// Waits for the right to make the template of this key.
async fn lock(cache: &TemplateCache, key: &str) -> Result<KeyLock, Error> {
    let (path, key) = (cache.path(key), key.to_owned());
    let locked = move || {
        let cache = TemplateCache::open().map_err(cache_error)?;
        let busy = || log::info!(target: PROGRESS, "another vmrun boots the template {key}");
        cache.lock(&key, busy).map_err(|error| {
            Error::TemplateCache(format!("no template can be made in {}: {error}", folder_of(&path)))
        })
    };
    tokio::task::spawn_blocking(locked).await.map_err(cache_error)?
}

/// Whether a template can be made under this key. One that fits no more is removed for it, if that is possible.
fn is_free(cache: &TemplateCache, key: &str, request: &Request) -> bool {
    match good(cache, key, request) {
        Err(Unfit::Changed(why)) => log::info!("template {key} is of no use any more: {why}"),
        Ok(_) | Err(Unfit::Missing) => log::info!("there is no template {key} yet"),
    }
    cache.make_free(key)
}

fn folder_of(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}

/// A template whose files are as they were, which is in use from now on; or why there is none.
fn good(cache: &TemplateCache, key: &str, request: &Request) -> Result<InUse, Unfit> {
    let cached = cache.find(key).ok_or(Unfit::Missing)?;
    // before it is looked at: it is not removed in between
    let in_use = cache.hold(key);
    match check_template(&cached.path, request) {
        Ok(()) => in_use.ok_or(Unfit::Missing),
        Err(why) => Err(Unfit::Changed(Box::new(why))),
    }
}

/// Why a template in the cache cannot be used.
enum Unfit {
    /// There is none, or it is being removed.
    Missing,
    Changed(Box<StartError>),
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
        max_lifetime: None,
        keep_logs: None,
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

pub(super) fn cache_error(why: impl std::error::Error) -> Error {
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
        max_lifetime: request.max_lifetime,
        log_size: request.log_size,
        keep_logs: request.keep_logs,
        qmp: request.qmp,
        sandbox: request.sandbox,
        extra: request.extra,
        ..Request::default()
    };
    Warm { request, in_use: Some(in_use) }
}
