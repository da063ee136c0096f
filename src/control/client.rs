//! Clients of the control socket: a blocking one for a process that makes one call and needs no runtime, and one for
//! programs that have a runtime. Both are the same conversation over another kind of socket.

mod asynchronous;
mod line;

use std::marker::PhantomData;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::host::dirs::{RunClient, RunId, StoreEnvironment, names};
use crate::spec::VmName;

pub use asynchronous::{AsyncClient, Replies};
use line::{Call, Line, call, decode, streamed, unclear};

use super::after::{self, Fate};
pub use super::error::WireError;
use super::find::{self, FindError};

use super::framing::{WriteBytes, frame};
use super::silence::{self, Silence};
use super::skew;
use super::socket::{Blocking, BlockingPair};
use super::verbs::{Method, Stream};

/// Why a call failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The VM's supervisor replied with an error.
    #[error("{}", .0.text("message").unwrap_or(.0.error.as_str()))]
    Remote(WireError),
    /// The connection was closed, and there is no record: the VM never ran, or its end could not be recorded.
    #[error("the VM is gone, and how it ended is not recorded")]
    Gone,
    /// The supervisor died, and the VM is running.
    #[error(
        "the supervisor of VM '{0}' died before it answered; the VM is running, and the call may have been executed"
    )]
    SupervisorDied(VmName),
    /// The socket could not be connected to.
    #[error("the VM's control socket could not be reached: {0}")]
    Connect(#[source] std::io::Error),
    /// The supervisor exists and does not answer any client.
    #[error("{0}")]
    NotAnswering(Silence),
    /// The reply is one of another version of vmrun; the text names it.
    #[error("{0}")]
    Unreadable(String),
    /// The reply is not Varlink.
    #[error("the answer could not be understood: {0}")]
    Protocol(String),
}

/// The one-shot client: blocking, one call at a time, no runtime.
#[derive(Debug)]
pub struct Client {
    line: Line<BlockingPair>,
    stream: StdStream,
    /// `None` for a VM that has ended: its record answers.
    directory: Option<Arc<RunClient>>,
    adopt: Option<Adopt>,
    state_home: Option<PathBuf>,
}

/// Takes over a VM whose supervisor has died.
pub type Adopt = fn(&Path, &VmName) -> Result<(), ClientError>;

impl Client {
    /// A client of a VM that has ended.
    pub(super) fn of_record(stream: StdStream) -> std::io::Result<Self> {
        let halves = Blocking(stream.try_clone()?).halves()?;
        Ok(Self { line: Line::new(halves), stream, directory: None, adopt: None, state_home: None })
    }

    /// From now on, a VM whose supervisor has died before it replied is taken over, and repeatable calls are sent again.
    pub fn adopting(mut self, adopt: Adopt) -> Self {
        self.adopt = Some(adopt);
        self
    }

    /// Sets the user's store, instead of `$XDG_STATE_HOME`.
    pub fn with_store(mut self, state_home: Option<PathBuf>) -> Self {
        self.state_home = state_home;
        self
    }

    /// Connects to the control socket in a VM's run directory.
    pub fn connect(directory: Arc<RunClient>) -> Result<Self, ClientError> {
        Self::connect_within(directory, silence::CONNECT)
    }

    /// The same with a given deadline.
    pub fn connect_within(directory: Arc<RunClient>, within: Duration) -> Result<Self, ClientError> {
        let stream =
            directory.connect_within(names::CONTROL, within).map_err(|error| {
                match silence::is_late(&error) {
                    true => ClientError::NotAnswering(silence::not_connected(&directory)),
                    false => ClientError::Connect(error),
                }
            })?;
        let copy = stream.try_clone().map_err(ClientError::Connect)?;
        let halves = Blocking(stream).halves().map_err(ClientError::Connect)?;
        let directory = Some(directory);
        Ok(Self { line: Line::new(halves), stream: copy, directory, adopt: None, state_home: None })
    }

    /// A second client of the same VM; `None` for one that has ended.
    pub fn another(&self) -> Option<Result<Self, ClientError>> {
        self.directory.clone().map(Self::connect)
    }

    /// Makes further clients of the same VM, for a thread of its own; `None` for one that has ended.
    pub fn more(&self) -> Option<impl Fn() -> Result<Self, ClientError> + Send + use<>> {
        let directory = self.directory.clone()?;
        Some(move || Self::connect(directory.clone()))
    }

