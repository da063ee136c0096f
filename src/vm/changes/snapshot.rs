//! `snapshot-save`, `snapshot-load`, `snapshot-delete`, `snapshot-list`.

use serde_json::json;

use crate::qemu::migration;
use crate::qemu::query;
use crate::qemu::snapshot::Snapshot;

use super::{answer, guard, streams};
use crate::vm::change::Done;
use crate::vm::change::SnapshotChange;
use crate::vm::changes::guard::Needs;
use crate::vm::changes::snapshots::{Failed, Snapshots};
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::events;
use crate::vm::guest::agent::Loss;
use crate::vm::look::is_open;
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::inventory::Phase;
use crate::vm::state::journal::Job;
use crate::vm::state::run_state::RunState;
use crate::vm::steps::to_the_end;

/// Starts one; no other change may run until it has ended.
pub(super) fn start(owner: &mut Owner, change: SnapshotChange, reply: Reply) {
    let snapshots = Snapshots::new(&owner.session, &owner.bus, &owner.state, &owner.inventory, &owner.origin);
    if matches!(change, SnapshotChange::List) {
        let listed = async move { snapshots.list().await.map(Done::Snapshots) };
        return owner.spawn(listed, |_, result| answer(reply, result));
    }
    if let Err(error) = check(owner, &change) {
        return answer(reply, Err(error));
    }
    if matches!(change, SnapshotChange::Load(_)) {
        // the guest that runs the commands is replaced, and QEMU loads a snapshot only into the ports that it was made with
        streams::close_all(owner);
    }
    let description = change.description();
    log::info!("{description}");
    let resume = owner.inventory.run_state == RunState::Running;
    if let Err(error) =
        owner.journal.job(Job { what: description.clone(), resume, file: None, part: None, template: None })
    {
        return answer(reply, Err(error));
    }
    owner.busy = Some(description);
    let loads = matches!(change, SnapshotChange::Load(_));
    let (what, needs) = match &change {
        SnapshotChange::Save { .. } => ("a snapshot", Needs::ImagesAndMemory),
        SnapshotChange::Load(_) => ("loading a snapshot", Needs::Images),
        SnapshotChange::Delete(_) | SnapshotChange::List => ("deleting a snapshot", Needs::Images),
    };
    // a freeze, or the start of a fork, has had QEMU leave it out
    let may_lack_memory = owner.origin.spec().is_some_and(|spec| spec.forkable);
    let session = owner.session.clone();
    let work = async move {
        guard::check(&session, what, needs).await?;
        if may_lack_memory {
            session.run(&migration::with_memory()).await.map_err(ChangeError::from)?;
        }
        match change {
            SnapshotChange::Save { name, overwrite, progress } => {
                snapshots.save(&name, overwrite, &progress).await
            }
            SnapshotChange::Load(name) => snapshots.load(&name).await,
            SnapshotChange::Delete(name) => snapshots.delete(&name).await,
            SnapshotChange::List => Err(ChangeError::unsupported("a list is no change").into()),
        }
    };
    owner.spawn(work, move |owner, result| {
        if !loads {
            return ended(owner, result, reply);
        }
        match result {
            Ok(snapshot) => loaded(owner, snapshot, reply),
            failed => ended(owner, failed, reply),
        }
    });
}

fn check(owner: &Owner, change: &SnapshotChange) -> Result<(), ChangeError> {
    let state = owner.inventory.run_state;
    let saves = matches!(change, SnapshotChange::Save { .. });
    if saves && !matches!(state, RunState::Running | RunState::Paused) {
        let kind = ErrorKind::NotNow { state: state.to_string() };
        return Err(ChangeError::new(kind, format!("a VM that is {state} cannot be put into a snapshot")));
    }
    if saves && is_inconsistent(owner) {
        return Err(guard::inconsistent("a snapshot"));
    }
    if saves {
        streams::refuse_running(owner, None)?;
    }
    check_settled(owner)
}

/// Whether a snapshot was loaded in part.
pub(super) fn is_inconsistent(owner: &Owner) -> bool {
    owner.inventory.reason.as_deref() == Some(guard::INCONSISTENT)
}

/// Refuses while devices are being added or removed: that state could not be restored.
pub(super) fn check_settled(owner: &Owner) -> Result<(), ChangeError> {
    match owner.inventory.devices().find(|entry| entry.phase != Phase::Present) {
        None => Ok(()),
        Some(entry) => {
            let way = if entry.phase == Phase::Adding { "plugged" } else { "unplugged" };
            let kind = ErrorKind::NotNow { state: "changing".to_owned() };
            Err(ChangeError::new(kind, format!("'{}' is just being {way}", entry.id))
                .hint("try again after that"))
        }
    }
}

fn ended(owner: &mut Owner, result: Result<Snapshot, Failed>, reply: Reply) {
    owner.busy = None;
    owner.journal.job_ended();
    let result = result.map(Done::Snapshot).map_err(|Failed { error, broken }| {
        if broken {
            owner.inventory.run_state = RunState::Paused;
            owner.inventory.reason = Some(guard::INCONSISTENT.to_owned());
        }
        error
    });
    answer(reply, result);
}

/// A snapshot was loaded: refreshes what is known of the machine.
fn loaded(owner: &mut Owner, snapshot: Snapshot, reply: Reply) {
    let resync = resync(owner.session.clone(), owner.machine.ids());
    owner.spawn(resync, move |owner, found| {
        if let Some(Found { sizes, running, agent }) = found {
            for (node, size) in sizes {
                owner.inventory.set_size(&node, size);
            }
            if !running {
                owner.inventory.run_state = RunState::Paused;
            }
            owner.inventory.reason = None;
            owner.evidence.reset();
            // the restored agent knows nothing of what was sent since
            owner.agent.lose(Loss::Loaded);
            if agent {
                events::agent_port(owner, true);
            }
        }
        owner.begins_anew();
        owner.bus.publish("VMRUN_SNAPSHOT_LOADED", json!({ "name": snapshot.name }));
        ended(owner, Ok(snapshot), reply);
    });
}

struct Found {
    sizes: Vec<(String, u64)>,
    running: bool,
    agent: bool,
}

async fn resync(session: crate::qmp::Session, ids: &crate::qemu::ids::Ids) -> Option<Found> {
    use crate::qemu::Command;
    use serde_json::Value;
    let ask = |command: &Command| to_the_end(session.submit(command));
    let drives = ask(&query::blocks()).await.ok()?;
    let size = |drive: &Value| {
        let medium = &drive["inserted"];
        Some((medium["node-name"].as_str()?.to_owned(), medium["image"]["virtual-size"].as_u64()?))
    };
    let status = ask(&query::status()).await.ok()?;
    let chardevs = ask(&query::chardevs()).await.ok()?;
    Some(Found {
        sizes: drives.as_array()?.iter().filter_map(size).collect(),
        running: status["running"] == true,
        agent: is_open(&chardevs, ids.agent_chardev),
    })
}
