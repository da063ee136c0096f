//! `events`.

use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::Value;

use crate::control::error::WireError;
use crate::control::wire;
use crate::vm::{BusEvent, Handle, Subscriber};

use super::method::{EndedVm, Stream, StreamMethod, method};

method! {
    /// Subscribes to the events of QEMU and of vmrun.
    Events { ; names: Vec<String>, since: i64 } -> EventReply, repeatable
}

wire::replies! {
    /// Replies of `Events`: first an empty one, which confirms the subscription.
    EventReply { ; event: Event, lost: u64 }
    /// An event.
    Event { sequence: u64, time_unix_ms: u64, name: String, data: Value; }
}

impl Stream for Events {}

impl StreamMethod for Events {
    fn start(self, vm: &Handle) -> Result<BoxStream<'static, Result<EventReply, WireError>>, WireError> {
        let since = self.since.map(|since| u64::try_from(since).unwrap_or(0));
        let subscriber = vm.bus.subscribe(since);
        let subscription = Subscription { subscriber, names: self.names, vm: vm.clone(), begun: false };
        Ok(stream::unfold(subscription, |mut subscription| async move {
            let reply = subscription.next().await?;
            Some((Ok(reply), subscription))
        })
        .boxed())
    }

    fn after_the_end(self, _: &EndedVm<'_>) -> Option<Vec<EventReply>> {
        Some(Vec::new())
    }
}

struct Subscription {
    subscriber: Subscriber,
    names: Option<Vec<String>>,
    vm: Handle,
    begun: bool,
}

impl Subscription {
    /// The next reply; `None` once the VM has ended.
    async fn next(&mut self) -> Option<EventReply> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some(EventReply { event: None, lost: None });
        }
        loop {
            let event = tokio::select! { biased;
                event = self.subscriber.next() => event?,
                _ = self.vm.ended() => return None,
            };
            let record = match event {
                BusEvent::Lost(count) => return Some(EventReply { event: None, lost: Some(count) }),
                BusEvent::Record(record) => record,
            };
            let named =
                |names: &Vec<String>| names.iter().any(|name| name.eq_ignore_ascii_case(&record.name));
            if self.names.as_ref().is_none_or(named) {
                let event = Event {
                    sequence: record.sequence,
                    time_unix_ms: record.time_unix_ms,
                    name: record.name.clone(),
                    data: Value::Object(record.data.clone()),
                };
                return Some(EventReply { event: Some(event), lost: None });
            }
        }
    }
}
