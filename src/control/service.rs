//! Serves the control protocol: one task for each connection, which executes its calls in order.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use log::Level;
use nix::libc;
use nix::sys::socket::{Backlog, UnixCredentials, getsockopt, listen, sockopt};
use serde::Serialize;
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::host::log_context::{self, LogContext};
use crate::host::sys;
use crate::vm::{ChangeError, ErrorKind, Handle};

use super::dispatch::{Answer, ConnectionState, RawCall, dispatch, explained};
use super::error::WireError;
use super::framing::{FrameError, FrameReader, WriteBytes, frame};
use super::last_calls::{LastCalls, queued};
use super::permits::{Permit, Permits, TooMany, Use};
use super::socket::{Guarded, GuardedWrite, Socket};
use super::verbs::Replies;

/// The length of the queue of unaccepted connections; `connect` blocks beyond it. With the system's limit (4096), a client that
/// only connects would delay every other one by a tenth of a second and more.
const MAX_WAITING: i32 = 128;
/// So many invalid frames in a row close the connection.
const MAX_GARBAGE: usize = 16;
/// How long to wait after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// How long the next call waits for a oneway call before it.
const ONE_WAY: Duration = Duration::from_secs(2);
/// How long clients may take to read their last replies after the VM's end.
const LAST_REPLIES: Duration = Duration::from_secs(5);

/// The number of the next connection, for the log.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Serves clients until the VM has ended; then all clients that have sent calls, or are about to, get their replies, and are
/// disconnected.
pub(super) async fn serve(listener: UnixListener, vm: Handle, permits: Permits) {
    serve_each(listener, vm, permits, converse).await;
}

/// Runs a task for each connection, until the VM has ended and all clients that had connected by then were served.
pub(super) async fn serve_each<F: Future<Output = ()> + Send + 'static>(
    listener: UnixListener,
    vm: Handle,
    permits: Permits,
    converse: fn(UnixStream, Handle, Arc<Permit>) -> F,
) {
    shorten_queue(&listener);
    let mut connections = JoinSet::new();
    let ended = vm.ended();
    tokio::pin!(ended);
    let waits = AtomicBool::new(false);
    // kept between turns: a client that was accepted and waits for a permit must not be lost
    let mut next = Box::pin(permitted(&listener, &permits, &waits));
    let begin = |connections: &mut JoinSet<()>, (stream, permit): (UnixStream, Permit)| {
        let permit = Arc::new(permit);
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let client = peer(&stream).map_or(0, |peer| peer.pid());
        let conversation = converse(stream, vm.clone(), Arc::clone(&permit));
        let served = async move {
            log::debug!("a client has connected: process {client}");
            tokio::select! { biased;
                () = permit.revoked() => log::debug!("a client made room for another"),
                () = conversation => {}
            }
        };
        connections.spawn(log_context::scope(Some(LogContext { connection, request: None }), served));
    };
    loop {
        tokio::select! { biased;
            _ = &mut ended => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {
                if connections.is_empty() {
                    sys::give_back_memory();
                }
            }
            accepted = &mut next => {
                next.set(permitted(&listener, &permits, &waits));
                begin(&mut connections, accepted);
            }
        }
    }
    let queued = queued(&listener);
    let finished = async {
        if waits.load(Ordering::Relaxed) {
            begin(&mut connections, next.await);
        }
        for stream in queued.into_iter().filter(is_trusted) {
            begin(&mut connections, (stream, permits.take().await));
        }
        while connections.join_next().await.is_some() {}
    };
    // a client that neither reads nor leaves does not keep the supervisor alive
    let _ = tokio::time::timeout(LAST_REPLIES, finished).await;
}

/// The next connection, with its permit; more connections wait in the listener's queue. `waits` is true while it waits for a
/// permit.
async fn permitted(listener: &UnixListener, permits: &Permits, waits: &AtomicBool) -> (UnixStream, Permit) {
    let stream = accept(listener, permits).await;
    waits.store(true, Ordering::Relaxed);
    let permit = permits.take().await;
    waits.store(false, Ordering::Relaxed);
    (stream, permit)
}

fn shorten_queue(listener: &UnixListener) {
    // on a socket that listens already, Linux only changes the queue's length
    let set = Backlog::new(MAX_WAITING).and_then(|waiting| listen(listener, waiting));
    if let Err(error) = set {
        log::warn!("the queue of the control socket keeps the system's length: {error}");
    }
}

