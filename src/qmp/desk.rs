//! Commands on their way: those that wait for an answer, and the bytes that wait for the writer.

use std::collections::{HashMap, VecDeque};
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
    #[serde(skip_serializing_if = "is_alone")]
    pub(super) id: u64,
}

fn is_alone(id: &u64) -> bool {
    *id == ALONE
}

/// The ids after the first go round: QEMU reads a monitor byte by byte, each in a turn of its main loop, which takes 7 µs. None is
/// used again soon, so that an answer that comes twice finds nobody; where more commands wait, there are more.
const IDS: u64 = 99;
/// Where the first command's ids begin, that no other has.
const FIRST: u64 = 10_000;
/// Stands for none, which a command has that goes out alone while none waits: the next answer is its own, for QEMU answers in order
/// (out-of-band execution is not negotiated), and it is answered the sooner by the seven bytes of an id.
const ALONE: u64 = 0;

struct Waiter {
    command: String,
    reply: oneshot::Sender<Answer>,
}

struct State {
    next_id: u64,
    waiters: HashMap<u64, Waiter>,
    outgoing: VecDeque<Batch>,
    open: bool,
    /// An answer came that nobody had asked for: from now on all commands have ids, to tell theirs from others.
    strayed: bool,
}

/// What is written in one go.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// A descriptor that goes with it, and the command that takes it. QEMU keeps only the last one that it has received,
    /// so nothing may follow before that command was answered.
    pub(super) descriptor: Option<(OwnedFd, u64)>,
}

impl State {
    /// Ids for the next commands.
    fn ids(&self, count: usize) -> Vec<u64> {
        if count == 1 && self.waiters.is_empty() && !self.strayed && self.next_id < FIRST {
            return vec![ALONE];
        }
        let all = (self.next_id..=IDS.max(self.next_id)).chain(1..self.next_id.min(IDS)).chain(IDS + 1..);
        all.filter(|id| !self.waiters.contains_key(id)).take(count).collect()
    }

    fn queue(&mut self, bytes: Vec<u8>, descriptor: Option<(OwnedFd, u64)>) {
        match self.outgoing.back_mut() {
            Some(last) if descriptor.is_none() && last.descriptor.is_none() => {
                last.bytes.extend_from_slice(&bytes);
            }
            _ => self.outgoing.push_back(Batch { bytes, descriptor }),
        }
    }
}

/// The id after this one.
fn after(id: u64) -> u64 {
    if id >= IDS { 1 } else { id + 1 }
}

/// What the handles, the reader and the writer of a session share.
pub(super) struct Desk {
    state: Mutex<State>,
    /// There is something to write.
    pub(super) work: Notify,
    /// A command was answered.
    answered: Notify,
    /// This side wants to end the session.
    pub(super) hang_up: Notify,
    end: watch::Sender<Option<SessionError>>,
    pub(super) limits: Limits,
}

impl Desk {
    pub(super) fn new(limits: Limits) -> Self {
        // QEMU may still answer a command of a client before this one. It does so before it looks at our first, whose id is
        // one that other commands do not have; and there is no second before that is answered.
        let next_id = rand::random_range(FIRST..10 * FIRST);
        let state =
            State { next_id, waiters: HashMap::new(), outgoing: VecDeque::new(), open: true, strayed: false };
        Self {
            state: Mutex::new(state),
            work: Notify::new(),
            answered: Notify::new(),
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
            Ok((ids, bytes)) => {
                state.queue(bytes, descriptor.zip(ids.first().copied()));
                for ((id, (name, _)), reply) in ids.into_iter().zip(commands).zip(senders) {
                    if id != ALONE {
                        state.next_id = after(id);
                    }
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
    ) -> Result<(Vec<u64>, Vec<u8>), CommandError> {
        if !state.open {
            return Err(CommandError::Disconnected);
        }
        if state.waiters.len() + commands.len() > self.limits.waiters {
            return Err(CommandError::Busy);
        }
        let ids = state.ids(commands.len());
        let mut bytes = Vec::new();
        for (&id, (execute, arguments)) in ids.iter().zip(commands) {
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
        let queued: usize = state.outgoing.iter().map(|batch| batch.bytes.len()).sum();
        if queued + bytes.len() > self.limits.queued_bytes {
            return Err(CommandError::Busy);
        }
        Ok((ids, bytes))
    }

    /// The next that is to be written, if there is anything.
    pub(super) fn take_outgoing(&self) -> Option<Batch> {
        self.lock().outgoing.pop_front()
    }

    /// Resolves when a command has been answered.
    pub(super) async fn answered(&self, id: u64) {
        while self.lock().waiters.contains_key(&id) {
            self.answered.notified().await;
        }
    }

    /// Hands an answer to whoever waits for it; if nobody does any more, it is dropped here.
    pub(super) fn answer(&self, id: Option<u64>, result: Result<Value, Refusal>) {
        let waiter = {
            let mut state = self.lock();
            let waiter = state.waiters.remove(&id.unwrap_or(ALONE));
            state.strayed |= waiter.is_none() && state.next_id < FIRST;
            waiter
        };
        self.answered.notify_one();
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
            state.outgoing = VecDeque::new();
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
