//! Events for subscribers: QEMU's, and vmrun's own. A slow subscriber loses events and gets their number; it delays no other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::qmp::{Event, View};

use crate::vm::guest::boot_watch::NothingToBoot;
use crate::vm::state::run_state::RunState;

/// How many events are kept for late subscribers, and how many a subscriber may be behind.
const KEPT: usize = 1000;

/// An event with its number in the order of all events.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Counts from 1 in the life of a supervisor.
    pub sequence: u64,
    /// Host time in milliseconds after the Unix epoch.
    pub time_unix_ms: u64,
    /// The same in microseconds, as precisely as QEMU reports it.
    pub time_unix_us: u64,
    /// QEMU's name, e.g. `SHUTDOWN`, or one of vmrun's own, which begin with `VMRUN_`.
    pub name: String,
    /// The event's data.
    pub data: Map<String, Value>,
    /// The parsed event, if it is one of QEMU's.
    pub view: View,
}

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq)]
pub enum BusEvent {
    /// The next event.
    Record(Arc<Record>),
    /// So many events were lost: the subscriber was too slow.
    Lost(u64),
}

/// All events. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Bus {
    inner: Arc<Mutex<Inner>>,
    live: broadcast::Sender<Arc<Record>>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    kept: VecDeque<Arc<Record>>,
}

/// A subscriber: first the kept events that it asked for, then the new ones, without a gap.
#[derive(Debug)]
pub struct Subscriber {
    past: VecDeque<Arc<Record>>,
    live: broadcast::Receiver<Arc<Record>>,
}

impl Default for Bus {
    fn default() -> Self {
        Self { inner: Arc::default(), live: broadcast::Sender::new(KEPT) }
    }
}

impl Bus {
    /// Publishes an event of QEMU's.
    pub(super) fn publish_qemu(&self, event: &Event) {
        let time = event.timestamp.time().unwrap_or_else(SystemTime::now);
        self.publish_at(time, &event.name, event.data.clone(), event.view.clone());
    }

    /// Publishes an event of vmrun's own.
    pub(super) fn publish(&self, name: &str, data: Value) {
        let data = match data {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        self.publish_at(SystemTime::now(), name, data, View::Other);
    }

    fn publish_at(&self, time: SystemTime, name: &str, data: Map<String, Value>, view: View) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.last += 1;
        let record = Arc::new(Record {
            sequence: inner.last,
            time_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            time_unix_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
            name: name.to_owned(),
            data,
            view,
        });
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(Arc::clone(&record));
        // sent under the lock, so that no subscriber can start between the two
        let _ = self.live.send(record);
    }

    /// Subscribes. With `since`, the kept events after that number come first.
    pub fn subscribe(&self, since: Option<u64>) -> Subscriber {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let past = match since {
            Some(since) => inner.kept.iter().filter(|record| record.sequence > since).cloned().collect(),
            None => VecDeque::new(),
        };
        Subscriber { past, live: self.live.subscribe() }
    }
}

impl Subscriber {
    /// Waits for the next event; `None` once the VM has ended. Cancellation-safe.
    pub async fn next(&mut self) -> Option<BusEvent> {
        if let Some(record) = self.past.pop_front() {
            return Some(BusEvent::Record(record));
        }
        match self.live.recv().await {
            Ok(record) => Some(BusEvent::Record(record)),
            Err(RecvError::Lagged(count)) => Some(BusEvent::Lost(count)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Subscriber {
    /// An event that has arrived already; does not wait.
    pub fn try_next(&mut self) -> Option<BusEvent> {
        if let Some(record) = self.past.pop_front() {
            return Some(BusEvent::Record(record));
        }
        match self.live.try_recv() {
            Ok(record) => Some(BusEvent::Record(record)),
            Err(TryRecvError::Lagged(count)) => Some(BusEvent::Lost(count)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

/// The owner's state that others can watch without a request to the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchedState {
    /// What QEMU does.
    pub run_state: RunState,
    /// The guest's kernel has panicked since the start (or the last reset).
    pub panicked: bool,
    /// A shutdown is under way.
    pub stopping: bool,
    /// The firmware has found nothing to boot since the start (or the last reset).
    pub nothing_to_boot: Option<NothingToBoot>,
    /// The console shows that the guest's kernel has panicked, and no panic device has told it.
    pub console_panic: bool,
    /// How often the guest has reset the machine.
    pub guest_resets: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn names(subscriber: &mut Subscriber, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        while names.len() < count {
            match subscriber.next().await {
                Some(BusEvent::Record(record)) => names.push(record.name.clone()),
                Some(BusEvent::Lost(count)) => names.push(format!("lost {count}")),
                None => break,
            }
        }
        names
    }

    #[tokio::test]
    async fn the_past_comes_first_and_nothing_twice() {
        let bus = Bus::default();
        bus.publish("A", Value::Null);
        bus.publish("B", Value::Null);
        let mut all = bus.subscribe(Some(0));
        let mut some = bus.subscribe(Some(1));
        let mut new = bus.subscribe(None);
        bus.publish("C", Value::Null);
        drop(bus);
        assert_eq!(names(&mut all, 9).await, ["A", "B", "C"]);
        assert_eq!(names(&mut some, 9).await, ["B", "C"]);
        assert_eq!(names(&mut new, 9).await, ["C"]);
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_what_it_lost() {
        let bus = Bus::default();
        let mut slow = bus.subscribe(None);
        for number in 0..KEPT + 100 {
            bus.publish(&format!("E{number}"), Value::Null);
        }
        let first = names(&mut slow, 1).await;
        // tokio rounds the queue up to a power of two
        assert!(first[0].starts_with("lost "), "{first:?}");
    }
}
