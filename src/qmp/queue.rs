//! The way of events from the reader to their one receiver. It never holds up the reader (replies come over the same
//! connection) and never loses an event in silence: where some did not fit, the receiver finds a mark in their place.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::error::SessionError;
use super::event::Event;
use super::limits::Limits;

/// What an event receiver gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// An event.
    Event(Event),
    /// So many events did not fit here. Ask QEMU for its present state.
    Lost(u64),
}

#[derive(Debug)]
struct Queue {
    /// Each with the size of its text. At most one mark more than `Limits::events`.
    waiting: VecDeque<(Delivery, usize)>,
    bytes: usize,
    end: Option<SessionError>,
    receiver_gone: bool,
}

#[derive(Debug)]
struct Channel {
    queue: Mutex<Queue>,
    news: Notify,
    limits: Limits,
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reader's end.
#[derive(Debug)]
pub(super) struct EventSender(Arc<Channel>);

/// The events of a session, in QEMU's order.
#[derive(Debug)]
pub struct EventReceiver(Arc<Channel>);

pub(super) fn channel(limits: Limits) -> (EventSender, EventReceiver) {
    let queue = Queue { waiting: VecDeque::new(), bytes: 0, end: None, receiver_gone: false };
    let channel = Arc::new(Channel { queue: Mutex::new(queue), news: Notify::new(), limits });
    (EventSender(channel.clone()), EventReceiver(channel))
}

impl EventSender {
    /// Queues an event whose text had `size` bytes.
    pub(super) fn send(&self, event: Event, size: usize) {
        let mut queue = self.0.lock();
        if queue.receiver_gone || queue.end.is_some() {
            return;
        }
        let limits = &self.0.limits;
        let full = queue.waiting.len() >= limits.events || queue.bytes + size > limits.event_bytes;
        let lost = full || size > limits.event;
        match queue.waiting.back_mut() {
            Some((Delivery::Lost(count), _)) if lost => *count += 1,
            _ if lost => queue.waiting.push_back((Delivery::Lost(1), 0)),
            _ => {
                queue.bytes += size;
                queue.waiting.push_back((Delivery::Event(event), size));
            }
        }
        drop(queue);
        self.0.news.notify_one();
    }

    /// No more events, and why. What is queued is still delivered.
    pub(super) fn end(&self, why: SessionError) {
        self.0.lock().end.get_or_insert(why);
        self.0.news.notify_one();
    }
}

impl Drop for EventSender {
    /// The runtime may drop the reader task at any point; the receiver must not wait for ever.
    fn drop(&mut self) {
        self.end(SessionError::HungUp);
    }
}

impl EventReceiver {
    /// The next event; `None` once the session has ended and everything was delivered. Safe to cancel.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            {
                let mut queue = self.0.lock();
                if let Some((delivery, size)) = queue.waiting.pop_front() {
                    queue.bytes -= size;
                    return Some(delivery);
                }
                // A flood's memory is given back.
                queue.waiting.shrink_to(1024);
                if queue.end.is_some() {
                    return None;
                }
            }
            self.0.news.notified().await;
        }
    }

    /// Why the session ended, once it has.
    pub fn end(&self) -> Option<SessionError> {
        self.0.lock().end.clone()
    }

    /// How many deliveries wait to be taken.
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting.len()
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.receiver_gone = true;
        queue.waiting = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qmp::event::Timestamp;

    fn event(number: u64) -> Event {
        let name = format!("E{number}");
        Event::new(name, serde_json::Map::new(), Timestamp::default())
    }

    #[tokio::test]
    async fn marks_the_place_of_what_did_not_fit() {
        let (sender, mut receiver) = channel(Limits { events: 2, ..Limits::default() });
        (0..5).for_each(|number| sender.send(event(number), 10));
        assert_eq!(receiver.next().await, Some(Delivery::Event(event(0))));
        sender.send(event(5), 10);
        assert_eq!(receiver.next().await, Some(Delivery::Event(event(1))));
        sender.send(event(6), 10);
        assert_eq!(receiver.next().await, Some(Delivery::Lost(4)));
        drop(sender);
        assert_eq!(receiver.next().await, Some(Delivery::Event(event(6))));
        assert_eq!(receiver.next().await, None);
        assert!(matches!(receiver.end(), Some(SessionError::HungUp)));
    }

    #[tokio::test]
    async fn is_bounded_in_bytes_too() {
        let (sender, mut receiver) = channel(Limits { event_bytes: 100, ..Limits::default() });
        sender.send(event(0), 90);
        sender.send(event(1), 20);
        assert_eq!(receiver.next().await, Some(Delivery::Event(event(0))));
        assert_eq!(receiver.next().await, Some(Delivery::Lost(1)));
        sender.send(event(2), 20);
        assert_eq!(receiver.next().await, Some(Delivery::Event(event(2))));
    }

    #[tokio::test]
    async fn one_that_is_too_long_is_counted_like_one_too_many() {
        let (sender, mut receiver) = channel(Limits { event: 100, ..Limits::default() });
        [101, 100, 1000, 101]
            .into_iter()
            .zip(0..)
            .for_each(|(size, number)| sender.send(event(number), size));
        drop(sender);
        assert_eq!(receiver.next().await, Some(Delivery::Lost(1)));
        assert_eq!(receiver.next().await, Some(Delivery::Event(event(1))));
        assert_eq!(receiver.next().await, Some(Delivery::Lost(2)));
        assert_eq!(receiver.next().await, None);
    }
}
