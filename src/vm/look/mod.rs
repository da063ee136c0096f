//! What QEMU has: devices, media, forwards, the machine itself, from one batch of commands. This is the only place that makes an inventory
//! from QEMU: for a takeover, for VMs that `vmrun wrap` supervises, after raw commands, and after events were lost.

mod answers;
mod blocks;
mod devices;
mod machine;
mod nics;
mod refresh;

use std::collections::{BTreeMap, BTreeSet};

use crate::qemu::query_block::io_error;
use crate::qemu::{Machine, Slots};
use crate::qmp::hmp::{user_networks, usernet};
use crate::qmp::qtree::Tree;
use crate::qmp::{CommandError, Session};
use crate::spec::{Accel, Networking, Size, VmSpec};

use crate::vm::state::facts::{Facts, NodeFile};
use crate::vm::state::inventory::{Bound, Inventory, Kind};
use crate::vm::state::journal::{Cards, Pending};
use crate::vm::state::opened::{Files, images_of};
use crate::vm::state::run_state::RunState;
use answers::Answers;
use blocks::Blocks;
use devices::View;
pub(in crate::vm) use machine::arch;
use nics::Networks;
pub(in crate::vm) use refresh::{look_again, refreshed};

/// Who has put the VM together, with what is known of it already.
#[derive(Debug, Clone, Copy)]
pub(in crate::vm) enum Whose<'a> {
    /// vmrun, from this description.
    Ours { spec: &'a VmSpec, pending: &'a Pending },
    /// The user. Much has no id, and what vmrun has plugged must be told from what others have.
    Wrapped {
        /// Which file each block node had open when that was last found out.
        files: &'a BTreeMap<String, NodeFile>,
        /// Devices that were there from the start: what came later and looks as if vmrun had plugged it was. None: nothing was
        /// plugged by vmrun.
        from_start: Option<&'a [String]>,
        /// What QEMU does not tell of cards.
        cards: &'a Cards,
    },
}

/// What was found.
pub(in crate::vm) struct Seen {
    pub(in crate::vm) machine: Machine,
    pub(in crate::vm) inventory: Inventory,
    /// Ids of all devices that have one, vmrun's own too.
    pub(in crate::vm) present: Vec<String>,
    /// Names of all block nodes.
    pub(in crate::vm) nodes: BTreeSet<String>,
    /// The guest has opened the agent's port.
    pub(in crate::vm) agent_open: bool,
    /// What the machine is.
    pub(in crate::vm) system: System,
}

/// What a machine is, besides its devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::vm) struct System {
    pub(in crate::vm) uuid: Option<uuid::Uuid>,
    /// QEMU's name of the architecture.
    pub(in crate::vm) target: String,
    pub(in crate::vm) cpus: Option<u32>,
    /// Memory from the start, in bytes.
    pub(in crate::vm) base_memory: Option<u64>,
    /// Memory that was plugged, in bytes.
    pub(in crate::vm) plugged_memory: u64,
    pub(in crate::vm) kvm: bool,
    /// `user`, `none` or `other`.
    pub(in crate::vm) networking: &'static str,
    /// Address of the first card.
    pub(in crate::vm) mac: Option<String>,
    /// Which file each block node has open, where that is known.
    pub(in crate::vm) files: BTreeMap<String, NodeFile>,
}

impl System {
    /// Takes what has a place in a description, and in the facts, there.
    pub(in crate::vm) fn tell(&self, machine: &Machine, spec: &mut VmSpec, facts: &mut Facts) {
        spec.arch = machine.arch();
        spec.machine = Some(machine.kind().to_owned());
        spec.uuid = self.uuid.unwrap_or_default();
        // none yet in `-preconfig`: not to be taken for a VM that was never looked at
        spec.cpus = self.cpus.unwrap_or_default().max(1);
        let memory = self.base_memory.unwrap_or(0).saturating_add(self.plugged_memory);
        spec.memory = Size::from_bytes(memory).unwrap_or(spec.memory);
        spec.networking = if self.networking == "user" { Networking::User } else { Networking::None };
        facts.host.accel = if self.kvm { Accel::Kvm } else { Accel::Tcg };
        if let Some(wrapped) = &mut facts.wrapped {
            wrapped.target.clone_from(&self.target);
            self.networking.clone_into(&mut wrapped.networking);
            wrapped.mac.clone_from(&self.mac);
            wrapped.files.clone_from(&self.files);
        }
    }
}

impl Seen {
    /// Block nodes that are media of drives.
    pub(in crate::vm) fn media(&self) -> Vec<String> {
        let node = |kind: &Kind| match kind {
            Kind::Disk(facts) => facts.node.clone(),
            _ => None,
        };
        self.inventory.devices().filter_map(|entry| node(&entry.kind)).collect()
    }
}

/// Asks QEMU for everything in one go, and changes nothing.
///
/// # Errors
/// QEMU does not answer; of a VM of vmrun's own: it refuses one of the questions that every QEMU answers then.
pub(in crate::vm) async fn look(
    session: &Session,
    files: Files,
    whose: Whose<'_>,
) -> Result<Seen, CommandError> {
    // in `-preconfig`, which is for others' VMs only, QEMU answers few questions yet
    let answers = Answers::ask(session, matches!(whose, Whose::Ours { .. })).await?;
    Ok(seen(&answers, files, whose))
}

fn seen(answers: &Answers, files: Files, whose: Whose<'_>) -> Seen {
    let tree = Tree::parse(answers.tree());
    let target = answers.target();
    let (machine, slots) = match whose {
        Whose::Ours { spec, .. } => {
            let machine = Machine::of(spec);
            let slots = Slots::of(&machine, spec);
            (machine, slots)
        }
        Whose::Wrapped { .. } => machine::found(&tree, arch(target), answers),
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
        crate::vm::changes::taken::fill(&mut inventory, &machine, &answers.pci);
    }
    inventory.forwards = usernet(answers.usernet()).into_iter().map(Bound::from).collect();
    let mac = tree.devices.iter().find_map(|dev| dev.properties.get("mac").cloned());
    let system = System {
        uuid: answers.uuid["UUID"].as_str().and_then(|text| text.parse().ok()),
        target: target.to_owned(),
        cpus: answers.cpus.as_array().and_then(|all| u32::try_from(all.len()).ok()),
        base_memory: answers.memory["base-memory"].as_u64(),
        plugged_memory: answers.memory["plugged-memory"].as_u64().unwrap_or(0),
        kvm: answers.kvm["enabled"] == true,
        networking: match (user_networks(answers.usernet()).is_empty(), &mac) {
            (false, _) => "user",
            (true, Some(_)) => "other",
            (true, None) => "none",
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
        system,
    }
}