async fn accept(listener: &UnixListener, permits: &Permits) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_trusted(&stream) => return stream,
            Ok(_) => log::warn!("a connection of another user was refused"),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                log::debug!("a connection could not be accepted: {error}");
                permits.make_room().await;
            }
            Err(error) => {
                log::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Own user or root. The run directory keeps other users out already; this check also holds if its mode is changed.
fn is_trusted(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    peer(stream).is_some_and(|peer| peer.uid() == own || peer.uid() == 0)
}

fn peer(stream: &UnixStream) -> Option<UnixCredentials> {
    getsockopt(&stream.as_fd(), sockopt::PeerCredentials).ok()
}

/// Executes the calls of one connection until it or the VM ends.
async fn converse(stream: UnixStream, handle: Handle, permit: Arc<Permit>) {
    let (calls, mut replies) = Guarded(stream).split();
    let mut calls = FrameReader::new(calls);
    let mut connection = ConnectionState::default();
    let mut garbage = 0;
    let mut requests = 0;
    let mut last = LastCalls::default();
    loop {
        permit.idle();
        let call = last.next(calls.next::<RawCall>(), replies.socket(), &handle).await;
        requests += 1;
        let context = log_context::request(requests);
        let (oneway, answer) = match call {
            Ok(call) => {
                garbage = 0;
                let needed = call.needs();
                let answer = permitted_answer(&call, needed, &handle, &mut connection, &permit);
                let answer = log_context::scope(context, answer);
                if call.oneway && needed != Use::Wait {
                    // its client may have gone, and the call is executed all the same, usually at once
                    let _ = tokio::time::timeout(ONE_WAY, answer).await;
                    continue;
                }
                let answer = tokio::select! { biased;
                    answer = answer => answer,
                    // a change that was sent to the owner continues; waits are dropped. More oneway calls may be in the buffer
                    () = replies.hung_up() => {
                        log_context::within(context, || log::debug!("the client left without its answer"));
                        continue;
                    }
                };
                (call.oneway, answer)
            }
            // the frame was read completely, so the connection can continue
            Err(FrameError::Json(error)) => {
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
                permit.idle();
                match answer {
                    Ok(frame) => replies.write(frame.as_bytes()).await,
                    Err(error) => send(&mut replies, &error).await,
                }
            }
            // it keeps its permit while it lasts: a quiet subscriber is not an idle client
            Answer::Stream(stream) => {
                log_context::scope(context, send_all(&mut replies, stream, &handle)).await
            }
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

/// Executes one call, unless too many of its kind are under way.
async fn permitted_answer(
    call: &RawCall,
    needed: Use,
    handle: &Handle,
    connection: &mut ConnectionState,
    permit: &Permit,
) -> Answer {
    let level = if needed == Use::Change { Level::Info } else { Level::Debug };
    log::log!(level, "request: {}", call.name());
    let began = Instant::now();
    let answer = match permit.busy(needed) {
        Ok(()) => dispatch(call, handle, connection).await,
        Err(TooMany { message, hint }) => {
            let kind = ErrorKind::NotNow { state: "crowded".to_owned() };
            Answer::One(Err(ChangeError::new(kind, message).hint(hint).into()))
        }
    };
    let after = began.elapsed().as_millis();
    match &answer {
        Answer::One(Ok(_)) => log::debug!("answered after {after} ms"),
        Answer::One(Err(error)) => {
            log::log!(
                level,
                "{} after {after} ms: {}",
                error.name(),
                error.text("message").unwrap_or_default()
            );
        }
        Answer::Stream(_) => log::debug!("answered by a stream"),
    }
    answer
}

/// Sends a stream, and stops when the client has gone.
async fn send_all(replies: &mut GuardedWrite, mut stream: Replies, vm: &Handle) -> io::Result<()> {
    loop {
        let item = tokio::select! { biased;
            item = stream.next() => item,
            () = replies.hung_up() => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let value = match item {
            Some(Ok(value)) => value,
            Some(Err(error)) => return send(replies, &explained(error, vm).await).await,
            None => break,
        };
        send(replies, &StreamReply { parameters: value, continues: true }).await?;
    }
    let parameters = Value::Object(serde_json::Map::new());
    send(replies, &StreamReply { parameters, continues: false }).await
}

/// One reply of a stream as it travels.
#[derive(Serialize)]
struct StreamReply {
    parameters: Value,
    continues: bool,
}

async fn send(replies: &mut GuardedWrite, message: &impl Serialize) -> io::Result<()> {
    replies.write(&frame(message)?).await
}
