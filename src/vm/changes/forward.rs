//! `port-add` and `port-remove`. QEMU has forwards only in its human monitor, and QMP reports success even where that failed.

use std::path::Path;

use serde_json::{Value, json};

use crate::host::ports::{self, PortError};
use crate::qemu::forward::{add_forward, forward_remove};
use crate::qemu::plan::Step;
use crate::qemu::query;
use crate::qmp::hmp::{ForwardLine, HostfwdError, hostfwd_removed, usernet};
use crate::spec::{Forward, Networking};

use super::answer;
use crate::vm::change::{Done, ForwardPattern};
use crate::vm::error::{ChangeError, ErrorChain, ErrorKind};
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::inventory::Bound;
use crate::vm::state::origin::{Network, Origin};
use crate::vm::state::port_holder;

/// Makes a forward to a card; the result has the host port.
pub(super) fn add(owner: &mut Owner, forward: Forward, nic: Option<&str>, reply: Reply) {
    let netdev = match check(owner, &forward, nic) {
        Ok(netdev) => netdev,
        Err(error) => return answer(reply, Err(error)),
    };
    if let Err(error) = ports::check(&forward) {
        let root = owner.facts.run_directory.parent().map(Path::to_owned);
        let named = move || Ok(port_holder::named(root.as_deref(), error));
        return owner
            .spawn_blocking(named, |_, named| answer(reply, Err(named.map_or_else(|error| error, refused))));
    }
    if forward.host != 0 {
        let bound = Bound { forward, netdev };
        // reserved now, so that a second request for the same port is refused
        owner.inventory.forwards.push(bound.clone());
        return owner.run_plan(add_forward(&bound.netdev, &forward), move |owner, result| {
            // its card may have been removed meanwhile, and the forward with it
            let stays = owner.inventory.forwards.contains(&bound);
            let result = match result {
                Ok(_) if stays => {
                    publish(owner, "VMRUN_FORWARD_ADDED", &bound);
                    Ok(Done::Forward(owner.inventory.published(&bound)))
                }
                Ok(_) => Err(ChangeError::no_such("network card any more for", forward)),
                Err(error) => {
                    owner.inventory.forwards.retain(|other| *other != bound);
                    Err(error)
                }
            };
            answer(reply, result);
        });
    }
    // the port is in the list after the command and not in the list before; the three commands are sent in one write
    let look = || Step::new(query::user_networks());
    let mut steps = vec![look()];
    steps.extend(add_forward(&netdev, &forward));
    steps.push(look());
    owner.run_plan(steps, move |owner, result| {
        let result = result.and_then(|values| found_port(&values, &netdev, &forward));
        match result {
            Ok(forward) => {
                let bound = Bound { forward, netdev };
                let published = owner.inventory.published(&bound);
                add_to_inventory(owner, bound);
                answer(reply, Ok(Done::Forward(published)));
            }
            Err(error) => look_again(owner, reply, error),
        }
    });
}

fn add_to_inventory(owner: &mut Owner, bound: Bound) {
    if !owner.inventory.forwards.contains(&bound) {
        publish(owner, "VMRUN_FORWARD_ADDED", &bound);
        owner.inventory.forwards.push(bound);
    }
}

/// A command for a forward with an arbitrary port failed. The forward may exist all the same: what QEMU lists goes into the
/// inventory, so that the user sees it and can end it.
fn look_again(owner: &mut Owner, reply: Reply, error: ChangeError) {
    owner.command(&query::user_networks(), move |owner, text| {
        let text = text.ok();
        for line in usernet(text.as_ref().and_then(Value::as_str).unwrap_or_default()) {
            add_to_inventory(owner, line.into());
        }
        answer(reply, Err(error));
    });
}

/// The back-end for a new forward, if nothing conflicts.
fn check(owner: &Owner, forward: &Forward, nic: Option<&str>) -> Result<String, ChangeError> {
    let netdev = match nic {
        Some(id) => owner.inventory.user_netdev_of(id)?,
        None => require_user_networking(owner)?,
    };
    let netdev = netdev.to_owned();
    if let Some(other) = owner.inventory.conflicting_forward(forward) {
        let message = format!("host port {} is forwarded already, by {other}", forward.host);
        return Err(ChangeError::new(ErrorKind::AlreadyThere { id: other.to_string() }, message));
    }
    Ok(netdev)
}

/// A port that is taken is refused in the same way, whoever has it.
fn refused(error: PortError) -> ChangeError {
    let taken = match &error {
        PortError::Taken { address, .. } => Some(ErrorKind::AlreadyThere { id: address.to_string() }),
        _ => None,
    };
    let refused = ChangeError::hinted(PortError::hint)(error);
    ChangeError { kind: taken.unwrap_or_else(|| refused.kind.clone()), ..refused }
}

