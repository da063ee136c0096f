//! The client for programs with a runtime.

use std::marker::PhantomData;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::net::UnixStream;

use super::{Call, Client, ClientError, Line, call, decode, identity, streamed};
use crate::control::after::{self, Fate};
use crate::control::socket::Guarded;
use crate::control::verbs::{Method, Stream};
use crate::control::{SERVICE_INTERFACE, silence, skew};
use crate::host::dirs::{RunClient, StoreEnvironment};

/// A client for programs with a runtime.
#[derive(Debug)]
pub struct AsyncClient {
    line: AsyncLine,
    state_home: Option<PathBuf>,
}

impl AsyncClient {
    /// Uses a new connection. Needs a running runtime.
    pub fn new(client: Client) -> Result<Self, ClientError> {
        let Client { stream, directory, state_home, .. } = client;
        Ok(Self { state_home, ..Self::over(stream, directory)? })
    }

    pub(super) fn over(stream: StdStream, directory: Option<Arc<RunClient>>) -> Result<Self, ClientError> {
        stream.set_nonblocking(true).map_err(ClientError::Connect)?;
        let stream = UnixStream::from_std(stream).map_err(ClientError::Connect)?;
        let line = AsyncLine { line: Line::new(Guarded(stream)), directory };
        Ok(Self { line, state_home: None })
    }

    /// Calls a method and waits for its reply. A dropped call makes the connection unusable: drop it, too.
    pub async fn call<M: Method>(&mut self, method: M) -> Result<M::Reply, ClientError> {
        let reply = self.exchange(call(&method)?).await.and_then(decode);
        match reply {
            Err(error) => Err(named(error, M::NAME, self.line.directory.clone()).await),
            reply => reply,
        }
    }

    async fn exchange(&mut self, call: Call) -> Result<Map<String, Value>, ClientError> {
        loop {
            let sent = self.line.line.send(&call).await;
            let reply = match sent {
                Ok(()) => self.line.first_reply().await,
                Err(error) => Err(error),
            };
            match reply {
                Err(ClientError::Gone) => self.recover()?,
                reply => return Ok(reply?.0),
            }
        }
    }

    /// The supervisor has hung up: the record of a VM that has ended answers from now on.
    fn recover(&mut self) -> Result<(), ClientError> {
        let Some((root, name, run)) = self.line.directory.as_deref().and_then(identity) else {
            return Err(ClientError::Gone);
        };
        let environment = StoreEnvironment::from_env_or(self.state_home.as_deref());
        match after::fate(&root, &name, run.as_ref(), &environment) {
            Fate::Ended(record) => {
                *self = Self::new(after::client(*record).map_err(ClientError::Connect)?)?;
                Ok(())
            }
            Fate::Unknown => Err(ClientError::Gone),
            Fate::Supervised | Fate::Orphan => Err(ClientError::SupervisorDied(name)),
        }
    }

    /// Sends a call without reading its reply.
    pub async fn send_oneway<M: Method>(&mut self, method: M) -> Result<(), ClientError> {
        self.line.line.send(&Call { oneway: true, ..call(&method)? }).await
    }

    /// Calls a method that returns many replies.
    pub async fn start<M: Stream>(mut self, method: M) -> Result<Replies<M>, ClientError> {
        let call = Call { more: true, ..call(&method)? };
        while let Err(error) = self.line.line.send(&call).await {
            match error {
                ClientError::Gone => self.recover()?,
                error => return Err(error),
            }
        }
        Ok(Replies { client: self, call, begun: false, method: PhantomData })
    }
}

/// A connection that can detect why a supervisor does not answer.
#[derive(Debug)]
struct AsyncLine {
    line: Line<Guarded>,
    /// `None` if it does not belong to a VM.
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

/// See [`skew::named`], which waits for the supervisor.
async fn named(error: ClientError, method: &'static str, directory: Option<Arc<RunClient>>) -> ClientError {
    let of_version = match &error {
        ClientError::Remote(error) => error.error.starts_with(SERVICE_INTERFACE),
        other => matches!(other, ClientError::Protocol(_)),
    };
    if !of_version {
        return error;
    }
    let looked = tokio::task::spawn_blocking(move || skew::named(error, method, directory.as_deref()));
    looked.await.unwrap_or_else(|_| ClientError::Protocol("the reply is one of another version".to_owned()))
}

/// The replies of a stream.
#[derive(Debug)]
pub struct Replies<M> {
    client: AsyncClient,
    call: Call,
    begun: bool,
    method: PhantomData<fn() -> M>,
}

impl<M: Stream> Replies<M> {
    /// The next reply; `None` after the last one, which comes when the VM has ended at the latest.
    pub async fn next(&mut self) -> Result<Option<M::Reply>, ClientError> {
        loop {
            // waits for the first one again, if the caller dropped the future before
            let reply = match self.begun {
                true => self.client.line.line.receive().await,
                false => self.client.line.first_reply().await,
            };
            match reply {
                Err(ClientError::Gone) => {
                    self.client.recover()?;
                    self.client.line.line.send(&self.call).await?;
                }
                reply => {
                    self.begun = true;
                    return match reply.and_then(streamed) {
                        Err(error) => Err(named(error, M::NAME, self.client.line.directory.clone()).await),
                        reply => reply,
                    };
                }
            }
        }
    }
}
