//! QEMU as a process: its start, its stderr tail, its end. A child and an adopted QEMU are handled the same way, through a pidfd,
//! which is readable once the process has ended and never refers to another process.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader, Interest};

use crate::host::{environment, sys};

use crate::vm::state::outcome::Exit;

/// How many lines of QEMU's stderr are kept for error messages.
const TAIL_LINES: usize = 20;
/// Longer lines are cut: QEMU's own messages are short, but a guest can cause long ones.
const MAX_LINE: u64 = 4096;

/// The last lines that QEMU, or a helper, wrote to its stderr.
#[derive(Debug, Clone, Default)]
pub(in crate::vm) struct StderrTail(Arc<Mutex<VecDeque<String>>>);

impl StderrTail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines, each with its newline.
    pub(in crate::vm) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

/// A QEMU process.
#[derive(Debug)]
pub(in crate::vm) struct Process {
    pid: i32,
    pidfd: AsyncFd<OwnedFd>,
    child: Option<Child>,
    words: StderrTail,
    stderr: Option<tokio::task::JoinHandle<()>>,
}

impl Process {
    /// Starts QEMU with exactly the given descriptors and standard streams (in, out), and with SIGTERM, SIGINT and SIGHUP blocked,
    /// since service managers send them to the whole group and QEMU would end on them before its supervisor can act. `folder`: its
    /// working directory; `None` = that of this process. `tied`: it dies with this process. Must be called on a thread that lives
    /// as long (the death signal follows it).
    pub(in crate::vm) fn start(
        program: &Path,
        arguments: &[OsString],
        (stdin, stdout): (Stdio, Stdio),
        keep: Vec<OwnedFd>,
        folder: Option<&OwnedFd>,
        tied: bool,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        if let Some(folder) = folder {
            // by its descriptor, which the child has until it executes QEMU: the folder may have no name
            command.current_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        }
        command.arg0(program).args(arguments).stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        environment::apply_to_qemu(&mut command);
        sys::prepare_child(&mut command, keep, true, tied);
        let spawned = command.spawn();
        // closes our copies of the sockets: a QEMU that dies early then resets its connections
        drop(command);
        let mut child = spawned?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let words = StderrTail::default();
        let stderr =
            child.stderr.take().map(|pipe| drain(OwnedFd::from(pipe), words.clone(), "qemu")).transpose()?;
        let pidfd = sys::watch(sys::pidfd_open(Pid::from_raw(pid))?, Interest::READABLE)?;
        Ok(Self { pid, pidfd, child: Some(child), words, stderr })
    }

    /// Takes over a process that is not a child of this one.
    pub(in crate::vm) fn adopt(pid: i32, pidfd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            pid,
            pidfd: sys::watch(pidfd, Interest::READABLE)?,
            child: None,
            words: StderrTail::default(),
            stderr: None,
        })
    }

    /// Its process id.
    pub(in crate::vm) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end. Cancellation-safe. The exit status is known only for a child.
    pub(in crate::vm) async fn ended(&mut self) -> Option<Exit> {
        // an error of epoll means that waiting is impossible: treated as an unknown end
        let _ = self.pidfd.readable().await;
        self.reap()
    }

    fn reap(&mut self) -> Option<Exit> {
        let status = self.child.as_mut()?.wait().ok()?;
        match (status.code(), status.signal()) {
            (Some(code), _) => Some(Exit::Code(code)),
            (None, Some(signal)) => Some(Exit::Signal(signal)),
            (None, None) => None,
        }
    }

    /// Sends SIGKILL; no effect if it has ended already.
    pub(in crate::vm) fn kill(&self) {
        if let Err(error) = sys::pidfd_send_signal(self.pidfd.get_ref(), Signal::SIGKILL) {
            log::debug!("QEMU (pid {}) could not be killed: {error}", self.pid);
        }
    }

    /// The tail of QEMU's stderr; waits until its stderr is closed, which is when it has ended.
    pub(in crate::vm) async fn stderr_tail(&mut self) -> String {
        if let Some(reader) = self.stderr.take() {
            // a grandchild could hold the pipe open: QEMU's own output is complete by then
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), reader).await;
        }
        self.words.text()
    }
}

/// Logs each line and keeps the last ones, until the pipe is closed.
pub(in crate::vm) fn drain(
    pipe: OwnedFd,
    words: StderrTail,
    whose: &'static str,
) -> io::Result<tokio::task::JoinHandle<()>> {
    let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe)?;
    Ok(tokio::spawn(async move {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = tokio::io::AsyncReadExt::take(&mut reader, MAX_LINE);
            match limited.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    log::info!("{whose}: {text}");
                    words.push(text);
                }
            }
        }
    }))
}
