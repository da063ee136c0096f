//! QEMU itself, started with the very arguments that vmrun gives it: the limit.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use vmrun::host::sys::give_away;

use super::line::Line;
use super::support::sandbox::Sandbox;

/// A command line as `vmrun qemu --dry-run` prints it.
#[derive(Clone)]
pub(crate) struct CommandLine(Vec<String>);

impl CommandLine {
    #[track_caller]
    pub(crate) fn of(sandbox: &Sandbox, options: &[&str], image: &Path) -> Self {
        let arguments = ["qemu", "--dry-run"].iter().chain(options).map(Into::into);
        let printed = sandbox.run(arguments.chain([image.as_os_str().to_owned()])).ok().stdout;
        Self(shlex::split(&printed.replace("\\\n", " ")).unwrap())
    }

    /// The same with another image.
    pub(crate) fn with_image(mut self, image: &Path, other: &Path) -> Self {
        let (image, other) = (image.to_str().unwrap(), other.to_str().unwrap());
        for argument in &mut self.0 {
            *argument = argument.replace(image, other);
        }
        self
    }

    /// Starts it, with sockets that listen already, as vmrun does; the first is that of the monitor.
    pub(crate) fn start(&self, folder: &Path, stdout: Stdio) -> Bare {
        let names = ["qmp", "agent"];
        let paths = names.map(|name| folder.join(format!("bare-{name}")));
        let sockets: Vec<OwnedFd> = paths.iter().map(|path| listen(path)).collect();
        let mut arguments = self.0.clone();
        for (name, socket) in names.iter().zip(&sockets) {
            // the numbers that a dry run prints are made up
            let wanted = format!("socket,id=vmrun-{name},");
            if let Some(chardev) = arguments.iter_mut().find(|argument| argument.starts_with(&wanted)) {
                *chardev = format!("{wanted}fd={},server=on,wait=off", socket.as_raw_fd());
            }
        }
        let mut command = Command::new(&arguments[0]);
        command.args(&arguments[1..]).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
        Bare { child: command.spawn().unwrap(), qmp: paths[0].clone() }
    }
}

/// A socket that programs inherit which are started from now on.
fn listen(path: &Path) -> OwnedFd {
    let _ = std::fs::remove_file(path);
    let socket = UnixListener::bind(path).unwrap().into();
    give_away(&socket).unwrap();
    socket
}

/// A QEMU that nobody supervises; killed when this is dropped.
pub(crate) struct Bare {
    pub(crate) child: Child,
    qmp: PathBuf,
}

impl Bare {
    /// Its monitor, ready for commands.
    pub(crate) fn monitor(&self) -> Line {
        let mut monitor = Line::qmp(&self.qmp);
        monitor.negotiate();
        monitor
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
