//! Commands in the guest whose standard streams flow while they run.
//!
//! For each stream the guest gets a port, on which QEMU passes bytes from and to a socket of ours: without a limit of size, without
//! base64, with back-pressure in both directions (TCG, 64 MiB: out 380 MB/s, where the agent's file calls read 5). The agent starts
//! a shell that connects the ports and runs the command; nothing polls while it runs.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::host::log_context;
use crate::qmp::View;

use super::AGENT_TIMEOUT;
use super::end_mark::{self, Marked};
use super::exec::{Exec, Executed, Limit, Process};
use super::inputs::Input;
use super::stream_ports::{Connected, Streams};
use super::stream_shell::{SHELL, executed};
use crate::vm::bus::{BusEvent, Subscriber};
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::handle::Handle;

/// How many pieces may wait for a client that does not read: then the command's writes wait as well.
const WAITING_PIECES: usize = 4;
/// The largest piece, in bytes.
const LARGEST_PIECE: usize = 24_000;
/// How long to wait for the ports to open before the agent is asked whether the shell has failed.
const USUALLY_CONNECTED: Duration = Duration::from_millis(50);
/// Output that may be the beginning of the mark is passed on if nothing follows within this time: the shell writes the mark at once, and
/// the reader may have to see the output before it answers.
const MARK_FOLLOWS: Duration = Duration::from_millis(50);
/// How long to read on after the end of a shell that was killed.
const LAST_OUTPUT: Duration = Duration::from_millis(200);
/// The most bytes of input for a command without ports, which gets them in one piece.
const LARGEST_INPUT: usize = 16 << 20;

/// What happens with a command, in order.
#[derive(Debug)]
pub enum Piece {
    /// It was started.
    Started {
        /// The guest's id of the process that runs it: a shell, where the streams are ports. `None`: not known before its end.
        pid: Option<i64>,
        /// The handle for its input, if it was requested.
        input: Option<i64>,
    },
    /// It has written this to its standard output.
    Output(Vec<u8>),
    /// It has written this to its standard error.
    Error(Vec<u8>),
    /// It has ended; the output was in the pieces before.
    Ended(Executed),
}

/// Where a command's pieces go.
pub(super) type Pieces = mpsc::Sender<Result<Piece, ChangeError>>;

impl Handle {
    /// Runs a command in the guest. If the receiver is dropped, or on a timeout, the command is killed. The last piece is
    /// [`Piece::Ended`] or an error: `NoSuchThing`: the guest has no such program; `RefusedByGuest`: it cannot be started;
    /// `TimedOut`.
    pub fn exec_in_pieces(&self, exec: Exec) -> mpsc::Receiver<Result<Piece, ChangeError>> {
        let (pieces, receiver) = mpsc::channel(WAITING_PIECES);
        let vm = self.clone();
        log_context::spawn(async move {
            let result = tokio::select! { biased;
                () = pieces.closed() => return,
                result = vm.in_pieces(exec, &pieces) => result,
            };
            // the client may have gone
            let _ = pieces.send(result.map(Piece::Ended)).await;
        });
        receiver
    }

    async fn in_pieces(&self, exec: Exec, pieces: &Pieces) -> Result<Executed, ChangeError> {
        if let Some(executed) = self.through_waiting_shell(&exec, pieces).await? {
            return Ok(executed);
        }
        let agent_timeout = exec.agent_timeout.unwrap_or(AGENT_TIMEOUT);
        let with_ports = async {
            let limit = Limit::of(&exec);
            let ports = match Streams::open(self, exec.input || exec.stdin.is_some()).await {
                Ok(ports) => ports,
                Err(error) => return Ok(Err(error)),
            };
            match self.start_connected(&exec, &limit, ports).await? {
                Ok(running) => self.follow(&exec, limit, running, pieces).await.map(Ok),
                Err(why) => Ok(Err(why)),
            }
        };
        match Box::pin(self.in_guest(agent_timeout, with_ports)).await? {
            Ok(executed) => Ok(executed),
            Err(why) => {
                log::debug!("a command gets its streams from the agent: {why}");
                self.through_the_agent(exec, pieces).await
            }
        }
    }

