//! Clients of the control socket: a blocking one for a process that makes one call and needs no runtime, and one for
//! programs that have a runtime. Both are the same conversation over another kind of socket.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::net::UnixStream;
use zlink::connection::ReadConnection;
use zlink::connection::socket::{Socket, WriteHalf};
use zlink::{Call, Connection};

use crate::host::dirs::{RunClient, names};

use super::INTERFACE;
pub use super::error::WireError;
use super::methods::{Method, Stream};
use super::silence::{self, Silence};
use super::socket::{Blocking, BlockingPair, Guarded};

/// Why a call got no answer of the kind that was hoped for.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The VM's supervisor answered with an error.
    #[error("{}", .0.text("message").unwrap_or(.0.error.as_str()))]
    Remote(WireError),
    /// The connection ended: the VM, or its supervisor, is gone.
    #[error("the VM ended before it answered")]
    Gone,
    /// The socket could not be connected to.
    #[error("the VM's control socket could not be reached: {0}")]
    Connect(#[source] std::io::Error),
    /// The supervisor is there and does not answer anybody.
    #[error("{0}")]
    NotAnswering(Silence),
    /// What came is not Varlink.
    #[error("the answer could not be understood: {0}")]
    Protocol(String),
}

#[derive(Debug, Serialize)]
struct Message {
    method: String,
    parameters: Value,
}

/// A call before it is written. All that depends on the method is here and in [`decode`]: what comes between the two is
/// in the program once.
fn call<M: Method>(_: M, parameters: M::Parameters) -> Result<Call<Message>, ClientError> {
    message(M::NAME, serde_json::to_value(parameters))
}

fn message(method: &str, parameters: serde_json::Result<Value>) -> Result<Call<Message>, ClientError> {
    let parameters = parameters.map_err(unclear)?;
    Ok(Call::new(Message { method: format!("{INTERFACE}.{method}"), parameters }))
}

/// A reply as it travels, of either kind.
#[derive(Debug, Deserialize)]
struct Received {
    error: Option<String>,
    /// To be taken out of what zlink only lends.
    #[serde(default)]
    parameters: RefCell<Option<Map<String, Value>>>,
    continues: Option<bool>,
}

/// A conversation over any kind of socket.
#[derive(Debug)]
struct Line<S: Socket> {
    replies: ReadConnection<S::ReadHalf>,
    calls: S::WriteHalf,
}

impl<S: Socket> Line<S> {
    fn new(socket: S) -> Self {
        let (replies, calls) = Connection::new(socket).split();
        Self { replies, calls: calls.into_write_half() }
    }

    async fn send(&mut self, call: &Call<Message>) -> Result<(), ClientError> {
        self.write(&frame(call)?).await.map_err(from_zlink)
    }

    async fn write(&mut self, frame: &[u8]) -> zlink::Result<()> {
        self.calls.write(frame, &[] as &[OwnedFd], None).await
    }

    /// The next reply, and whether it is one of many.
    async fn receive(&mut self) -> Result<(Map<String, Value>, bool), ClientError> {
        // zlink's `receive_reply` (0.8) keeps a copy of what it reads and tries it as four types in turn; what it has for calls
        // reads any message in one go
        let (message, _) = self.replies.receive_call::<Received>().await.map_err(from_zlink)?;
        let Received { error, parameters, continues } = message.method();
        let parameters = parameters.take().unwrap_or_default();
        match error {
            Some(error) => Err(ClientError::Remote(WireError { error: error.clone(), parameters })),
            None => Ok((parameters, *continues == Some(true))),
        }
    }
}

/// Not by zlink's own sender (0.8), whose work grows with the square of the message's length.
fn frame(call: &Call<Message>) -> Result<Vec<u8>, ClientError> {
    let mut frame = serde_json::to_vec(call).map_err(unclear)?;
    frame.push(0);
    Ok(frame)
}

/// The next reply of a stream; none for the empty one that closes it.
fn streamed<R: DeserializeOwned>(
    (parameters, more): (Map<String, Value>, bool),
) -> Result<Option<R>, ClientError> {
    if more { decode(parameters).map(Some) } else { Ok(None) }
}

fn decode<R: DeserializeOwned>(parameters: Map<String, Value>) -> Result<R, ClientError> {
    R::deserialize(parameters).map_err(unclear)
}

fn unclear(error: serde_json::Error) -> ClientError {
    ClientError::Protocol(error.to_string())
}

/// The one-shot client: blocking, one call at a time, no runtime.
#[derive(Debug)]
pub struct Client {
    line: Line<BlockingPair>,
    stream: StdStream,
    directory: Arc<RunClient>,
}

