//! Who may be connected at once. Clients that connect and say nothing must not keep others out: when every place is
//! taken, the one that has been silent for longest gives its place up; those that never made a call go before those that
//! did, so that a storm of new connections does not drive out a client that waits for its next call.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// How long a client may say nothing before its place can be taken: one that has just been accepted may not have had the
/// processor yet.
const GRACE: Duration = Duration::from_millis(100);

/// All places.
#[derive(Clone)]
pub(super) struct Places(Arc<Inner>);

struct Inner {
    permits: Arc<Semaphore>,
    silent: Mutex<Silent>,
    /// Somebody has fallen silent.
    news: Notify,
}

/// Who says nothing, in the order in which places are given up.
#[derive(Default)]
struct Silent {
    next: u64,
    waiting: BTreeMap<Ticket, (Instant, Arc<Notify>)>,
}

/// Whether the client has ever made a call, then the order in which the silent fell silent.
type Ticket = (bool, u64);

/// One connection's place, given back when it is dropped.
pub(super) struct Place {
    places: Places,
    give_up: Arc<Notify>,
    since: Mutex<Option<Ticket>>,
    /// Its client has made a call.
    known: AtomicBool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self(Arc::new(Inner {
            permits: Arc::new(Semaphore::new(count)),
            silent: Mutex::default(),
            news: Notify::new(),
        }))
    }

    /// A place; waits only while everybody is being served.
    pub(super) async fn take(&self) -> Place {
        let permit = match Arc::clone(&self.0.permits).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => self.vacate().await,
        };
        Place {
            places: self.clone(),
            give_up: Arc::default(),
            since: Mutex::default(),
            known: AtomicBool::new(false),
            _permit: permit,
        }
    }

    async fn vacate(&self) -> Option<OwnedSemaphorePermit> {
        let free = Arc::clone(&self.0.permits).acquire_owned();
        tokio::pin!(free);
        let began = Instant::now();
        let mut asked = false;
        loop {
            let due = if asked { None } else { self.next_due(began) };
            tokio::select! { biased;
                // the semaphore is never closed
                permit = &mut free => return permit.ok(),
                () = self.0.news.notified(), if !asked => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some((_, (_, longest))) = lock(&self.0.silent).waiting.pop_first() {
                        longest.notify_one();
                        asked = true;
                    }
                }
            }
        }
    }

    /// From when on somebody's place may be taken for one that has waited since `began`: from a client that has made calls
    /// only if meanwhile nobody else has left.
    fn next_due(&self, began: Instant) -> Option<Instant> {
        let silent = lock(&self.0.silent);
        let ((known, _), (since, _)) = silent.waiting.first_key_value()?;
        Some(if *known { began.max(*since) } else { *since } + GRACE)
    }
}

impl Place {
    /// Its connection waits for its client from now on: for a call, or for an answer to be read.
    pub(super) fn silent(&self) {
        self.busy();
        let mut silent = lock(&self.places.0.silent);
        silent.next += 1;
        let ticket = (self.known.load(Ordering::Relaxed), silent.next);
        silent.waiting.insert(ticket, (Instant::now(), self.give_up.clone()));
        *lock(&self.since) = Some(ticket);
        drop(silent);
        self.places.0.news.notify_one();
    }

    /// Its client has said something.
    pub(super) fn busy(&self) {
        if let Some(ticket) = lock(&self.since).take() {
            lock(&self.places.0.silent).waiting.remove(&ticket);
        }
    }

    /// Its client has made a call that could be read.
    pub(super) fn known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// Resolves when the place is needed for somebody else.
    pub(super) async fn given_up(&self) {
        self.give_up.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.busy();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;

    /// One more client.
    fn taking(places: &Places) -> JoinHandle<Place> {
        let places = places.clone();
        tokio::spawn(async move { places.take().await })
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_silent_for_longest_goes_first() {
        let places = Places::new(2);
        let (first, second) = (places.take().await, places.take().await);
        first.silent();
        second.silent();
        // the first says something, and falls silent again
        first.busy();
        first.silent();
        let third = taking(&places);
        second.given_up().await;
        assert!(!third.is_finished());
        drop(second);
        third.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_never_made_a_call_goes_first() {
        let places = Places::new(2);
        let (client, stranger) = (places.take().await, places.take().await);
        client.known();
        client.silent();
        stranger.silent();
        let third = taking(&places);
        stranger.given_up().await;
        drop(stranger);
        third.await.unwrap();
        assert!(futures_util::FutureExt::now_or_never(client.given_up()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_just_come_is_given_a_moment() {
        let places = Places::new(1);
        let only = places.take().await;
        only.silent();
        let began = Instant::now();
        let newcomer = taking(&places);
        only.given_up().await;
        assert_eq!(began.elapsed(), GRACE);
        drop(only);
        newcomer.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_served_keeps_the_place() {
        let places = Places::new(1);
        let only = places.take().await;
        let waiting = taking(&places);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!waiting.is_finished());
        only.silent();
        only.given_up().await;
        drop(only);
        waiting.await.unwrap();
    }
}
