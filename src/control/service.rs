//! Serves the control protocol: one task a connection, each connection in the order of its calls.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use zlink::connection::socket::WriteHalf;
use zlink::{Connection, Reply};

use crate::vm::Handle;

use super::dispatch::dispatch;
use super::error::WireError;
use super::places::{Place, Places};
use super::socket::{Guarded, GuardedWrite};

/// Connections that are served at once. One more takes the place of that which has said nothing for longest.
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
    let places = Places::new(MAX_CONNECTIONS);
    let mut connections = JoinSet::new();
    tokio::pin!(ended);
    // not made anew in each turn: a client that is accepted and waits for a place must not be lost
    let mut next = Box::pin(seated(&listener, &places));
    loop {
        tokio::select! { biased;
            () = &mut ended => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (stream, place) = &mut next => {
                next.set(seated(&listener, &places));
                let handle = handle.clone();
                connections.spawn(async move {
                    tokio::select! { biased;
                        () = place.given_up() => log::debug!("a silent client made place for another"),
                        () = converse(stream, handle, &place) => {}
                    }
                });
            }
        }
    }
    drop(next);
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    // a client that neither reads nor leaves does not keep the supervisor alive
    let _ = tokio::time::timeout(LAST_REPLIES, finished).await;
}

/// The next connection, once there is a place for it; meanwhile more wait in the listening socket's queue.
async fn seated(listener: &UnixListener, places: &Places) -> (UnixStream, Place) {
    let stream = accept(listener).await;
    (stream, places.take().await)
}

async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_trusted(&stream) => return stream,
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
async fn converse(stream: UnixStream, handle: Handle, place: &Place) {
    let (mut calls, replies) = Connection::new(Guarded(stream)).split();
    let mut replies = replies.into_write_half();
    loop {
        place.silent();
        let call = tokio::select! { biased;
            call = calls.receive_call::<RawCall>() => call,
            _ = handle.ended() => return,
        };
        place.busy();
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
        place.silent();
        let sent = match answer {
            Ok(value) => send(&mut replies, &Reply::new(Some(value))).await,
            Err(error) => send(&mut replies, &error).await,
        };
        if let Err(error) = sent {
            log::debug!("a client did not take its answer: {error}");
            return;
        }
    }
}

/// Writes one frame. Not by zlink's own sender (0.8), which grows its buffer by 256 bytes and begins anew each time:
/// 100 KiB took it seconds, in which nobody else was served.
async fn send(replies: &mut GuardedWrite, message: &impl Serialize) -> zlink::Result<()> {
    let mut frame = serde_json::to_vec(message)?;
    frame.push(0);
    replies.write(&frame, &[] as &[OwnedFd], None).await
}
