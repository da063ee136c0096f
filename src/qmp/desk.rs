//! Commands on their way: those that wait for an answer, and the bytes that wait for the writer.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Notify, oneshot, watch};

use super::error::{CommandError, SessionError};
use super::limits::Limits;
use super::message::Refusal;

pub(super) type Answer = Result<Value, CommandError>;

/// A command as it goes over the wire. Arguments that are absent are left out.
#[derive(Serialize)]
pub(super) struct Request<'a, A: Serialize> {
    pub(super) execute: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) arguments: Option<A>,
    pub(super) id: u64,
}

struct Waiter {
    command: String,
    reply: oneshot::Sender<Answer>,
}

/// Bytes for the writer; a descriptor goes with the first of them.
#[derive(Default)]
pub(super) struct Parcel {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptor: Option<OwnedFd>,
}

struct State {
    next_id: u64,
    waiters: HashMap<u64, Waiter>,
    outgoing: Vec<Parcel>,
    open: bool,
}

impl State {
    fn queued_bytes(&self) -> usize {
        self.outgoing.iter().map(|parcel| parcel.bytes.len()).sum()
    }

    /// Puts bytes behind those that wait, so that they go out in one write; a descriptor begins a parcel of its own.
    fn queue(&mut self, bytes: Vec<u8>, descriptor: Option<OwnedFd>) {
        match self.outgoing.last_mut().filter(|_| descriptor.is_none()) {
            Some(last) => last.bytes.extend_from_slice(&bytes),
            None => self.outgoing.push(Parcel { bytes, descriptor }),
        }
    }
}

/// What the handles, the reader and the writer of a session share.
pub(super) struct Desk {
    state: Mutex<State>,
    /// There is something to write.
    pub(super) work: Notify,
    /// This side wants to end the session.
    pub(super) hang_up: Notify,
    end: watch::Sender<Option<SessionError>>,
    pub(super) limits: Limits,
}

impl Desk {
    pub(super) fn new(limits: Limits) -> Self {
        // QEMU may still answer commands of a client before this one, so ids do not begin at 1.
        let next_id = u64::from(rand::random::<u32>()) << 16;
        let state = State { next_id, waiters: HashMap::new(), outgoing: Vec::new(), open: true };
        Self {
            state: Mutex::new(state),
            work: Notify::new(),
            hang_up: Notify::new(),
            end: watch::Sender::new(None),
            limits,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues commands that belong together, in their order: all of them, or none if they do not fit. A descriptor goes with the first.
    pub(super) fn submit<A: Serialize>(
        &self,
        commands: &[(&str, Option<A>)],
        descriptor: Option<OwnedFd>,
    ) -> Vec<oneshot::Receiver<Answer>> {
        let (senders, receivers): (Vec<_>, Vec<_>) = commands.iter().map(|_| oneshot::channel()).unzip();
        let mut state = self.lock();
        match self.encode(&state, commands) {
            Ok(bytes) => {
                state.queue(bytes, descriptor);
                for ((name, _), reply) in commands.iter().zip(senders) {
                    let id = state.next_id;
                    state.next_id += 1;
                    state.waiters.insert(id, Waiter { command: (*name).to_owned(), reply });
                }
                drop(state);
                self.work.notify_one();
            }
            Err(error) => {
                for reply in senders {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
        receivers
    }

    fn encode<A: Serialize>(
        &self,
        state: &State,
        commands: &[(&str, Option<A>)],
    ) -> Result<Vec<u8>, CommandError> {
        if !state.open {
            return Err(CommandError::Disconnected);
        }
        if state.waiters.len() + commands.len() > self.limits.waiters {
            return Err(CommandError::Busy);
        }
        let mut bytes = Vec::new();
        for (id, (execute, arguments)) in (state.next_id..).zip(commands) {
            let before = bytes.len();
            let request = Request { execute, arguments: arguments.as_ref(), id };
            serde_json::to_writer(&mut bytes, &request).map_err(|error| CommandError::Decode {
                command: (*execute).to_owned(),
                why: error.to_string(),
            })?;
            bytes.push(b'\n');
            if bytes.len() - before > self.limits.command {
                return Err(CommandError::TooLong {
                    command: (*execute).to_owned(),
                    limit: self.limits.command,
                });
            }
        }
        if state.queued_bytes() + bytes.len() > self.limits.queued_bytes {
            return Err(CommandError::Busy);
        }
        Ok(bytes)
    }

    /// What is queued, for the writer.
    pub(super) fn take_outgoing(&self) -> Vec<Parcel> {
        std::mem::take(&mut self.lock().outgoing)
    }

    /// Hands an answer to whoever waits for it; if nobody does any more, it is dropped here.
    pub(super) fn answer(&self, id: Option<u64>, result: Result<Value, Refusal>) {
        let waiter = id.and_then(|id| self.lock().waiters.remove(&id));
        match waiter {
            Some(Waiter { command, reply }) => {
                let _ = reply.send(result.map_err(|Refusal { class, desc }| CommandError::Refused {
                    class,
                    desc,
                    command,
                }));
            }
            None => {
                log::debug!("QEMU's monitor answered what was not asked: id {id:?}, error {:?}", result.err())
            }
        }
    }

    /// Commands without an answer, those included that nobody waits for any more.
    pub(super) fn outstanding(&self) -> usize {
        self.lock().waiters.len()
    }

    /// No new commands. Those on their way may still be answered.
    pub(super) fn shut(&self) {
        self.lock().open = false;
    }

    /// The session is over: every waiter hears of it.
    pub(super) fn finish(&self, why: SessionError) {
        let waiters = {
            let mut state = self.lock();
            state.open = false;
            state.outgoing = Vec::new();
            std::mem::take(&mut state.waiters)
        };
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(why);
            first
        });
        drop(waiters);
    }

    /// Why the session ended, once it has.
    pub(super) fn end(&self) -> Option<SessionError> {
        self.end.borrow().clone()
    }

    /// Resolves when the session has ended.
    pub(super) async fn ended(&self) {
        let mut end = self.end.subscribe();
        let _ = end.wait_for(Option::is_some).await;
    }
}
