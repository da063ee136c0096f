//! Serves the control protocol: one task a connection, each connection in the order of its calls.

use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use nix::sys::socket::{Backlog, getsockopt, listen, sockopt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use zlink::connection::ReadConnection;
use zlink::connection::socket::WriteHalf;
use zlink::{Call, Connection, Reply};

use crate::host::sys;
use crate::vm::Handle;

use super::dispatch::{Belongings, One, dispatch};
use super::error::WireError;
use super::places::{Place, Places};
use super::socket::{Guarded, GuardedRead, GuardedWrite};

/// Connections that are served at once. One more takes the place of that which has said nothing for longest.
const MAX_CONNECTIONS: usize = 512;
/// Connections that wait to be accepted, beyond which `connect` blocks. The system's own limit (4096) would be a queue of
/// a tenth of a second and more in front of every client while somebody does nothing but connect.
const MAX_WAITING: i32 = 128;
/// Frames in a row that are no calls, after which the connection ends.
const MAX_GARBAGE: usize = 16;
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

/// Serves clients until the VM has ended; then those that wait for an answer get it, and all are let go.
pub async fn serve(listener: UnixListener, vm: Handle) {
    serve_each(listener, vm, converse).await;
}

/// Gives each connection a task, until the VM has ended.
pub(super) async fn serve_each<F: Future<Output = ()> + Send + 'static>(
    listener: UnixListener,
    vm: Handle,
    converse: fn(UnixStream, Handle, Arc<Place>) -> F,
) {
    shorten_queue(&listener);
    let places = Places::new(MAX_CONNECTIONS);
    let mut connections = JoinSet::new();
    let ended = vm.ended();
    tokio::pin!(ended);
    // not made anew in each turn: a client that is accepted and waits for a place must not be lost
    let mut next = Box::pin(seated(&listener, &places));
    loop {
        tokio::select! { biased;
            _ = &mut ended => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {
                if connections.is_empty() {
                    sys::give_back_memory();
                }
            }
            (stream, place) = &mut next => {
                next.set(seated(&listener, &places));
                let place = Arc::new(place);
                let conversation = converse(stream, vm.clone(), Arc::clone(&place));
                connections.spawn(async move {
                    tokio::select! { biased;
                        () = place.given_up() => log::debug!("a silent client made place for another"),
                        () = conversation => {}
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

fn shorten_queue(listener: &UnixListener) {
    // on a socket that listens already, Linux only sets the number
    let set = Backlog::new(MAX_WAITING).and_then(|waiting| listen(listener, waiting));
    if let Err(error) = set {
        log::warn!("the queue of the control socket keeps the system's length: {error}");
    }
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

/// The replies of a stream; an error ends it.
pub(super) type Replies = Pin<Box<dyn Stream<Item = Result<Value, WireError>> + Send>>;

/// What a call is answered with.
pub(super) enum Answer {
    /// One reply.
    One(One),
    /// Replies until the stream ends; its last one closes the call.
    Stream(Replies),
}

type Calls = ReadConnection<GuardedRead>;
type Received = zlink::Result<Call<RawCall>>;

/// Answers the calls of one connection until it ends, or the VM does.
async fn converse(stream: UnixStream, handle: Handle, place: Arc<Place>) {
    let (mut calls, replies) = Connection::new(Guarded(stream)).split();
    let mut replies = replies.into_write_half();
    let mut own = Belongings::default();
    // a call that came while a stream was under way
    let mut ahead: Option<Received> = None;
    let mut garbage = 0;
    loop {
        place.silent();
        let call = match ahead.take() {
            Some(call) => call,
            None => tokio::select! { biased;
                call = receive(&mut calls) => call,
                _ = handle.ended() => return,
            },
        };
        place.busy();
        let (oneway, answer) = match call {
            Ok(call) => {
                place.known();
                garbage = 0;
                let answer = dispatch(call.method(), call.more(), &handle, &mut own);
                let answer = tokio::select! { biased;
                    answer = answer => answer,
                    // what was sent to the owner still happens; what was only awaited need not be any more
                    () = hung_up(&mut calls, &mut ahead, &replies), if !call.oneway() => {
                        log::debug!("a client left without its answer");
                        return;
                    }
                };
                (call.oneway(), answer)
            }
            // the frame has been read whole, so the connection can go on
            Err(zlink::Error::Json(error)) => {
                log::debug!("a client sent what is not a call: {error}");
                garbage += 1;
                let error = WireError::service("InvalidParameter", "parameter", "the message itself");
                (false, Answer::One(Err(error)))
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
            Answer::One(answer) => {
                place.silent();
                match answer {
                    Ok(frame) => write(&mut replies, frame.as_bytes()).await,
                    Err(error) => send(&mut replies, &error).await,
                }
            }
            // busy as long as it lasts: a quiet subscriber keeps its place
            Answer::Stream(stream) => send_all(&mut replies, stream, &mut calls, &mut ahead).await,
        };
        if let Err(error) = sent {
            log::debug!("a client did not take its answer: {error}");
            return;
        }
        if garbage == MAX_GARBAGE {
            log::debug!("a client sent nothing but garbage");
            return;
        }
    }
}

/// Waits until the client has closed its connection, and keeps one call that comes meanwhile. One that has only said its
/// last word (as `nc` does at the end of its input) still wants its answer.
async fn hung_up(calls: &mut Calls, ahead: &mut Option<Received>, replies: &GuardedWrite) {
    if ahead.is_none() {
        let call = receive(calls).await;
        if matches!(call, Err(ref error) if !matches!(error, zlink::Error::Json(_))) && replies.is_closed() {
            return;
        }
        *ahead = Some(call);
    }
    std::future::pending().await
}

async fn receive(calls: &mut Calls) -> Received {
    calls.receive_call::<RawCall>().await.map(|(call, _)| call)
}

/// Sends a stream, and stops when the client has gone.
async fn send_all(
    replies: &mut GuardedWrite,
    mut stream: Replies,
    calls: &mut Calls,
    ahead: &mut Option<Received>,
) -> zlink::Result<()> {
    loop {
        let item = tokio::select! { biased;
            item = stream.next() => item,
            call = receive(calls), if ahead.is_none() => {
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
            Some(Err(error)) => return send(replies, &error).await,
            None => break,
        };
        send(replies, &Reply::new(Some(value)).set_continues(Some(true))).await?;
    }
    let nothing = Value::Object(serde_json::Map::new());
    send(replies, &Reply::new(Some(nothing)).set_continues(Some(false))).await
}

/// Writes one frame. Not by zlink's own sender (0.8), which grows its buffer by 256 bytes and begins anew each time:
/// 100 KiB took it seconds, in which nobody else was served.
async fn send(replies: &mut GuardedWrite, message: &impl Serialize) -> zlink::Result<()> {
    let mut frame = serde_json::to_vec(message)?;
    frame.push(0);
    write(replies, &frame).await
}

async fn write(replies: &mut GuardedWrite, frame: &[u8]) -> zlink::Result<()> {
    replies.write(frame, &[] as &[OwnedFd], None).await
}
