//! The sockets and pipes of a VM. They are made before QEMU starts, so that nothing needs to be polled.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::net::UnixStream;

use crate::host::dirs::{Directory, PipeEnd, RunDir, names, remove_socket};
use crate::spec::Display;
use crate::spec::display::Endpoint;

use crate::vm::start_error::{StartError, system};

/// A pair of connected sockets for a port of QEMU: ours, which does not block, and QEMU's.
pub(in crate::vm) fn pair() -> io::Result<(StdUnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs.into()))
}

/// The most output in bytes that is shown of a program that should be QEMU.
const MAX_WORDS: u64 = 4096;

/// The sockets that clients connect to.
#[derive(Debug)]
pub struct ControlSockets {
    /// The control protocol.
    pub control: UnixListener,
    /// Plain QMP, shared.
    pub qmp: UnixListener,
}

impl ControlSockets {
    pub(in crate::vm) fn open(run: &RunDir) -> Result<Self, StartError> {
        run.ensure_run_id().map_err(system("the run directory"))?;
        let bind = |name: &str| {
            let listener = run.bind(name)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        Ok(Self {
            control: bind(names::CONTROL).map_err(system("the control socket"))?,
            qmp: bind(names::QMP_SHARED).map_err(system("the shared QMP socket"))?,
        })
    }
}

/// QEMU's ends of its connections to the supervisor.
#[derive(Debug)]
pub(in crate::vm) struct Sockets {
    pub(in crate::vm) qmp: OwnedFd,
    pub(in crate::vm) agent: OwnedFd,
    /// Its standard streams, which are the guest's console. Both ends of the output are open in QEMU, so that without a supervisor
    /// the guest's output is lost instead of blocking it; its input never ends, since QEMU would not read it again.
    pub(in crate::vm) serial: (Stdio, Stdio),
}

/// The supervisor's ends of the guest's console.
#[derive(Debug)]
pub(in crate::vm) struct Serial {
    pub(in crate::vm) input: File,
    pub(in crate::vm) output: File,
}

impl Sockets {
    /// Makes them; returns the supervisor's ends of the console as well.
    pub(in crate::vm) fn make(run: &RunDir) -> Result<(Self, Serial), StartError> {
        let bind =
            |name: &str| run.bind(name).map(OwnedFd::from).map_err(system("a socket in the run directory"));
        let pipes = || {
            run.make_pipe(names::SERIAL_IN)?;
            run.make_pipe(names::SERIAL_OUT)?;
            let input = run.open_pipe(names::SERIAL_IN, PipeEnd::Both)?;
            // opened for reading first: without a reader it cannot be opened for writing
            let ours = Serial::open(run)?;
            let output = run.open_pipe(names::SERIAL_OUT, PipeEnd::Write)?;
            Ok(((input.into(), output.into()), ours))
        };
        let (serial, ours) = pipes().map_err(system("a pipe in the run directory"))?;
        Ok((Self { qmp: bind(names::QMP)?, agent: bind(names::AGENT)?, serial }, ours))
    }
}

impl Serial {
    /// Opens the existing pipes.
    pub(in crate::vm) fn open(run: &Directory) -> io::Result<Self> {
        let input = run.open_pipe(names::SERIAL_IN, PipeEnd::Write)?;
        Ok(Self { input, output: run.open_pipe(names::SERIAL_OUT, PipeEnd::Read)? })
    }

    /// Duplicates the ends.
    pub(in crate::vm) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { input: self.input.try_clone()?, output: self.output.try_clone()? })
    }

    /// Unread output, as a program's last output.
    pub(in crate::vm) fn stderr_tail(mut self) -> String {
        let mut words = Vec::new();
        // does not block: returns what is there
        let _ = (&mut self.output).take(MAX_WORDS).read_to_end(&mut words);
        String::from_utf8_lossy(&words).into_owned()
    }
}

/// Binds the socket of `--qmp`; its path may have any length.
pub(in crate::vm) fn user_monitor(path: &Path) -> Result<(PathBuf, UnixListener), StartError> {
    let path = std::path::absolute(path).map_err(system("the working directory"))?;
    let bound = Directory::bind_at(&path).map_err(|error| {
        let taken = error.kind() == io::ErrorKind::AddrInUse;
        StartError::File {
            what: "QMP socket",
            path: path.clone(),
            why: if taken { "something has that name already".to_owned() } else { error.to_string() },
            hint: taken.then(|| "remove it, or choose another path".to_owned()),
        }
    })?;
    Ok((path, bound))
}

/// Connects to one of QEMU's sockets.
pub(in crate::vm) fn connect_to(run: &RunDir, name: &str) -> io::Result<UnixStream> {
    let stream: std::os::unix::net::UnixStream = run.connect(name)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Removes the socket of a display whose QEMU has ended.
pub(in crate::vm) fn remove_screen(display: &Display) {
    if let Some(Endpoint::Unix(path)) = display.endpoint() {
        remove_socket(Path::new(path));
    }
}
