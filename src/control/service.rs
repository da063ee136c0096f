//! Serves the control protocol: one task a connection, each connection in the order of its calls.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use zlink::{Connection, Reply};

use crate::vm::Handle;

use super::dispatch::dispatch;
use super::error::WireError;
use super::socket::Guarded;

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

/// Answers the calls of one connection until it ends, or the VM does.
async fn converse(stream: UnixStream, handle: Handle) {
    let mut connection = Connection::new(Guarded(stream));
    loop {
        let call = tokio::select! { biased;
            call = connection.receive_call::<RawCall>() => call,
            _ = handle.ended() => return,
        };
        let (oneway, answer) = match call {
            Ok((call, _)) => {
                let oneway = call.oneway();
                (oneway, dispatch(call.method(), &handle).await)
            }
            // the frame has been read whole, so the connection can go on
            Err(zlink::Error::Json(error)) => {
                log::debug!("a client sent what is not a call: {error}");
                (false, Err(WireError::service("InvalidParameter", "parameter", "the message itself")))
            }
            Err(error) => {
                log::debug!("a client's connection ended: {error}");
                return;
            }
        };
        if oneway {
            continue;
        }
        let sent = match answer {
            Ok(value) => connection.send_reply(&Reply::new(Some(value)), Vec::new()).await,
            Err(error) => connection.send_error(&error, Vec::new()).await,
        };
        if let Err(error) = sent {
            log::debug!("a client did not take its answer: {error}");
            return;
        }
    }
}
