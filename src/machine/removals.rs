//! Unplugs what the guest has to release.

use std::time::Duration;

use crate::control::verbs;

use super::{Error, Machine, milliseconds};

impl Machine {
    /// Unplugs a disk; the guest is asked and has this time. A disk that it has mounted, according to its agent, is refused.
    ///
    /// # Errors
    /// [`Error::is_timeout`] if the guest has not released it by then; the request stays pending.
    pub async fn remove_disk(&self, id: &str, timeout: Duration) -> Result<(), Error> {
        self.unplug_disk(id, timeout, None).await
    }

    /// The same even for a disk that the guest has mounted: data that it has not written yet is lost.
    ///
    /// # Errors
    /// As of [`Machine::remove_disk`], except for that one.
    pub async fn force_remove_disk(&self, id: &str, timeout: Duration) -> Result<(), Error> {
        self.unplug_disk(id, timeout, Some(true)).await
    }

    async fn unplug_disk(&self, id: &str, timeout: Duration, force: Option<bool>) -> Result<(), Error> {
        let call = verbs::RemoveDisk { id: id.to_owned(), timeout_ms: Some(milliseconds(timeout)), force };
        released(self.call(call).await?.removed, id, timeout)
    }

    /// Unplugs a network card, and its forwards with it; the guest is asked and has this time.
    ///
    /// # Errors
    /// As of [`Machine::remove_disk`].
    pub async fn remove_nic(&self, id: &str, timeout: Duration) -> Result<(), Error> {
        let call = verbs::RemoveNic { id: id.to_owned(), timeout_ms: Some(milliseconds(timeout)) };
        released(self.call(call).await?.removed, id, timeout)
    }

    /// Unplugs any other device; the guest is asked and has this time.
    ///
    /// # Errors
    /// As of [`Machine::remove_disk`].
    pub async fn remove_device(&self, id: &str, timeout: Duration) -> Result<(), Error> {
        let timeout_ms = Some(milliseconds(timeout));
        let call = verbs::RemoveDevice { id: id.to_owned(), timeout_ms, force: None };
        released(self.call(call).await?.removed, id, timeout)
    }
}

fn released(removed: bool, id: &str, waited: Duration) -> Result<(), Error> {
    if removed { Ok(()) } else { Err(Error::NotReleased { id: id.to_owned(), waited }) }
}
