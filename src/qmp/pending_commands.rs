//! Commands that QEMU has not answered, and the bytes that the writer task has not sent yet.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Notify, oneshot, watch};

use crate::host::log_context::{self, LogContext};

use super::error::{CommandError, SessionError};
use super::limits::Limits;
use super::message::Refusal;

/// The result of one command.
pub(super) type Answer = Result<Value, CommandError>;

/// A command as it goes over the wire. Arguments that are absent are left out.
#[derive(Serialize)]
pub(super) struct Request<'a, A: Serialize> {
    pub(super) execute: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) arguments: Option<A>,
    pub(super) id: u64,
}

/// The caller that waits for a command's answer.
struct Waiter {
    command: String,
    /// The client's request that the command is for.
    context: Option<LogContext>,
    reply: oneshot::Sender<Answer>,
}

struct State {
    next_id: u64,
    waiters: HashMap<u64, Waiter>,
    outgoing: VecDeque<Batch>,
    open: bool,
}

/// Bytes that are written with one call.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// For each line the client's request that it is for.
    pub(super) contexts: Vec<Option<LogContext>>,
    /// A descriptor that goes with it, and the command that takes it. QEMU keeps only the last one that it has received,
    /// so nothing may follow before that command was answered.
    pub(super) descriptor: Option<(OwnedFd, u64)>,
}

impl State {
    fn queue(&mut self, batch: Batch) {
        match self.outgoing.back_mut() {
            Some(last) if batch.descriptor.is_none() && last.descriptor.is_none() => {
                last.bytes.extend_from_slice(&batch.bytes);
                last.contexts.extend(batch.contexts);
            }
            _ => self.outgoing.push_back(batch),
        }
    }
}

/// What the handles, the reader task and the writer task of a session share.
pub(super) struct PendingCommands {
    state: Mutex<State>,
    /// There is something to write.
    pub(super) work: Notify,
    /// A command was answered.
    answered: Notify,
    /// This side ends the session.
    pub(super) hang_up: Notify,
    end: watch::Sender<Option<SessionError>>,
    pub(super) limits: Limits,
}

impl PendingCommands {
    pub(super) fn new(limits: Limits) -> Self {
        // QEMU may still answer commands of the client before this one (a supervisor that was killed): a random start keeps those
        // answers from being taken for ours
        let next_id = u64::from(rand::random::<u32>());
        let state = State { next_id, waiters: HashMap::new(), outgoing: VecDeque::new(), open: true };
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
        let context = log_context::current();
        let mut state = self.lock();
        match self.encode(&state, commands) {
            Ok((ids, bytes)) => {
                let descriptor = descriptor.map(|descriptor| (descriptor, ids.start));
                state.queue(Batch { bytes, contexts: vec![context; commands.len()], descriptor });
                state.next_id = ids.end;
                for ((id, (name, _)), reply) in ids.zip(commands).zip(senders) {
                    log::trace!("QMP command {id}: {name}");
                    state.waiters.insert(id, Waiter { command: (*name).to_owned(), context, reply });
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
    ) -> Result<(Range<u64>, Vec<u8>), CommandError> {
        if !state.open {
            return Err(CommandError::Disconnected);
        }
        if state.waiters.len() + commands.len() > self.limits.waiters {
            return Err(CommandError::Busy);
        }
        let ids = state.next_id..state.next_id + commands.len() as u64;
        let mut bytes = Vec::new();
        for (id, (execute, arguments)) in ids.clone().zip(commands) {
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

    /// The next bytes to write, if there are any.
    pub(super) fn take_outgoing(&self) -> Option<Batch> {
        self.lock().outgoing.pop_front()
    }

    /// Resolves when a command has been answered.
    pub(super) async fn answered(&self, id: u64) {
        while self.lock().waiters.contains_key(&id) {
            self.answered.notified().await;
        }
    }

    /// The client's request that a command without an answer is for.
    pub(super) fn context(&self, id: u64) -> Option<LogContext> {
        self.lock().waiters.get(&id)?.context
    }

    /// Hands an answer to the caller that waits for it; an answer without one is dropped here.
    pub(super) fn answer(&self, id: Option<u64>, result: Result<Value, Refusal>) {
        let waiter = id.and_then(|id| self.lock().waiters.remove(&id));
        self.answered.notify_one();
        match waiter {
            Some(Waiter { command, reply, .. }) => {
                let _ = reply.send(result.map_err(|Refusal { class, desc }| CommandError::Refused {
                    class,
                    desc,
                    command,
                }));
            }
            None => {
                log::debug!("QEMU's monitor answered no command of ours: id {id:?}, error {:?}", result.err())
            }
        }
    }

    /// How many commands have no answer yet, abandoned ones included.
    pub(super) fn outstanding(&self) -> usize {
        self.lock().waiters.len()
    }

    /// Takes no new commands. Those that were sent may still be answered.
    pub(super) fn shut(&self) {
        self.lock().open = false;
    }

    /// Ends the session: every waiter gets [`CommandError::Disconnected`].
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