impl Client {
    /// Connects to the control socket in a VM's run directory.
    pub fn connect(directory: Arc<RunClient>) -> Result<Self, ClientError> {
        Self::connect_within(directory, silence::CONNECT)
    }

    /// The same with another deadline than the usual one.
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
        Ok(Self { line: Line::new(halves), stream: copy, directory })
    }

    /// Calls a method and waits for its reply.
    pub fn call<M: Method>(&mut self, method: M, parameters: M::Parameters) -> Result<M::Reply, ClientError> {
        decode(self.exchange(&call(method, parameters)?)?)
    }

    /// Calls a method and leaves its reply for later: whoever asks many VMs asks them all, and they work side by side.
    pub fn ask<M: Method>(mut self, method: M, parameters: M::Parameters) -> Result<Asked<M>, ClientError> {
        self.send(&call(method, parameters)?)?;
        let Self { line, stream, directory } = self;
        Ok(Asked { line, stream, directory, method: PhantomData })
    }

    /// Calls a method that answers with many replies; `each` gets them and says whether it wants more.
    /// A stream ends with the VM at the latest.
    pub fn stream<M: Stream>(
        &mut self,
        method: M,
        parameters: M::Parameters,
        mut each: impl FnMut(M::Reply) -> bool,
    ) -> Result<(), ClientError> {
        self.send(&call(method, parameters)?.set_more(true))?;
        self.await_first_byte()?;
        loop {
            let reply = match self.line.received().and_then(streamed) {
                Ok(reply) => reply,
                // the supervisor of a VM that has ended closes its connections
                Err(ClientError::Gone) => None,
                Err(error) => return Err(error),
            };
            if !reply.is_some_and(&mut each) {
                return Ok(());
            }
        }
    }

    fn send(&mut self, call: &Call<Message>) -> Result<(), ClientError> {
        let frame = frame(call)?;
        let (line, directory) = (&mut self.line, &self.directory);
        ready(line.write(&frame).map(|written| match written {
            // the system keeps less of it than there is, and the supervisor does not read
            Err(zlink::Error::Io(error)) if silence::is_late(&error) => {
                Err(ClientError::NotAnswering(silence::not_connected(directory)))
            }
            other => other.map_err(from_zlink),
        }))
    }

    fn exchange(&mut self, call: &Call<Message>) -> Result<Map<String, Value>, ClientError> {
        self.send(call)?;
        self.await_first_byte()?;
        let (parameters, _) = self.line.received()?;
        Ok(parameters)
    }

    /// What the VM takes for what was asked has no limit here; that its supervisor answers at all has.
    fn await_first_byte(&self) -> Result<(), ClientError> {
        silence::await_first_byte(&self.stream, &self.directory).map_err(ClientError::NotAnswering)
    }
}

impl Line<BlockingPair> {
    fn received(&mut self) -> Result<(Map<String, Value>, bool), ClientError> {
        ready(self.receive())
    }
}

/// A call whose reply has not been read.
#[derive(Debug)]
pub struct Asked<M> {
    line: Line<BlockingPair>,
    stream: StdStream,
    directory: Arc<RunClient>,
    method: PhantomData<fn() -> M>,
}

impl<M: Method> Asked<M> {
    /// Waits for the reply, which does not depend on QEMU or the guest.
    pub fn answer_by(mut self, deadline: Instant) -> Result<M::Reply, ClientError> {
        silence::await_short_answer(&self.stream, &self.directory, deadline)
            .map_err(ClientError::NotAnswering)?;
        let (parameters, _) = self.line.received()?;
        decode(parameters)
    }
}

/// A client for programs with a runtime.
#[derive(Debug)]
pub struct AsyncClient {
    line: AsyncLine,
}

impl AsyncClient {
    /// Takes a fresh connection over, on which nothing has been said yet. Needs a running runtime.
    pub fn new(client: Client) -> Result<Self, ClientError> {
        let Client { stream, directory, .. } = client;
        Self::over(stream, Some(directory))
    }

    fn over(stream: StdStream, directory: Option<Arc<RunClient>>) -> Result<Self, ClientError> {
        stream.set_nonblocking(true).map_err(ClientError::Connect)?;
        let stream = UnixStream::from_std(stream).map_err(ClientError::Connect)?;
        Ok(Self { line: AsyncLine { line: Line::new(Guarded(stream)), directory } })
    }

