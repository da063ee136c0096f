//! Sets a new QEMU up through its monitor, before the guest runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::host::dirs::{RunDir, names};
use crate::host::template;
use crate::qemu::netdev::set_link;
use crate::qemu::query_block::drive_of;
use crate::qemu::{Command, Machine, block, ids, query};
use crate::qmp::hmp::usernet;
use crate::qmp::{Agent, Connected, Options, Session};
use crate::spec::{DeviceId, Forward, Limits, VmSpec};

use crate::vm::changes::saving;
use crate::vm::console::{self, Console, ConsoleLog};
use crate::vm::error::ChangeError;
use crate::vm::guest::agent::AgentLink;
use crate::vm::launch::prepare::{Prepared, Restored};
use crate::vm::look::{Whose, look};
use crate::vm::process::qemu::Process;
use crate::vm::process::sockets::{Serial, connect_to};
use crate::vm::start_error::{StartError, system};
use crate::vm::state::inventory::{Bound, Inventory};
use crate::vm::state::journal::{Cards, Pending};
use crate::vm::state::opened::{self, Files, ImageNodes};
use crate::vm::state::origin::{Description, Origin};
use crate::vm::state::plugged::{Record, fill_options};
use crate::vm::state::run_state::RunState;
use crate::vm::state::vm_file::VmFile;
use crate::vm::steps::blocking;

use super::Launch;
use super::facts::{facts, make_records};
use super::failure::Failure;

/// The results of setting QEMU up through its monitor.
pub(super) struct ConfiguredQemu {
    pub(super) description: Description,
    pub(super) connected: Connected,
    pub(super) agent: AgentLink,
    pub(super) console: Console,
    pub(super) devices: InitialDevices,
}

/// The devices at the start.
pub(super) struct InitialDevices {
    pub(super) inventory: Inventory,
    /// The commands that made them.
    pub(super) record: Record,
    /// What QEMU does not report of them.
    pub(super) pending: Pending,
    /// The restored guest may have the agent's port open.
    pub(super) agent_open: bool,
}

/// Connects to QEMU's sockets, checks and configures it, and starts the guest.
pub(super) async fn configure(
    prepared: &Prepared,
    restored: Option<Restored>,
    launch: &Launch,
    process: &Process,
    serial: &Serial,
    user_qmp: Option<&Path>,
    started: Instant,
) -> Result<ConfiguredQemu, Failure> {
    let run = &prepared.run;
    // before the guest can change an image, and while QEMU initialises
    prepared.state.settle().map_err(StartError::from)?;
    prepared.state.write_pid(process.pid()).map_err(StartError::from)?;
    // written before the guest runs: a takeover needs it
    let facts = facts(prepared, launch, process);
    let mut spec = prepared.spec.clone();
    let description = Description { origin: Origin::Ours(Box::new(spec.clone())), facts };
    let mut file = VmFile { description, user_qmp: user_qmp.map(Path::to_owned), begun: false };
    file.write(run)?;
    let agent =
        AgentLink::new(Agent::new(connect(run, names::AGENT)?).with_transcript(launch.transcript.clone()));
    let agent = if restored.is_some() { agent.of_a_former_life() } else { agent };
    let options = Options { transcript: launch.transcript.clone(), ..Options::default() };
    let mut connected = Session::connect(connect(run, names::QMP)?, options).await?;
    log::info!("QEMU answers {} ms after its start", started.elapsed().as_millis());
    // QEMU has opened all its images, and the guest does not run yet
    prepared.images.settle().map_err(|error| StartError::Image { what: "image".to_owned(), error })?;
    let facts = &mut file.description.facts;
    facts.set_greeting(&connected.greeting);
    let log_bytes = facts.log_bytes;
    // before the guest runs: refuses if QEMU has opened something else than the VM's images
    let plugged = restored.as_ref().map(|restored| &restored.plugged);
    let files = Files::of(process.pid());
    let images = opened::images_of(&prepared.spec, plugged.unwrap_or(&ImageNodes::new()));
    opened::check(&connected.session, files, images).await.map_err(StartError::Opened)?;
    let (mut devices, runs) = match restored {
        None => (cold(prepared, &connected.session, files, &mut spec).await?, !prepared.options.paused),
        Some(restored) => {
            let runs = restored.running && !prepared.options.paused;
            let has_loaded_memory = !restored.without_memory;
            let devices = go_on(prepared, restored, &mut connected, files).await?;
            if has_loaded_memory {
                dig_holes(process.pid()).await;
            }
            (devices, runs)
        }
    };
    devices.inventory.forwards = forwards(&prepared.spec, &connected.session).await?;
    file.description.origin = Origin::Ours(Box::new(spec));
    // late, since a failed start must not rotate the log of the run before away; the console is silent until the processors run
    let state = Arc::clone(&prepared.state);
    let mut log = ConsoleLog::start(state, log_bytes, run).map_err(system("the console's log"))?;
    if let Some(folder) = &prepared.options.template {
        // as what was printed before: a wait for a text finds it
        log.begin_with(&template::console_of(folder));
    }
    let console = serial
        .try_clone()
        .and_then(|serial| console::connect(serial, Some(log)))
        .map_err(system("the pipes of the console"))?;
    if runs {
        connected.session.run(&Command::new("cont", Value::Null)).await?;
    }
    file.begun = true;
    file.write(run)?;
    make_records(&file.description.facts);
    Ok(ConfiguredQemu { description: file.description, connected, agent, console, devices })
}