fn require_user_networking(owner: &Owner) -> Result<&str, ChangeError> {
    let networking = match &*owner.origin {
        Origin::Ours(spec) => &spec.networking,
        // the card's back-end may be on a hub
        Origin::Wrapped(wrapped) => {
            return match wrapped.seen.as_ref().map(|seen| seen.network) {
                Some(Network::User) => Ok(owner.machine.netdev()),
                _ => Err(ChangeError::unsupported("this VM has no user networking, so no port forwards")
                    .hint("it can have one from the start: `-nic user` on QEMU's command line")),
            };
        }
    };
    owner.inventory.user_netdev().ok_or_else(|| {
        let message = match networking {
            Networking::User(_) => "the VM has no network card with user networking any more".to_owned(),
            other => format!("a VM with {other} networking has no port forwards"),
        };
        ChangeError::unsupported(message)
            .hint("forwards need user networking (`--networking user`, or a card of `nic-add user`)")
    })
}

fn found_port(values: &[Value], netdev: &str, forward: &Forward) -> Result<Forward, ChangeError> {
    let lines = |value: Option<&Value>| usernet(value.and_then(Value::as_str).unwrap_or_default());
    let (before, after) = (lines(values.first()), lines(values.last()));
    let is_ours = |line: &&ForwardLine| {
        line.netdev == netdev
            && line.protocol == forward.protocol
            && line.address == forward.address
            && line.guest_port == forward.guest
            && !before.iter().any(|old| {
                old.host_port == line.host_port
                    && old.protocol == line.protocol
                    && old.address == line.address
            })
    };
    after.iter().find(is_ours).map(|line| Forward { host: line.host_port, ..*forward }).ok_or_else(|| {
        let class = "GenericError".to_owned();
        ChangeError::new(
            ErrorKind::RefusedByQemu { class },
            "QEMU made the forward but does not list its port",
        )
    })
}

/// Ends a forward.
pub(super) fn remove(owner: &mut Owner, pattern: ForwardPattern, reply: Reply) {
    if let Err(error) = require_user_networking(owner) {
        return answer(reply, Err(error));
    }
    let fits = |bound: &&Bound| {
        pattern.matches(&bound.forward) && (!bound.is_probe() || pattern.address == Some(Bound::PROBE))
    };
    let meant: Vec<&Bound> = owner.inventory.forwards.iter().filter(fits).collect();
    let bound = match meant.as_slice() {
        [only] => (*only).clone(),
        [] => {
            let all = owner.inventory.requested_forwards();
            let list: Vec<String> = all.map(|bound| bound.forward.to_string()).collect();
            let has = if list.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has {}", list.join(", "))
            };
            return answer(reply, Err(ChangeError::no_such("forward", pattern).hint(has)));
        }
        several => {
            let list: Vec<String> = several.iter().map(|bound| bound.forward.to_string()).collect();
            let message = format!("host port {} has several forwards: {}", pattern.host, list.join(", "));
            return answer(
                reply,
                Err(ChangeError::invalid("host_port", message)
                    .hint("give the whole forward, as port-list prints it")),
            );
        }
    };
    let forward = bound.forward;
    owner.command(&forward_remove(&bound.netdev, &forward), move |owner, result| {
        let result = result.map_err(ChangeError::from).and_then(|text| {
            hostfwd_removed(text.as_str().unwrap_or_default()).map_err(|error| match error {
                // another client, or a command of the human monitor, was faster
                HostfwdError::NotFound => ChangeError::no_such("forward", forward),
                error => ChangeError::new(
                    ErrorKind::RefusedByQemu { class: "GenericError".to_owned() },
                    error.with_causes(),
                ),
            })
        });
        let gone =
            result.as_ref().err().is_none_or(|error| matches!(error.kind, ErrorKind::NoSuchThing { .. }));
        if gone {
            owner.inventory.forwards.retain(|other| *other != bound);
            publish(owner, "VMRUN_FORWARD_REMOVED", &bound);
        }
        answer(reply, result.map(|()| Done::Nothing));
    });
}

/// A back-end is gone, and its forwards with it.
pub(super) fn gone_with(owner: &mut Owner, netdev: &str) {
    let (gone, stay) = std::mem::take(&mut owner.inventory.forwards)
        .into_iter()
        .partition::<Vec<Bound>, _>(|bound| bound.netdev == netdev);
    owner.inventory.forwards = stay;
    for bound in gone {
        publish(owner, "VMRUN_FORWARD_REMOVED", &bound);
    }
}

fn publish(owner: &Owner, name: &str, bound: &Bound) {
    if !bound.is_probe() {
        owner.bus.publish(name, json!({ "forward": bound.forward.to_string() }));
    }
}