    /// Calls a method and waits for its reply. A call that is given up leaves the connection unusable: drop it, too.
    pub async fn call<M: Method>(
        &mut self,
        method: M,
        parameters: M::Parameters,
    ) -> Result<M::Reply, ClientError> {
        self.line.line.send(&call(method, parameters)?).await?;
        let (parameters, _) = self.line.first_reply().await?;
        decode(parameters)
    }

    /// Calls a method whose reply nobody wants.
    pub async fn send_oneway<M: Method>(
        &mut self,
        method: M,
        parameters: M::Parameters,
    ) -> Result<(), ClientError> {
        self.line.line.send(&call(method, parameters)?.set_oneway(true)).await
    }

    /// Calls a method that answers with many replies.
    pub async fn start<M: Stream>(
        mut self,
        method: M,
        parameters: M::Parameters,
    ) -> Result<Replies<M>, ClientError> {
        self.line.line.send(&call(method, parameters)?.set_more(true)).await?;
        Ok(Replies { line: self.line, begun: false, method: PhantomData })
    }
}

/// A conversation whose supervisor can be asked why it says nothing.
#[derive(Debug)]
struct AsyncLine {
    line: Line<Guarded>,
    /// None where there is no VM behind it.
    directory: Option<Arc<RunClient>>,
}

impl AsyncLine {
    /// The first reply to a call; see [`silence::await_first_byte`].
    async fn first_reply(&mut self) -> Result<(Map<String, Value>, bool), ClientError> {
        let mut reply = pin!(self.line.receive());
        let Some(directory) = self.directory.clone() else { return reply.await };
        tokio::select! { biased;
            reply = &mut reply => return reply,
            () = tokio::time::sleep(silence::FIRST_BYTE) => {}
        }
        let looked = tokio::task::spawn_blocking(move || silence::answers_anybody(&directory));
        tokio::select! { biased;
            reply = &mut reply => return reply,
            looked = looked => if let Ok(Err(silence)) = looked { return Err(ClientError::NotAnswering(silence)) },
        }
        reply.await
    }
}

/// The replies of a stream.
#[derive(Debug)]
pub struct Replies<M> {
    line: AsyncLine,
    begun: bool,
    method: PhantomData<fn() -> M>,
}

impl<M: Stream> Replies<M> {
    /// The next reply; none after the last, which comes when the VM has ended at the latest.
    pub async fn next(&mut self) -> Result<Option<M::Reply>, ClientError> {
        // the first one is waited for again, should the caller have given up in between
        let reply = match self.begun {
            true => self.line.line.receive().await?,
            false => self.line.first_reply().await?,
        };
        self.begun = true;
        streamed(reply)
    }
}

/// The result of a future that a blocking socket made ready.
fn ready<T>(future: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    future
        .now_or_never()
        .unwrap_or_else(|| Err(ClientError::Protocol("the socket would not block".to_owned())))
}

fn from_zlink(error: zlink::Error) -> ClientError {
    match error {
        zlink::Error::UnexpectedEof | zlink::Error::SocketRead | zlink::Error::SocketWrite => {
            ClientError::Gone
        }
        zlink::Error::Io(_) => ClientError::Gone,
        other => ClientError::Protocol(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::super::{methods, wire};
    use super::*;

    /// What a client makes of what a supervisor of any version may say.
    async fn told(reply: &Value) -> Result<wire::HmpReply, ClientError> {
        let (mut theirs, ours) = StdStream::pair().unwrap();
        theirs.write_all(format!("{reply}\0").as_bytes()).unwrap();
        let mut client = AsyncClient::over(ours, None).unwrap();
        client.call(methods::Hmp, wire::Hmp { line: "info version".to_owned() }).await
    }

    #[tokio::test]
    async fn replies_of_every_kind_are_understood() {
        let good =
            told(&json!({ "parameters": { "text": "7.2", "of a later version": 1 }, "later": [] })).await;
        assert_eq!(good.unwrap().text, "7.2");
        let error = json!({ "error": "org.varlink.service.MethodNotFound", "parameters": { "method": "x" } });
        for (reply, name) in
            [(error, "MethodNotFound"), (json!({ "error": "io.vmrun.Machine.NotNow" }), "NotNow")]
        {
            let Err(ClientError::Remote(error)) = told(&reply).await else { panic!("{reply} is an error") };
            assert_eq!(error.name(), name);
        }
        for wrong in
            [json!({}), json!({ "parameters": { "text": 7 } }), json!({ "parameters": [] }), json!("text")]
        {
            let told = told(&wrong).await;
            assert!(matches!(told, Err(ClientError::Protocol(_))), "{wrong}: {told:?}");
        }
    }
}