/// The devices of a fresh VM: those of its description, and those of the user's own arguments, which may also change processors and
/// memory (`-smp`, `-m`).
async fn cold(
    prepared: &Prepared,
    session: &Session,
    files: Files,
    spec: &mut VmSpec,
) -> Result<InitialDevices, Failure> {
    let mut inventory = prepared.inventory.clone();
    inventory.run_state = if prepared.options.paused { RunState::Paused } else { RunState::Running };
    if !spec.extra.is_empty() {
        let pending = Pending::default();
        let seen = look(session, files, Whose::Ours { spec: &prepared.spec, pending: &pending }).await?;
        spec.cpus = seen.cpus.unwrap_or(spec.cpus);
        spec.memory = seen.memory.unwrap_or(spec.memory);
        // those of the devices that have no id are listed, and cannot be removed
        inventory.take_in(seen.inventory, false);
    }
    let record = Record::cold(&inventory);
    Ok(InitialDevices { inventory, record, pending: Pending::default(), agent_open: false })
}

/// Loads the state of a saved VM into QEMU, and asks QEMU what it has now.
async fn go_on(
    prepared: &Prepared,
    restored: Restored,
    connected: &mut Connected,
    files: Files,
) -> Result<InitialDevices, Failure> {
    let Restored { record, plugged, cards, limits, running, qemu_version, missing, stream, .. } = restored;
    let (is_fork, without_memory) = (restored.is_fork, restored.without_memory);
    let (major, minor, _) = connected.greeting.version;
    let mut then = qemu_version.split('.').map(|number| number.parse::<u64>().unwrap_or(0));
    let (then_major, then_minor) = (then.next(), then.next());
    if (major, minor) < (then_major.unwrap_or(0), then_minor.unwrap_or(0)) {
        let message = format!(
            "the VM was saved by QEMU {}, and this is {major}.{minor}",
            crate::qemu::quote::word(qemu_version.as_ref())
        );
        let error = ChangeError::unsupported(message);
        let hint = "an older QEMU cannot load what a newer one has saved; choose another with `--qemu`";
        return Err(StartError::Restore(error.hint(hint)).into());
    }
    if is_fork && (Some(major), Some(minor)) != (then_major, then_minor) {
        let message = format!(
            "the template was made with QEMU {}, and this is {major}.{minor}",
            crate::qemu::quote::word(qemu_version.as_ref())
        );
        let hint = "choose the one that it was made with with `--qemu`, or make a template with this one";
        return Err(StartError::Restore(ChangeError::unsupported(message).hint(hint)).into());
    }
    let loaded = saving::load(&connected.session, &mut connected.events, stream, without_memory).await;
    loaded.map_err(|error| {
        StartError::Restore(match missing {
            Some(missing) => error.hint(format!("the VM was saved with more than this: {missing}")),
            None => error,
        })
    })?;
    set_again(&connected.session, &cards, &limits).await?;
    let pending = Pending { cards, images: plugged, ..Pending::default() };
    // written before the guest runs: a takeover needs it
    pending.write(&prepared.run);
    let whose = Whose::Ours { spec: &prepared.spec, pending: &pending };
    let mut inventory = look(&connected.session, files, whose).await?.inventory;
    fill_options(&mut inventory, &Machine::of(&prepared.spec), Some(&prepared.spec), &record);
    let runs = running && !prepared.options.paused;
    inventory.run_state = if runs { RunState::Running } else { RunState::Paused };
    Ok(InitialDevices { inventory, record, pending, agent_open: true })
}

/// QEMU has filled all of the file that is the guest's memory, if there is one: what is zero takes no memory afterwards.
async fn dig_holes(qemu_pid: i32) {
    let dug = blocking(move || {
        let memory = template::memory_of(qemu_pid).map_err(ChangeError::host)?;
        memory.as_ref().map_or(Ok(()), template::dig_holes).map_err(ChangeError::host)
    });
    if let Err(error) = dug.await {
        log::info!("the guest's memory takes more than it needs: {error}");
    }
}

/// Restores what is not in the machine's state: in a new QEMU every cable is plugged and no disk has limits.
async fn set_again(
    session: &Session,
    cards: &Cards,
    limits: &BTreeMap<String, Limits>,
) -> Result<(), Failure> {
    for (id, _) in cards.iter().filter(|(_, card)| !card.link_up) {
        session.run(&set_link(id, false)).await?;
    }
    if limits.is_empty() {
        return Ok(());
    }
    let blocks = session.run(&query::blocks()).await?;
    for (id, limits) in limits {
        // QEMU's name of the inner device that has the drive
        if let Some(drive) = drive_of(&blocks, id).and_then(|drive| drive["qdev"].as_str()) {
            session.run(&block::throttle(drive, limits)).await?;
        }
    }
    Ok(())
}

/// QEMU has the only listening end: a refused connection means that it has ended.
fn connect(run: &RunDir, name: &str) -> Result<UnixStream, Failure> {
    connect_to(run, name).map_err(|error| Failure::Monitor(error.to_string()))
}

/// The forwards from the start, with the ports that QEMU picked.
async fn forwards(spec: &VmSpec, session: &Session) -> Result<Vec<Bound>, Failure> {
    if spec.publish.iter().all(|forward| forward.host != 0) {
        let netdev = spec
            .forwarding_card()
            .map_or(ids::NETDEV.to_owned(), |id| ids::netdev(id.map_or(ids::NIC, DeviceId::as_str)));
        let bound = |forward: &Forward| Bound { forward: *forward, netdev: netdev.clone() };
        return Ok(spec.publish.iter().map(bound).collect());
    }
    Ok(usernet(&session.text(&query::user_networks()).await?).into_iter().map(Bound::from).collect())
}
