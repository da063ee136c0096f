//! The ports that carry a command's standard streams, with the host's ends of them.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::net::UnixStream;

use super::exec::Exec;
use super::stream_shell::WITH_PORTS;
use crate::host::log_context;
use crate::qemu::stream_port::StandardStream;
use crate::vm::change::{Port, Ports};
use crate::vm::error::ChangeError;
use crate::vm::handle::Handle;

/// The plugged ports of a command.
pub(super) struct Streams {
    pub(super) output: Connected,
    pub(super) error: Connected,
    pub(super) input: Option<Connected>,
    pub(super) plugged: Plugged,
}

/// A port with the host's end of its socket.
pub(super) struct Connected {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) socket: UnixStream,
}

/// Unplugs the ports of a command on drop.
pub(super) struct Plugged {
    vm: Handle,
    /// `None`: they are unplugged, or stay.
    pub(super) number: Option<u64>,
}

impl Streams {
    pub(super) async fn open(vm: &Handle, with_input: bool) -> Result<Self, ChangeError> {
        let mut streams = vec![StandardStream::Output, StandardStream::Error];
        streams.extend(with_input.then_some(StandardStream::Input));
        let Ports { number, ports } = vm.open_streams(streams).await?;
        Self::connected(vm, number, ports.into_iter())
    }

    /// `ports`: of output, error and, if there is one, input.
    pub(super) fn connected(
        vm: &Handle,
        number: u64,
        ports: impl Iterator<Item = Port>,
    ) -> Result<Self, ChangeError> {
        let plugged = Plugged { vm: vm.clone(), number: Some(number) };
        let connected =
            |Port { id, name, socket }| Ok(Connected { id, name, socket: UnixStream::from_std(socket)? });
        let mut ports = ports.map(connected);
        let mut next = || ports.next().transpose().map_err(|error: io::Error| ChangeError::host(error));
        let missing = || ChangeError::host("a port is missing");
        let (output, error) = (next()?.ok_or_else(missing)?, next()?.ok_or_else(missing)?);
        Ok(Self { output, error, input: next()?, plugged })
    }

    /// The shell that connects them with a command, or waits for one if there is none here.
    pub(super) fn shell(&self, mark: &str, command: &[String]) -> Vec<String> {
        let input = self.input.as_ref().map_or("", |port| &port.name);
        let mut shell = Exec::script(WITH_PORTS, &[mark, &self.output.name, &self.error.name, input]).command;
        shell.extend_from_slice(command);
        shell
    }

    /// All of them: output, error and, if there is one, input.
    pub(super) fn all(&self) -> impl Iterator<Item = &Connected> {
        [&self.output, &self.error].into_iter().chain(&self.input)
    }

    /// The number of the ports, and the host's ends of them, which are not unplugged.
    pub(super) fn into_parts(mut self) -> Result<(u64, Vec<StdUnixStream>), ChangeError> {
        let number = self.plugged.number.take().unwrap_or_default();
        let sockets = [Some(self.output.socket), Some(self.error.socket), self.input.map(|port| port.socket)];
        let sockets: io::Result<Vec<StdUnixStream>> =
            sockets.into_iter().flatten().map(UnixStream::into_std).collect();
        Ok((number, sockets.map_err(ChangeError::host)?))
    }

    /// Unplugs them. Requests to the owner that are sent after this come after that.
    pub(super) async fn close(mut self) {
        if let Some(number) = self.plugged.number.take() {
            self.plugged.vm.close_streams(number).await;
        }
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        let Some(number) = self.number.take() else { return };
        let vm = self.vm.clone();
        log_context::spawn(async move { vm.close_streams(number).await });
    }
}
