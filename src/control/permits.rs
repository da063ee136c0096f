//! Limits how many clients may be connected at once, on all sockets of a VM together.
//!
//! No kind of client can lock the others out. When all permits are taken and another client connects, the permit of an idle client,
//! or of one with a short call under way, is revoked: first of clients that never made a call, so that a flood of new connections
//! does not evict a client between two calls; then of idle ones that did; then of those with a short call. A client that waits
//! (`Wait`, a stream) or whose change is under way keeps its connection, but the number of such connections is limited: one too
//! many is refused with a reason, and the rest stays available for short calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use crate::host::descriptors;

/// The most connections at once, whatever the limit of descriptors: each may hold a message of a mebibyte.
const MOST: usize = 1024;
/// The fewest connections, however low the limit of descriptors.
const FEWEST: usize = 8;
/// Descriptors reserved for the supervisor's own work: images, helpers, probes, the console's log.
const RESERVE: usize = 64;
/// How long a client may be idle before its permit can be revoked: a new client may not have run yet.
const IDLE_GRACE: Duration = Duration::from_millis(100);
/// How long a short call may take before its permit can be revoked: a hanging QEMU delays every call.
const SERVED_GRACE: Duration = Duration::from_secs(10);
/// How long a revoked connection may take to close.
const CLOSING: Duration = Duration::from_millis(200);

/// The limits of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    total: usize,
    waiting: usize,
    changing: usize,
}

impl Limits {
    /// The limits for this process's limit of open files.
    pub(super) fn of_this_process() -> Self {
        match descriptors::limit_and_use() {
            Ok((limit, in_use)) => Self::of(limit.saturating_sub(in_use)),
            Err(error) => {
                log::warn!("the limit of open files is not known: {error}");
                Self::of(0)
            }
        }
    }

    /// The limits for so many free descriptors.
    fn of(free: usize) -> Self {
        let total = (free - RESERVE.min(free / 2)).clamp(FEWEST, MOST);
        Self { total, waiting: total / 2, changing: total / 4 }
    }
}

/// What a connection is used for while a call is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A short call, with an immediate reply.
    Short,
    /// A change of the VM.
    Change,
    /// The client waits for an event in the guest or of the VM.
    Wait,
}

/// All permits.
#[derive(Clone)]
pub(super) struct Permits(Arc<Inner>);

struct Inner {
    limits: Limits,
    all: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    changing: Arc<Semaphore>,
    revocable: Mutex<Revocable>,
    /// A permit has become revocable.
    news: Notify,
    /// A permit was released.
    returned: Notify,
}

/// The revocable permits, in the order of revocation.
#[derive(Default)]
struct Revocable {
    next: u64,
    permits: BTreeMap<Ticket, (Instant, Arc<Notify>)>,
}

/// What the client does, and since when.
type Ticket = (Client, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Client {
    /// It has never made a call.
    Stranger,
    /// It has, and is idle or does not read.
    Idle,
    /// It waits for the reply to a short call.
    Served,
}

/// The permission to be connected; released on drop.
pub(super) struct Permit {
    permits: Permits,
    revoked: Arc<Notify>,
    state: Mutex<State>,
    _permit: Option<OwnedSemaphorePermit>,
}

#[derive(Default)]
struct State {
    /// Its client has made a call.
    known: bool,
    /// While it is revocable.
    ticket: Option<Ticket>,
    /// While it is not.
    _share: Option<OwnedSemaphorePermit>,
}

/// Too many clients wait already, or have changes under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TooMany {
    pub(super) message: String,
    pub(super) hint: &'static str,
}

impl Permits {
    pub(super) fn new(limits: Limits) -> Self {
        let semaphore = |count| Arc::new(Semaphore::new(count));
        Self(Arc::new(Inner {
            limits,
            all: semaphore(limits.total),
            waiting: semaphore(limits.waiting),
            changing: semaphore(limits.changing),
            revocable: Mutex::default(),
            news: Notify::new(),
            returned: Notify::new(),
        }))
    }

    /// Gets a permit; waits at most until another can be revoked.
    pub(super) async fn take(&self) -> Permit {
        let permit = match Arc::clone(&self.0.all).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => self.vacate().await,
        };
        Permit { permits: self.clone(), revoked: Arc::default(), state: Mutex::default(), _permit: permit }
    }

    async fn vacate(&self) -> Option<OwnedSemaphorePermit> {
        let free = Arc::clone(&self.0.all).acquire_owned();
        tokio::pin!(free);
        let began = Instant::now();
        let mut asked = false;
        loop {
            let due = if asked { None } else { self.next_due(began) };
            tokio::select! { biased;
                // the semaphore is never closed
                permit = &mut free => return permit.ok(),
                () = self.0.news.notified(), if !asked => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => asked = self.revoke(),
            }
        }
    }

    /// Revokes the next permit; returns whether there was one.
    fn revoke(&self) -> bool {
        let first = lock(&self.0.revocable).permits.pop_first();
        first.inspect(|(_, (_, revoked))| revoked.notify_one()).is_some()
    }

    /// Descriptors have run out although there are permits: revokes one, and waits until a connection is closed.
    pub(super) async fn make_room(&self) {
        let returned = self.0.returned.notified();
        self.revoke();
        let _ = timeout(CLOSING, returned).await;
    }

    /// From when on a permit may be revoked for a client that has waited since `began`; the permit of a client that has made calls
    /// only if none was released meanwhile.
    fn next_due(&self, began: Instant) -> Option<Instant> {
        let revocable = lock(&self.0.revocable);
        let ((client, _), (since, _)) = revocable.permits.first_key_value()?;
        Some(match client {
            Client::Stranger => *since + IDLE_GRACE,
            Client::Idle => began.max(*since) + IDLE_GRACE,
            Client::Served => *since + SERVED_GRACE,
        })
    }
}