    /// Starts the shell; returns when it has opened the ports. The inner error: it cannot, and the command was not started.
    async fn start_connected(
        &self,
        exec: &Exec,
        limit: &Limit,
        mut streams: Streams,
    ) -> Result<Result<(Process, Running), ChangeError>, ChangeError> {
        let mark = end_mark::random();
        let command = streams.shell(&mark, &exec.command);
        let events = self.bus.subscribe(None);
        let started = self.start(Exec { command, stdin: None, ..exec.clone() }, false).await;
        let mut process = match started {
            Ok(process) => process,
            // no Unix, or one without a shell
            Err(error) if matches!(error.kind, ErrorKind::NoSuchThing { .. }) => return Ok(Err(error)),
            Err(mut error) => {
                // it is the command that is not started
                if let ErrorKind::RefusedByGuest { id } = &mut error.kind
                    && id == SHELL
                {
                    *id = exec.command.first().cloned().unwrap_or_default();
                }
                return Err(error);
            }
        };
        let pid = process.pid;
        let failed = async {
            tokio::time::sleep(USUALLY_CONNECTED).await;
            self.finish(pid).await
        };
        let connected = async {
            tokio::select! { biased;
                opened = streams.output.socket.read_u8() => opened.map(|_| None).map_err(ChangeError::host),
                failed = failed => failed.map(|shell| Some(shell.exit_code.unwrap_or(-1))),
            }
        };
        if let Some(code) = limit.apply(&mut process, connected).await? {
            let message = format!("the guest's shell could not open the ports (exit code {code})");
            return Ok(Err(ChangeError::unsupported(message)));
        }
        // it runs now
        process.unwanted = true;
        Ok(Ok((process, Running::new(streams, events, &mark))))
    }

    /// Passes on a command's streams until it has ended.
    pub(super) async fn follow(
        &self,
        exec: &Exec,
        limit: Limit,
        (mut process, mut running): (Process, Running),
        pieces: &Pieces,
    ) -> Result<Executed, ChangeError> {
        let mut input = exec.input.then(|| self.inputs.open());
        let (pid, handle) = (process.pid, input.as_ref().map(|input| input.handle));
        let _ = pieces.send(Ok(Piece::Started { pid: Some(pid), input: handle })).await;
        let port = running.streams.input.take().map(|port| port.socket);
        let work = async {
            let feed = feed(port, exec.stdin.as_deref(), input.as_mut());
            tokio::select! { biased;
                ended = running.until_end(self, pid, pieces) => ended,
                never = feed => match never {},
            }
        };
        let end = limit.apply(&mut process, work).await;
        running.streams.close().await;
        match end? {
            End::Reported(executed) => Ok(Executed { stdout: Vec::new(), stderr: Vec::new(), ..executed }),
            End::Marked(status) => {
                let vm = self.clone();
                // the agent forgets the process once it has reported its end
                log_context::spawn(async move {
                    let _ = vm.in_guest(AGENT_TIMEOUT, vm.finish(pid)).await;
                });
                executed(status, exec.command.first().map(String::as_str).unwrap_or_default())
            }
        }
    }

    /// Runs a command without ports: its input goes in one piece before, its output comes in one piece at the end.
    async fn through_the_agent(&self, exec: Exec, pieces: &Pieces) -> Result<Executed, ChangeError> {
        let mut input = exec.input.then(|| self.inputs.open());
        let handle = input.as_ref().map(|input| input.handle);
        let _ = pieces.send(Ok(Piece::Started { pid: None, input: handle })).await;
        let mut stdin = exec.stdin.clone();
        if let Some(input) = &mut input {
            let whole = stdin.get_or_insert_default();
            while let Some(piece) = input.pieces.recv().await {
                whole.extend(piece);
                if whole.len() > LARGEST_INPUT {
                    return Err(ChangeError::unsupported(
                        "this guest takes at most 16 MiB of a command's input",
                    )
                    .hint("copy it into the guest with `copy-to`, and let the command read the file"));
                }
            }
        }
        let mut executed = self.exec(Exec { stdin, input: false, ..exec }).await?;
        for bytes in std::mem::take(&mut executed.stdout).chunks(LARGEST_PIECE) {
            let _ = pieces.send(Ok(Piece::Output(bytes.to_vec()))).await;
        }
        for bytes in std::mem::take(&mut executed.stderr).chunks(LARGEST_PIECE) {
            let _ = pieces.send(Ok(Piece::Error(bytes.to_vec()))).await;
        }
        Ok(executed)
    }
}

