//! Plugs and unplugs the ports that carry the standard streams of commands in the guest.

use serde_json::json;
use tokio::sync::oneshot;

use crate::qemu::Command;
use crate::qemu::stream_port::{self, StandardStream};

use crate::vm::change::{Port, Ports};
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::owner::Owner;
use crate::vm::process::sockets::pair;
use crate::vm::state::waiting_shell::WaitingShellFacts;
use crate::vm::steps::to_the_end;

/// Plugs a port for each stream.
pub(in crate::vm) fn open(
    owner: &mut Owner,
    streams: &[StandardStream],
    reply: oneshot::Sender<Result<Ports, ChangeError>>,
) {
    if let Err(error) = check(owner) {
        return drop(reply.send(Err(error)));
    }
    let number = owner.ticket();
    let (mut ports, mut steps, mut given) = (Vec::new(), Vec::new(), Vec::new());
    for stream in streams {
        let (socket, theirs) = match pair() {
            Ok(pair) => pair,
            Err(error) => return drop(reply.send(Err(ChangeError::host(error)))),
        };
        let id = stream_port::id(number, *stream);
        // two guests' commands, or those of two supervisors of one VM, never have the same name
        let name = format!("io.vmrun.{:016x}", rand::random::<u64>());
        given.push(to_the_end(owner.session.pass(&id, theirs)));
        steps.extend(stream_port::plug(&owner.machine, &id, &name));
        ports.push(Port { id, name, socket });
    }
    owner.stream_ports.insert(number, ports.iter().map(|port| port.id.clone()).collect());
    owner.run_plan(steps, move |owner, result| {
        // of those that QEMU refused, the plan's failure tells enough
        drop(given);
        match result {
            Ok(_) => {
                // the client may have gone
                if reply.send(Ok(Ports { number, ports })).is_err() {
                    close(owner, number);
                }
            }
            Err(error) => {
                for id in owner.stream_ports.remove(&number).unwrap_or_default() {
                    // a descriptor that did not become a chardev; without one, QEMU's error is ignored
                    owner.command(&Command::new("closefd", json!({ "fdname": id })), |_, _| {});
                }
                drop(reply.send(Err(error)));
            }
        }
    });
}

/// Takes in the ports of a shell that waits in the guest since the start of the VM.
pub(in crate::vm) fn take_in(owner: &mut Owner, shell: &WaitingShellFacts) {
    let ids = shell.ports.iter().map(|port| port.id.clone()).collect();
    owner.stream_ports.insert(shell.number, ids);
    owner.tickets_after(shell.number);
}

/// Unplugs the ports of a command.
pub(in crate::vm) fn close(owner: &mut Owner, number: u64) {
    for id in owner.stream_ports.remove(&number).unwrap_or_default() {
        owner.command(&stream_port::unplug(&id), |_, _| {});
    }
}

/// QEMU has unplugged a device: one of the ports, or another.
pub(in crate::vm) fn unplugged(owner: &mut Owner, id: &str) {
    if stream_port::is_id(id) {
        owner.command(&stream_port::remove_chardev(id), |_, _| {});
    }
}

/// Unplugs the ports of all commands: the guest that ran them is about to be replaced.
pub(in crate::vm) fn close_all(owner: &mut Owner) {
    let numbers: Vec<u64> = owner.stream_ports.keys().copied().collect();
    numbers.into_iter().for_each(|number| close(owner, number));
}

/// Refuses to save the VM's state while commands in the guest use ports that the saved state would need again, but for those of the
/// command `but`.
pub(in crate::vm) fn refuse_running(owner: &Owner, but: Option<u64>) -> Result<(), ChangeError> {
    let count = owner.stream_ports.keys().filter(|number| Some(**number) != but).count();
    if count == 0 {
        return Ok(());
    }
    let commands = if count == 1 { "a command runs".to_owned() } else { format!("{count} commands run") };
    let kind = ErrorKind::NotNow { state: "busy".to_owned() };
    let message = format!(
        "{commands} in the guest (`exec`, a copy), and what connects it with the host cannot be saved"
    );
    Err(ChangeError::new(kind, message).hint("try again when it has ended"))
}

fn check(owner: &Owner) -> Result<(), ChangeError> {
    if owner.is_wrapped() {
        return Err(ChangeError::unsupported("the guest's ports of a wrapped QEMU are the user's"));
    }
    match &owner.busy {
        Some(busy) => Err(ChangeError::new(ErrorKind::NotNow { state: "busy".to_owned() }, busy.clone())),
        None => Ok(()),
    }
}