impl Permit {
    /// From now on the client is idle: the connection waits for a call, or for the client to read a reply.
    pub(super) fn idle(&self) {
        let mut state = lock(&self.state);
        let client = if state.known { Client::Idle } else { Client::Stranger };
        self.revocable(&mut state, client);
    }

    /// The client has made a call, which uses the connection like this until [`Permit::idle`].
    ///
    /// # Errors
    /// Too many connections are used like this.
    pub(super) fn busy(&self, with: Use) -> Result<(), TooMany> {
        let mut state = lock(&self.state);
        state.known = true;
        let Inner { limits, waiting, changing, .. } = &*self.permits.0;
        let (share, count, what) = match with {
            Use::Short => {
                self.revocable(&mut state, Client::Served);
                return Ok(());
            }
            Use::Wait => (waiting, limits.waiting, "clients wait for something"),
            Use::Change => (changing, limits.changing, "changes are under way"),
        };
        let Ok(share) = Arc::clone(share).try_acquire_owned() else {
            return Err(TooMany {
                message: format!("{count} {what} in this VM already, which is as many as can at once"),
                hint: "end some of them, or wait until they have ended; more open files (`ulimit -n`) allow more, up to a limit",
            });
        };
        self.irrevocable(&mut state);
        state._share = Some(share);
        Ok(())
    }

    fn revocable(&self, state: &mut State, client: Client) {
        self.irrevocable(state);
        let mut revocable = lock(&self.permits.0.revocable);
        revocable.next += 1;
        let ticket = (client, revocable.next);
        revocable.permits.insert(ticket, (Instant::now(), self.revoked.clone()));
        state.ticket = Some(ticket);
        drop(revocable);
        self.permits.0.news.notify_one();
    }

    fn irrevocable(&self, state: &mut State) {
        state._share = None;
        if let Some(ticket) = state.ticket.take() {
            lock(&self.permits.0.revocable).permits.remove(&ticket);
        }
    }

    /// Resolves when the permit is revoked.
    pub(super) async fn revoked(&self) {
        self.revoked.notified().await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.irrevocable(&mut lock(&self.state));
        self.permits.0.returned.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::task::JoinHandle;

    use super::*;

    fn permits(total: usize) -> Permits {
        Permits::new(Limits { total, waiting: total / 2, changing: total / 4 })
    }

    /// Another client.
    fn taking(permits: &Permits) -> JoinHandle<Permit> {
        let permits = permits.clone();
        tokio::spawn(async move { permits.take().await })
    }

    #[test]
    fn limits_follow_from_the_descriptors() {
        for (free, total) in [(0, 8), (20, 10), (64, 32), (1000, 936), (1 << 20, 1024)] {
            let limits = Limits::of(free);
            assert_eq!(limits, Limits { total, waiting: total / 2, changing: total / 4 }, "{free}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_for_longest_goes_first() {
        let permits = permits(2);
        let (first, second) = (permits.take().await, permits.take().await);
        first.idle();
        second.idle();
        // still without a call: it has sent something that is none, and is idle again
        first.idle();
        let third = taking(&permits);
        second.revoked().await;
        assert!(!third.is_finished());
        drop(second);
        third.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_go_before_clients_and_clients_before_those_that_are_served() {
        let permits = permits(3);
        let [served, client, stranger] = [permits.take().await, permits.take().await, permits.take().await];
        served.busy(Use::Short).unwrap();
        client.busy(Use::Short).unwrap();
        client.idle();
        stranger.idle();
        let began = Instant::now();
        for (goes, after) in [(stranger, IDLE_GRACE), (client, IDLE_GRACE), (served, SERVED_GRACE)] {
            let next = taking(&permits);
            goes.revoked().await;
            assert!(began.elapsed() >= after);
            drop(goes);
            // held until the end
            let next = next.await.unwrap();
            let _ = next.busy(Use::Wait);
            std::mem::forget(next);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_just_come_is_given_a_moment() {
        let permits = permits(1);
        let only = permits.take().await;
        only.idle();
        let began = Instant::now();
        let newcomer = taking(&permits);
        only.revoked().await;
        assert_eq!(began.elapsed(), IDLE_GRACE);
        drop(only);
        newcomer.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_or_changes_keeps_the_connection_and_one_too_many_is_refused() {
        let permits = permits(4);
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(permits.take().await);
        }
        all[0].busy(Use::Wait).unwrap();
        all[1].busy(Use::Wait).unwrap();
        all[2].busy(Use::Change).unwrap();
        assert!(all[3].busy(Use::Wait).unwrap_err().message.contains("2 clients wait"));
        assert!(all[3].busy(Use::Change).unwrap_err().message.contains("1 changes are under way"));
        all[3].busy(Use::Short).unwrap();
        let newcomer = taking(&permits);
        all[3].revoked().await;
        assert!(all[..3].iter().all(|kept| kept.revoked().now_or_never().is_none()));
        drop(all.pop());
        let newcomer = newcomer.await.unwrap();
        // the share ends with the wait
        all[0].idle();
        newcomer.busy(Use::Wait).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn without_descriptors_the_longest_idle_makes_room() {
        let permits = permits(8);
        let (idle, kept) = (permits.take().await, permits.take().await);
        kept.busy(Use::Wait).unwrap();
        idle.idle();
        let asking = permits.clone();
        let asked = tokio::spawn(async move { asking.make_room().await });
        idle.revoked().await;
        assert!(!asked.is_finished());
        drop(idle);
        asked.await.unwrap();
        assert!(kept.revoked().now_or_never().is_none());
    }
}
