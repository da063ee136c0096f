//! The one-shot client: blocking, one call at a time, no runtime.

use std::fmt::Debug;

use std::os::unix::net::UnixStream as StdStream;

use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tokio::net::UnixStream;
use zlink::{Call, Connection};

use crate::host::dirs::RunClient;

use super::INTERFACE;
pub use super::error::WireError;
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

/// A connection to one VM's supervisor.
#[derive(Debug)]
pub struct Client {
    connection: Connection<BlockingPair>,
    stream: StdStream,
}

#[derive(Debug, Serialize)]
struct Method<P> {
    method: String,
    parameters: P,
}

impl Client {
    /// Connects to the control socket in a VM's run directory.
    pub fn connect(directory: &RunClient) -> Result<Self, ClientError> {
        let stream = directory.connect(crate::host::dirs::names::CONTROL).map_err(ClientError::Connect)?;
        let copy = stream.try_clone().map_err(ClientError::Connect)?;
        let halves = Blocking(stream).halves().map_err(ClientError::Connect)?;
        Ok(Self { connection: Connection::new(halves), stream: copy })
    }

    /// The connection itself, on which nothing has been said yet, for an [`AsyncClient`].
    pub fn into_stream(self) -> Result<StdStream, ClientError> {
        Ok(self.stream)
    }

    /// Calls a method of `io.vmrun.Machine` and waits for its reply.
    pub fn call<P: Serialize + Debug, R: DeserializeOwned>(
        &mut self,
        method: &str,
        parameters: P,
    ) -> Result<R, ClientError> {
        let method = Method { method: format!("{INTERFACE}.{method}"), parameters };
        let call = Call::new(method);
        ready(self.connection.send_call(&call, Vec::new()))?;
        let (reply, _) = ready(self.connection.receive_reply::<Value, WireError>())?;
        let reply = reply.map_err(ClientError::Remote)?;
        let value = reply.into_parameters().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        serde_json::from_value(value).map_err(|error| ClientError::Protocol(error.to_string()))
    }
}

impl Client {
    /// Calls a method that answers with many replies; `each` gets them and says whether it wants more.
    pub fn stream<P: Serialize + Debug, R: DeserializeOwned>(
        &mut self,
        method: &str,
        parameters: P,
        mut each: impl FnMut(R) -> bool,
    ) -> Result<(), ClientError> {
        let method = Method { method: format!("{INTERFACE}.{method}"), parameters };
        let call = Call::new(method).set_more(true);
        ready(self.connection.send_call(&call, Vec::new()))?;
        loop {
            let received = ready(self.connection.receive_reply::<Value, WireError>());
            let (reply, _) = match received {
                // the supervisor of a VM that has ended closes its connections
                Err(ClientError::Gone) => return Ok(()),
                other => other?,
            };
            let reply = reply.map_err(ClientError::Remote)?;
            let more = reply.continues() == Some(true);
            let value = reply.into_parameters().unwrap_or(Value::Null);
            if !more {
                return Ok(());
            }
            let value =
                serde_json::from_value(value).map_err(|error| ClientError::Protocol(error.to_string()))?;
            if !each(value) {
                return Ok(());
            }
        }
    }
}

/// A client for programs with a runtime.
#[derive(Debug)]
pub struct AsyncClient {
    connection: Connection<Guarded>,
}

impl AsyncClient {
    /// Takes a fresh connection over. Needs a running runtime.
    pub fn new(stream: StdStream) -> Result<Self, ClientError> {
        stream.set_nonblocking(true).map_err(ClientError::Connect)?;
        let stream = UnixStream::from_std(stream).map_err(ClientError::Connect)?;
        Ok(Self { connection: Connection::new(Guarded(stream)) })
    }

    /// Calls a method and waits for its reply.
    pub async fn call<P: Serialize + Debug, R: DeserializeOwned>(
        &mut self,
        method: &str,
        parameters: P,
    ) -> Result<R, ClientError> {
        let method = Method { method: format!("{INTERFACE}.{method}"), parameters };
        self.connection.send_call(&Call::new(method), Vec::new()).await.map_err(from_zlink)?;
        let (reply, _) = self.connection.receive_reply::<Value, WireError>().await.map_err(from_zlink)?;
        let reply = reply.map_err(ClientError::Remote)?;
        let value = reply.into_parameters().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        serde_json::from_value(value).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    /// Calls a method whose reply nobody wants.
    pub async fn send_oneway<P: Serialize + Debug>(
        &mut self,
        method: &str,
        parameters: P,
    ) -> Result<(), ClientError> {
        let method = Method { method: format!("{INTERFACE}.{method}"), parameters };
        let call = Call::new(method).set_oneway(true);
        self.connection.send_call(&call, Vec::new()).await.map_err(from_zlink)
    }

    /// Calls a method that answers with many replies; [`Self::next`] gets them.
    pub async fn start<P: Serialize + Debug>(
        &mut self,
        method: &str,
        parameters: P,
    ) -> Result<(), ClientError> {
        let method = Method { method: format!("{INTERFACE}.{method}"), parameters };
        let call = Call::new(method).set_more(true);
        self.connection.send_call(&call, Vec::new()).await.map_err(from_zlink)
    }

    /// The next reply of a stream; none after the last, which comes when the VM has ended.
    pub async fn next<R: DeserializeOwned>(&mut self) -> Result<Option<R>, ClientError> {
        let (reply, _) = self.connection.receive_reply::<Value, WireError>().await.map_err(from_zlink)?;
        let reply = reply.map_err(ClientError::Remote)?;
        if reply.continues() != Some(true) {
            return Ok(None);
        }
        let value = reply.into_parameters().unwrap_or(Value::Null);
        serde_json::from_value(value).map(Some).map_err(|error| ClientError::Protocol(error.to_string()))
    }
}

/// The result of a future that a blocking socket made ready.
fn ready<T>(future: impl Future<Output = zlink::Result<T>>) -> Result<T, ClientError> {
    match future.now_or_never() {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(from_zlink(error)),
        None => Err(ClientError::Protocol("the socket would not block".to_owned())),
    }
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