/// Writes a command's input to its port, and ends that. The socket is only shut down: QEMU throws away what it has not read of one
/// that was closed (7.2; `tcp_chr_hup`).
async fn feed(mut port: Option<UnixStream>, first: Option<&[u8]>, input: Option<&mut Input>) -> Infallible {
    if let Some(port) = &mut port {
        // a port that is gone goes with its command, whose end is found by its output
        let mut is_open = port.write_all(first.unwrap_or_default()).await.is_ok();
        if let Some(input) = input {
            while is_open && let Some(piece) = input.pieces.recv().await {
                is_open = port.write_all(&piece).await.is_ok();
            }
        }
        let _ = port.shutdown().await;
    }
    // the socket stays open as long as this waits
    std::future::pending().await
}

/// How a command's end was found.
enum End {
    /// By the mark, with the status behind it.
    Marked(u16),
    /// The shell was killed before it could write the mark.
    Reported(Executed),
}

/// A command whose streams are connected.
pub(super) struct Running {
    streams: Streams,
    events: Subscriber,
    output: Marked,
    error: Marked,
}

impl Running {
    pub(super) fn new(streams: Streams, events: Subscriber, mark: &str) -> Self {
        Self { streams, events, output: Marked::new(mark), error: Marked::new(mark) }
    }

    /// Passes on the output until both marks were read, or nothing more comes after the shell was killed.
    async fn until_end(&mut self, vm: &Handle, pid: i64, pieces: &Pieces) -> Result<End, ChangeError> {
        let Self { streams, events, output, error } = self;
        let Connected { id, socket: output_socket, .. } = &mut streams.output;
        let error_socket = &mut streams.error.socket;
        let (mut from_output, mut from_error) = (vec![0; LARGEST_PIECE], vec![0; LARGEST_PIECE]);
        let exit = pin!(exit_without_mark(vm, pid, events, id));
        let mut exit = exit.fuse();
        let mut exited = None;
        loop {
            if let (Some(status), Some(_)) = (output.status, error.status) {
                return Ok(End::Marked(status));
            }
            let read = tokio::select! {
                read = output_socket.read(&mut from_output), if output.status.is_none() => {
                    let read = read.unwrap_or_default();
                    send(pieces, output.take(&from_output[..read]), Piece::Output).await;
                    read
                }
                read = error_socket.read(&mut from_error), if error.status.is_none() => {
                    let read = read.unwrap_or_default();
                    send(pieces, error.take(&from_error[..read]), Piece::Error).await;
                    read
                }
                () = tokio::time::sleep(MARK_FOLLOWS), if output.is_waiting() || error.is_waiting() => {
                    for (marked, piece) in [(&mut *output, Piece::Output as fn(_) -> _), (&mut *error, Piece::Error)] {
                        if marked.is_waiting() {
                            send(pieces, marked.rest(), piece).await;
                        }
                    }
                    continue;
                }
                executed = &mut exit => {
                    exited = Some(executed?);
                    continue;
                }
                () = tokio::time::sleep(LAST_OUTPUT), if exited.is_some() => {
                    send(pieces, output.rest(), Piece::Output).await;
                    send(pieces, error.rest(), Piece::Error).await;
                    return Ok(End::Reported(exited.unwrap_or_default()));
                }
            };
            if read == 0 {
                if vm.ended_soon().await.is_some() {
                    return Err(ChangeError::not_running());
                }
                let kind = ErrorKind::NotNow { state: "busy".to_owned() };
                let message = "the command was cut off from the host: a snapshot was to be loaded";
                return Err(ChangeError::new(kind, message));
            }
        }
    }
}

/// How the shell ended, once it has closed its ports. It may have written its mark before, which is still on the way.
async fn exit_without_mark(
    vm: &Handle,
    pid: i64,
    events: &mut Subscriber,
    port: &str,
) -> Result<Executed, ChangeError> {
    loop {
        if closed(events, port).await {
            return vm.finish(pid).await;
        }
        if let Some(executed) = vm.exited(pid).await? {
            return Ok(executed);
        }
    }
}

async fn send(pieces: &Pieces, bytes: Vec<u8>, piece: fn(Vec<u8>) -> Piece) {
    if !bytes.is_empty() {
        // a client that has gone ends the command
        let _ = pieces.send(Ok(piece(bytes))).await;
    }
}

/// Resolves when the guest has closed a port (true), or may have (false): events were lost.
pub(super) async fn closed(events: &mut Subscriber, port: &str) -> bool {
    loop {
        match events.next().await {
            Some(BusEvent::Record(record)) => match &record.view {
                View::SerialPortChange { id, open: false } if id == port => return true,
                _ => {}
            },
            Some(BusEvent::Lost(_)) => return false,
            // the VM has ended
            None => std::future::pending().await,
        }
    }
}
