//! Clients of the control socket: a blocking one for a process that makes one call and needs no runtime, and one for
//! programs that have a runtime. Both are the same conversation over another kind of socket.

use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;

use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::net::UnixStream;
use zlink::connection::ReadConnection;
use zlink::connection::socket::{Socket, WriteHalf};
use zlink::{Call, Connection};

use crate::host::dirs::RunClient;

use super::INTERFACE;
pub use super::error::WireError;
use super::methods::{Method, Stream};
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
    /// What came is not Varlink.
    #[error("the answer could not be understood: {0}")]
    Protocol(String),
}

#[derive(Debug, Serialize)]
struct Message<P> {
    method: String,
    parameters: P,
}

fn message<M: Method>(_: M, parameters: M::Parameters) -> Call<Message<M::Parameters>> {
    Call::new(Message { method: format!("{INTERFACE}.{}", M::NAME), parameters })
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

    /// Not by zlink's own sender (0.8), whose work grows with the square of the message's length.
    async fn send(&mut self, call: &impl Serialize) -> Result<(), ClientError> {
        let mut frame = serde_json::to_vec(call).map_err(unclear)?;
        frame.push(0);
        self.calls.write(&frame, &[] as &[OwnedFd], None).await.map_err(from_zlink)
    }

    /// The next reply, and whether it is one of many.
    async fn receive(&mut self) -> Result<(Option<Value>, bool), ClientError> {
        let (reply, _) = self.replies.receive_reply::<Value, WireError>().await.map_err(from_zlink)?;
        let reply = reply.map_err(ClientError::Remote)?;
        let more = reply.continues() == Some(true);
        Ok((reply.into_parameters(), more))
    }

    async fn call<M: Method>(
        &mut self,
        method: M,
        parameters: M::Parameters,
    ) -> Result<M::Reply, ClientError> {
        self.send(&message(method, parameters)).await?;
        let (value, _) = self.receive().await?;
        decode(value)
    }

    /// The next reply of a stream; none for the empty one that closes it.
    async fn next<R: DeserializeOwned>(&mut self) -> Result<Option<R>, ClientError> {
        match self.receive().await? {
            (value, true) => decode(value).map(Some),
            (_, false) => Ok(None),
        }
    }
}

fn decode<R: DeserializeOwned>(value: Option<Value>) -> Result<R, ClientError> {
    serde_json::from_value(value.unwrap_or_else(|| Value::Object(Map::new()))).map_err(unclear)
}

fn unclear(error: serde_json::Error) -> ClientError {
    ClientError::Protocol(error.to_string())
}

/// The one-shot client: blocking, one call at a time, no runtime.
#[derive(Debug)]
pub struct Client {
    line: Line<BlockingPair>,
    stream: StdStream,
}

impl Client {
    /// Connects to the control socket in a VM's run directory.
    pub fn connect(directory: &RunClient) -> Result<Self, ClientError> {
        let stream = directory.connect(crate::host::dirs::names::CONTROL).map_err(ClientError::Connect)?;
        let copy = stream.try_clone().map_err(ClientError::Connect)?;
        let halves = Blocking(stream).halves().map_err(ClientError::Connect)?;
        Ok(Self { line: Line::new(halves), stream: copy })
    }

    /// The connection itself, on which nothing has been said yet, for an [`AsyncClient`].
    pub fn into_stream(self) -> StdStream {
        self.stream
    }

    /// Calls a method and waits for its reply.
    pub fn call<M: Method>(&mut self, method: M, parameters: M::Parameters) -> Result<M::Reply, ClientError> {
        ready(self.line.call(method, parameters))
    }

    /// Calls a method and leaves its reply for later: whoever asks many VMs asks them all, and they work side by side.
    pub fn ask<M: Method>(mut self, method: M, parameters: M::Parameters) -> Result<Asked<M>, ClientError> {
        ready(self.line.send(&message(method, parameters)))?;
        Ok(Asked { line: self.line, method: PhantomData })
    }

    /// Calls a method that answers with many replies; `each` gets them and says whether it wants more.
    /// A stream ends with the VM at the latest.
    pub fn stream<M: Stream>(
        &mut self,
        method: M,
        parameters: M::Parameters,
        mut each: impl FnMut(M::Reply) -> bool,
    ) -> Result<(), ClientError> {
        ready(self.line.send(&message(method, parameters).set_more(true)))?;
        loop {
            let reply = match ready(self.line.next()) {
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
}

/// A call whose reply has not been read.
#[derive(Debug)]
pub struct Asked<M> {
    line: Line<BlockingPair>,
    method: PhantomData<fn() -> M>,
}

impl<M: Method> Asked<M> {
    /// Waits for the reply.
    pub fn answer(mut self) -> Result<M::Reply, ClientError> {
        let (value, _) = ready(self.line.receive())?;
        decode(value)
    }
}

/// A client for programs with a runtime.
#[derive(Debug)]
pub struct AsyncClient {
    line: Line<Guarded>,
}

impl AsyncClient {
    /// Takes a fresh connection over. Needs a running runtime.
    pub fn new(stream: StdStream) -> Result<Self, ClientError> {
        stream.set_nonblocking(true).map_err(ClientError::Connect)?;
        let stream = UnixStream::from_std(stream).map_err(ClientError::Connect)?;
        Ok(Self { line: Line::new(Guarded(stream)) })
    }

    /// Calls a method and waits for its reply. A call that is given up leaves the connection unusable: drop it, too.
    pub async fn call<M: Method>(
        &mut self,
        method: M,
        parameters: M::Parameters,
    ) -> Result<M::Reply, ClientError> {
        self.line.call(method, parameters).await
    }

    /// Calls a method whose reply nobody wants.
    pub async fn send_oneway<M: Method>(
        &mut self,
        method: M,
        parameters: M::Parameters,
    ) -> Result<(), ClientError> {
        self.line.send(&message(method, parameters).set_oneway(true)).await
    }

    /// Calls a method that answers with many replies.
    pub async fn start<M: Stream>(
        mut self,
        method: M,
        parameters: M::Parameters,
    ) -> Result<Replies<M>, ClientError> {
        self.line.send(&message(method, parameters).set_more(true)).await?;
        Ok(Replies { line: self.line, method: PhantomData })
    }
}

/// The replies of a stream.
#[derive(Debug)]
pub struct Replies<M> {
    line: Line<Guarded>,
    method: PhantomData<fn() -> M>,
}

impl<M: Stream> Replies<M> {
    /// The next reply; none after the last, which comes when the VM has ended at the latest.
    pub async fn next(&mut self) -> Result<Option<M::Reply>, ClientError> {
        self.line.next().await
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
