//! Serves the control protocol: one task a connection, each connection in the order of its calls.

use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use nix::sys::socket::{getsockopt, sockopt};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use zlink::connection::{ReadConnection, WriteConnection};
use zlink::{Call, Connection, Reply};

use crate::vm::Handle;

use super::dispatch::dispatch;
use super::error::WireError;
use super::guest::Uploads;
use super::socket::{Guarded, GuardedRead, GuardedWrite};

/// Connections that are served at once; more wait in the listening socket's queue.
const MAX_CONNECTIONS: usize = 512;
/// When descriptors have run out, the next try to accept comes after this long.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// How long clients may take to read their last replies once the VM has ended.
const LAST_REPLIES: Duration = Duration::from_secs(2);

/// A method call, its parameters not looked at yet.
#[derive(Debug, Deserialize)]
pub(super) struct RawCall {
    pub(super) method: String,
    #[serde(default)]
    pub(super) parameters: Option<Value>,
}

/// Serves clients until `ended`; then those that wait for an answer get it, and all are let go.
pub async fn serve(listener: UnixListener, handle: Handle, ended: impl Future<Output = ()>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    tokio::pin!(ended);
    loop {
        tokio::select! { biased;
            () = &mut ended => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            stream = accept(&listener, &permits) => {
                let (stream, permit) = stream;
                let handle = handle.clone();
                connections.spawn(async move {
                    converse(stream, handle).await;
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    // a client that neither reads nor leaves does not keep the supervisor alive
    let _ = tokio::time::timeout(LAST_REPLIES, finished).await;
}

async fn accept(
    listener: &UnixListener,
    permits: &Arc<Semaphore>,
) -> (UnixStream, Option<tokio::sync::OwnedSemaphorePermit>) {
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_trusted(&stream) => return (stream, permit),
            Ok(_) => log::warn!("a connection of another user was refused"),
            Err(error) => {
                log::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Own user or root. The run directory keeps others out already; this holds should its mode be changed.
fn is_trusted(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    getsockopt(&stream.as_fd(), sockopt::PeerCredentials)
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// The replies of a stream; an error ends it.
pub(super) type Replies = Pin<Box<dyn Stream<Item = Result<Value, WireError>> + Send>>;

/// What a call is answered with.
pub(super) enum Answer {
    /// One reply.
    One(Result<Value, WireError>),
    /// Replies until the stream ends; its last one closes the call.
    Stream(Replies),
}

type Read = ReadConnection<GuardedRead>;
type Write = WriteConnection<GuardedWrite>;
type Received = zlink::Result<Call<RawCall>>;

/// Answers the calls of one connection until it ends, or the VM does.
async fn converse(stream: UnixStream, handle: Handle) {
    let (mut read, mut write) = Connection::new(Guarded(stream)).split();
    let mut uploads = Uploads::new();
    // a call that came while a stream was under way
    let mut ahead: Option<Received> = None;
    loop {
        let call = match ahead.take() {
            Some(call) => call,
            None => tokio::select! { biased;
                call = receive(&mut read) => call,
                _ = handle.ended() => return,
            },
        };
        let (call, answer) = match call {
            Ok(call) => {
                let answer = dispatch(call.method(), call.more(), &handle, &mut uploads).await;
                (Some(call), answer)
            }
            // the frame has been read whole, so the connection can go on
            Err(zlink::Error::Json(error)) => {
                log::debug!("a client sent what is not a call: {error}");
                (
                    None,
                    Answer::One(Err(WireError::service(
                        "InvalidParameter",
                        "parameter",
                        "the message itself",
                    ))),
                )
            }
            Err(error) => {
                log::debug!("a client's connection ended: {error}");
                return;
            }
        };
        if call.is_some_and(|call| call.oneway()) {
            continue;
        }
        let sent = match answer {
            Answer::One(Ok(value)) => write.send_reply(&Reply::new(Some(value)), Vec::new()).await,
            Answer::One(Err(error)) => write.send_error(&error, Vec::new()).await,
            Answer::Stream(stream) => send_all(&mut write, stream, &mut read, &mut ahead).await,
        };
        if let Err(error) = sent {
            log::debug!("a client did not take its answer: {error}");
            return;
        }
    }
}

async fn receive(read: &mut Read) -> Received {
    read.receive_call::<RawCall>().await.map(|(call, _)| call)
}

/// Sends a stream, and stops when the client has gone.
async fn send_all(
    write: &mut Write,
    mut stream: Replies,
    read: &mut Read,
    ahead: &mut Option<Received>,
) -> zlink::Result<()> {
    loop {
        let item = tokio::select! { biased;
            item = stream.next() => item,
            call = receive(read), if ahead.is_none() => {
                let ended = matches!(call, Err(ref error) if !matches!(error, zlink::Error::Json(_)));
                if ended {
                    return call.map(|_| ());
                }
                *ahead = Some(call);
                continue;
            }
        };
        let value = match item {
            Some(Ok(value)) => value,
            Some(Err(error)) => return write.send_error(&error, Vec::new()).await,
            None => break,
        };
        write.send_reply(&Reply::new(Some(value)).set_continues(Some(true)), Vec::new()).await?;
    }
    write
        .send_reply(
            &Reply::new(Some(Value::Object(serde_json::Map::new()))).set_continues(Some(false)),
            Vec::new(),
        )
        .await
}
