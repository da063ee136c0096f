//! Forks of a running VM that goes on: it is frozen into a template, which goes with the last of its forks.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::control::verbs;
use crate::host::template::forget;
use crate::host::template_cache::{InUse, KeyLock, TemplateCache};

use super::warm::cache_error;
use super::{Error, Machine, Request, absolute_text};

/// The place in the cache for a template in between.
#[derive(Debug)]
pub struct ForkPlace {
    cache: TemplateCache,
    key: String,
    /// Nobody takes the template for one that is not used.
    _lock: KeyLock,
}

/// The template in between; removed with this if nothing else uses it.
#[derive(Debug)]
pub struct ForkTemplate {
    folder: PathBuf,
    in_use: Option<InUse>,
}

impl ForkPlace {
    /// A new one.
    ///
    /// # Errors
    /// The cache cannot be used.
    pub fn new() -> Result<Self, Error> {
        let cache = TemplateCache::open().map_err(cache_error)?;
        // those whose last user was killed
        cache.prune(None, None);
        let key = Uuid::new_v4().simple().to_string();
        let lock = cache.lock(&key, || {}).map_err(|error| Error::File { path: cache.path(&key), error })?;
        Ok(Self { cache, key, _lock: lock })
    }

    /// The call that makes the template.
    ///
    /// # Errors
    /// Its path is not UTF-8.
    pub fn freeze(&self) -> Result<verbs::Freeze, Error> {
        let folder = absolute_text(&self.cache.path(&self.key))?;
        Ok(verbs::Freeze { folder, keep_running: Some(true), until_unused: Some(true) })
    }

    /// The template, once it is made.
    ///
    /// # Errors
    /// It is not there.
    pub fn made(self) -> Result<ForkTemplate, Error> {
        let folder = self.cache.path(&self.key);
        let gone = || Error::TemplateCache(format!("template {} is gone already", self.key));
        let in_use = Some(self.cache.hold(&self.key).ok_or_else(gone)?);
        Ok(ForkTemplate { folder, in_use })
    }
}

impl ForkTemplate {
    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What keeps it in use, for a process that starts a fork and then gives it up.
    pub fn take_use(&mut self) -> Option<InUse> {
        self.in_use.take()
    }
}

impl Drop for ForkTemplate {
    fn drop(&mut self) {
        self.in_use = None;
        forget(&self.folder);
    }
}

impl Machine {
    /// Starts so many forks of it, each with a supervisor of its own in this process, and goes on. It is paused while its memory is
    /// copied. It must have been started with [`Request::forkable`], or be a fork itself.
    ///
    /// # Errors
    /// It cannot be frozen, or a fork cannot be started; none is left then.
    pub async fn fork(&self, count: usize) -> Result<Vec<Self>, Error> {
        let place = ForkPlace::new()?;
        self.frozen(place.freeze()?).await?;
        let template = place.made()?;
        let mut forks = Vec::new();
        for _ in 0..count {
            let request = Request {
                from: Some(template.folder().to_owned()),
                runtime: self.directory.path().parent().map(Path::to_owned),
                state_home: self.state_home.clone(),
                ..Request::default()
            };
            forks.push(Self::launch(request).await?);
        }
        Ok(forks)
    }
}
