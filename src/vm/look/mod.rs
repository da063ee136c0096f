//! What QEMU has: devices, media, forwards, the machine itself, from one batch of queries. Only this module makes an inventory from
//! QEMU: for a takeover, for VMs under `vmrun wrap`, after raw commands, and after lost events.

mod addresses;
mod answers;
mod blocks;
mod devices;
mod machine;
mod nics;

use std::collections::{BTreeMap, BTreeSet};

use crate::qemu::query_block::io_error;
use crate::qemu::{Machine, Slots};
use crate::qmp::hmp::{user_networks, usernet};
use crate::qmp::qtree::Tree;
use crate::qmp::{CommandError, Session};
use crate::spec::{Accel, Size, Target, UnknownTarget, VmSpec, request};

use crate::vm::state::facts::Facts;
use crate::vm::state::inventory::{Bound, Inventory};
use crate::vm::state::journal::{Cards, Pending};
use crate::vm::state::opened::{Files, images_of};
use crate::vm::state::origin::{Hardware, Network, NodeFile, Wrapped};
use crate::vm::state::run_state::RunState;
use crate::vm::state::taken;
pub(in crate::vm) use addresses::addresses;
use answers::Answers;
pub(in crate::vm) use answers::is_open;
use blocks::Blocks;
use devices::View;
use nics::Networks;

/// Which kind of VM it is, with what is known of it already.
#[derive(Debug, Clone, Copy)]
pub(in crate::vm) enum Whose<'a> {
    /// Started by vmrun from this description.
    Ours { spec: &'a VmSpec, pending: &'a Pending },
    /// Put together by the user. Many devices have no id, and vmrun's devices must be distinguished from the user's.
    Wrapped {
        /// The target it was treated as until now.
        target: Target,
        /// The file that each block node had open at the last look.
        files: Option<&'a BTreeMap<String, NodeFile>>,
        /// Devices from the start: a later device that looks like vmrun's is vmrun's. `None`: vmrun has plugged nothing.
        from_start: Option<&'a [String]>,
        /// What QEMU does not report of network cards.
        cards: Option<&'a Cards>,
    },
}

/// The result of a look.
pub(in crate::vm) struct Seen {
    pub(in crate::vm) machine: Machine,
    pub(in crate::vm) inventory: Inventory,
    /// Ids of all devices that have one, including vmrun's own.
    pub(in crate::vm) present: Vec<String>,
    /// Names of all block nodes.
    pub(in crate::vm) nodes: BTreeSet<String>,
    /// The guest has opened the agent's port.
    pub(in crate::vm) agent_open: bool,
    /// Processors.
    pub(in crate::vm) cpus: Option<u32>,
    /// Memory at the start.
    pub(in crate::vm) memory: Option<Size>,
    /// The machine, for a VM without a description.
    hardware: Hardware,
    target: Target,
    kvm: bool,
}

impl Seen {
    /// Updates the description of a wrapped VM.
    pub(in crate::vm) fn update(&self, wrapped: &mut Wrapped, facts: &mut Facts) {
        wrapped.target = self.target;
        wrapped.seen = Some(self.hardware.clone());
        facts.host.accel = if self.kvm { Accel::Kvm } else { Accel::Tcg };
    }

    /// Block nodes that are media of drives.
    pub(in crate::vm) fn media(&self) -> Vec<String> {
        self.inventory.devices().filter_map(|entry| entry.kind.disk()?.node.clone()).collect()
    }
}

/// Sends all queries to QEMU in one batch; changes nothing.
///
/// # Errors
/// QEMU does not answer; for a VM of vmrun's own: it refuses a query that every QEMU answers.
pub(in crate::vm) async fn look(
    session: &Session,
    files: Files,
    whose: Whose<'_>,
) -> Result<Seen, CommandError> {
    // in `-preconfig`, which only wrapped VMs can use, QEMU answers few queries
    let answers = Answers::ask(session, matches!(whose, Whose::Ours { .. })).await?;
    let target = match (whose, answers.target()) {
        (Whose::Ours { spec, .. }, _) => Target::of(spec.arch),
        // not yet, in `-preconfig`
        (Whose::Wrapped { target, .. }, None) => target,
        (Whose::Wrapped { .. }, Some(named)) => named.parse().map_err(|error: UnknownTarget| {
            CommandError::Decode { command: "query-target".to_owned(), why: error.to_string() }
        })?,
    };
    Ok(seen(&answers, files, whose, target))
}

fn seen(answers: &Answers, files: Files, whose: Whose<'_>, target: Target) -> Seen {
    let tree = Tree::parse(answers.tree());
    let (machine, slots) = match whose {
        Whose::Ours { spec, .. } => {
            let machine = Machine::of(spec);
            let slots = Slots::of(&machine, spec);
            (machine, slots)
        }
        Whose::Wrapped { .. } => machine::found(&tree, target.arch(), answers),
    };
    let images = match whose {
        Whose::Ours { spec, pending } => images_of(spec, &pending.images),
        Whose::Wrapped { .. } => BTreeMap::new(),
    };
    let blocks = Blocks::new(answers, files, whose, &images);
    let mut inventory = Inventory::new(&machine, slots);
    inventory.run_state = RunState::from_qmp(answers.status["status"].as_str().unwrap_or_default());
    inventory.reason = match inventory.run_state {
        RunState::IoError => io_error(&answers.blocks),
        RunState::Panicked => Some("the guest's kernel panicked".to_owned()),
        _ => None,
    };
    inventory.note_nodes(blocks.nodes());
    let present = answers.peripherals();
    let networks = Networks::new(answers, whose);
    let view = View { tree: &tree, blocks: &blocks, networks, whose, present: &present, images: &images };
    view.devices(&mut inventory, machine.ids());
    if machine.has_pci() || matches!(whose, Whose::Wrapped { .. }) {
        taken::fill(&mut inventory, &machine, &answers.pci);
    }
    inventory.forwards = usernet(answers.usernet()).into_iter().map(Bound::from).collect();
    let mac = tree.devices.iter().find_map(|dev| dev.properties.get("mac").cloned());
    let cpus = answers.cpus.as_array().and_then(|all| u32::try_from(all.len()).ok());
    let memory = answers.memory();
    let base = memory.as_ref().map(|memory| memory.base_memory);
    let plugged = memory.and_then(|memory| memory.plugged_memory);
    let total = base.unwrap_or(0).saturating_add(plugged.unwrap_or(0));
    let hardware = Hardware {
        uuid: answers.uuid().and_then(|text| text.parse().ok()),
        arch: machine.arch(),
        machine: machine.kind().to_owned(),
        // in `-preconfig` there is none yet
        cpus: cpus.unwrap_or(0).max(1),
        memory: Size::from_bytes(total).unwrap_or(request::DEFAULT_MEMORY),
        network: match (user_networks(answers.usernet()).is_empty(), &mac) {
            (false, _) => Network::User,
            (true, Some(_)) => Network::Other,
            (true, None) => Network::None,
        },
        mac,
        files: blocks.files(),
    };
    Seen {
        agent_open: answers.is_open(machine.ids().agent_chardev),
        nodes: blocks.nodes().map(str::to_owned).collect(),
        present: present.into_iter().map(|(id, _)| id).collect(),
        machine,
        inventory,
        cpus,
        memory: base.and_then(Size::from_bytes),
        hardware,
        target,
        kvm: answers.has_kvm(),
    }
}