    /// Whether the VM has ended, so that its record answers.
    pub fn has_ended(&self) -> bool {
        self.directory.is_none()
    }

    /// Closes the connection, also for processes that were forked from this one; calls fail from now on.
    pub fn hang_up(&mut self) {
        // an error means that it is closed already
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Calls a method and waits for its reply.
    pub fn call<M: Method>(&mut self, method: M) -> Result<M::Reply, ClientError> {
        let reply = call(&method).and_then(|call| self.exchange(call)).and_then(decode);
        reply.map_err(|error| skew::named(error, M::NAME, self.directory.as_deref()))
    }

    /// Sends a call and leaves the reply for later, so that a client can query many VMs at the same time.
    pub fn send_call<M: Method>(mut self, method: M) -> Result<PendingCall<M>, ClientError> {
        self.send(&call(&method)?)?;
        let Self { line, stream, directory, .. } = self;
        Ok(PendingCall { line, stream, directory, method: PhantomData })
    }

    /// Calls a method that returns many replies; `each` gets them and returns whether it wants more. A stream ends with the VM at
    /// the latest.
    pub fn stream<M: Stream>(
        &mut self,
        method: M,
        each: impl FnMut(M::Reply) -> bool,
    ) -> Result<(), ClientError> {
        self.streamed(method, each).map_err(|error| skew::named(error, M::NAME, self.directory.as_deref()))
    }

    fn streamed<M: Stream>(
        &mut self,
        method: M,
        mut each: impl FnMut(M::Reply) -> bool,
    ) -> Result<(), ClientError> {
        let mut call = Call { more: true, ..call(&method)? };
        let mut budget = RetryBudget::of(&call);
        self.try_send(&mut call, &mut budget)?;
        loop {
            let reply = match self.line.received() {
                Err(ClientError::Gone) => {
                    self.recover(&mut call, &mut budget)?;
                    if budget.begun {
                        M::goes_on(&mut call.parameters);
                    }
                    self.try_send(&mut call, &mut budget)?;
                    continue;
                }
                reply => streamed(reply?)?,
            };
            budget.begun = true;
            if !reply.is_some_and(&mut each) {
                return Ok(());
            }
        }
    }

    fn send(&mut self, call: &Call) -> Result<(), ClientError> {
        let frame = frame(call).map_err(unclear)?;
        let (line, directory) = (&mut self.line, self.directory.as_ref());
        ready(line.calls.write(&frame).map(|written| match (written, directory) {
            // the socket's buffer is full, and the supervisor does not read
            (Err(error), Some(directory)) if silence::is_late(&error) => {
                Err(ClientError::NotAnswering(silence::not_connected(directory)))
            }
            (other, _) => other.map_err(|_| ClientError::Gone),
        }))
    }

    /// Sends a call and waits until the reply starts; reconnects if the supervisor has died.
    fn try_send(&mut self, call: &mut Call, budget: &mut RetryBudget) -> Result<(), ClientError> {
        loop {
            match self.send(call).and_then(|()| self.await_first_byte()) {
                Err(ClientError::Gone) => self.recover(call, budget)?,
                other => return other,
            }
        }
    }

    fn exchange(&mut self, mut call: Call) -> Result<Map<String, Value>, ClientError> {
        let mut budget = RetryBudget::of(&call);
        loop {
            self.try_send(&mut call, &mut budget)?;
            match self.line.received() {
                Err(ClientError::Gone) => self.recover(&mut call, &mut budget)?,
                other => return Ok(other?.0),
            }
        }
    }

    /// The method may take any time, but the supervisor must start to reply within a deadline.
    fn await_first_byte(&self) -> Result<(), ClientError> {
        match &self.directory {
            Some(directory) => {
                silence::await_first_byte(&self.stream, directory).map_err(ClientError::NotAnswering)
            }
            None => Ok(()),
        }
    }

    /// The supervisor has hung up. If the VM has ended, its record answers from now on. If it is running, connects to its new
    /// supervisor, if the call is repeatable.
    fn recover(&mut self, call: &mut Call, budget: &mut RetryBudget) -> Result<(), ClientError> {
        let Some((root, name, run)) = self.directory.as_deref().and_then(identity) else {
            return Err(ClientError::Gone);
        };
        loop {
            budget.tries += 1;
            let environment = StoreEnvironment::from_env_or(self.state_home.as_deref());
            let orphan = match after::fate(&root, &name, run.as_ref(), &environment) {
                Fate::Ended(record) => {
                    *self = after::client(*record).map_err(ClientError::Connect)?;
                    return Ok(());
                }
                Fate::Unknown => return Err(ClientError::Gone),
                Fate::Supervised => false,
                Fate::Orphan => true,
            };
            let again = call.repeatable && budget.tries <= MOST_TRIES;
            let Some(adopt) = self.adopt.filter(|_| again) else {
                return Err(ClientError::SupervisorDied(name));
            };
            if orphan {
                adopt(&root, &name)?;
            }
            call.shorten(budget.limit, budget.began.elapsed());
            match find::connect(&root, Some(&name)) {
                Ok((_, client)) => {
                    *self = client.adopting(adopt).with_store(self.state_home.take());
                    return Ok(());
                }
                Err(FindError::Client(error)) if !matches!(error, ClientError::Gone) => return Err(error),
                // it has ended, or its supervisor died again
                Err(_) => {}
            }
        }
    }
}

/// The most repetitions of a call.
const MOST_TRIES: usize = 100;

/// The time and repetitions that a call has left.
struct RetryBudget {
    began: Instant,
    limit: Option<i64>,
    tries: usize,
    begun: bool,
}

impl RetryBudget {
    fn of(call: &Call) -> Self {
        let limit = call.parameters.get("timeout_ms").and_then(Value::as_i64);
        Self { began: Instant::now(), limit, tries: 0, begun: false }
    }
}

/// The VM that a run directory belongs to.
fn identity(directory: &RunClient) -> Option<(PathBuf, VmName, Option<RunId>)> {
    let name = directory.path().file_name()?.to_str()?.parse().ok()?;
    Some((directory.path().parent()?.to_owned(), name, directory.run().cloned()))
}

impl Line<BlockingPair> {
    fn received(&mut self) -> Result<(Map<String, Value>, bool), ClientError> {
        ready(self.receive())
    }
}

/// A call whose reply was not read yet.
#[derive(Debug)]
pub struct PendingCall<M> {
    line: Line<BlockingPair>,
    stream: StdStream,
    directory: Option<Arc<RunClient>>,
    method: PhantomData<fn() -> M>,
}

impl<M: Method> PendingCall<M> {
    /// Waits for the reply, which must not depend on QEMU or the guest.
    pub fn reply_by(mut self, deadline: Instant) -> Result<M::Reply, ClientError> {
        if let Some(directory) = &self.directory {
            silence::await_short_answer(&self.stream, directory, deadline)
                .map_err(ClientError::NotAnswering)?;
        }
        let (parameters, _) = self.line.received()?;
        decode(parameters)
    }
}

/// The result of a future that a blocking socket has completed.
fn ready<T>(future: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    future
        .now_or_never()
        .unwrap_or_else(|| Err(ClientError::Protocol("the socket would not block".to_owned())))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::super::verbs::{Hmp, HmpReply};
    use super::*;

    /// How the client handles replies of supervisors of any version.
    async fn decoded(reply: &Value) -> Result<HmpReply, ClientError> {
        let (mut theirs, ours) = StdStream::pair().unwrap();
        theirs.write_all(format!("{reply}\0").as_bytes()).unwrap();
        let mut client = AsyncClient::over(ours, None).unwrap();
        client.call(Hmp { line: "info version".to_owned() }).await
    }

    #[tokio::test]
    async fn replies_of_every_kind_are_understood() {
        let good =
            decoded(&json!({ "parameters": { "text": "7.2", "of a later version": 1 }, "later": [] })).await;
        assert_eq!(good.unwrap().text, "7.2");
        let error = json!({ "error": "org.varlink.service.MethodNotFound", "parameters": { "method": "x" } });
        for (reply, name) in
            [(error, "MethodNotFound"), (json!({ "error": "io.vmrun.Machine.NotNow" }), "NotNow")]
        {
            let Err(ClientError::Remote(error)) = decoded(&reply).await else {
                panic!("{reply} is an error")
            };
            assert_eq!(error.name(), name);
        }
        for wrong in
            [json!({}), json!({ "parameters": { "text": 7 } }), json!({ "parameters": [] }), json!("text")]
        {
            let reply = decoded(&wrong).await;
            assert!(matches!(reply, Err(ClientError::Protocol(_))), "{wrong}: {reply:?}");
        }
    }
}
