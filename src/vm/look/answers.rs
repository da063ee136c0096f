//! The queries of a look at QEMU, and their answers.

use qapi::qmp::{ChardevInfo, KvmInfo, MemoryInfo, UuidInfo};
use serde_json::Value;

use crate::qemu::{Command, pci, query, reply};
use crate::qmp::{CommandError, Session};

/// QEMU's answers; null where it refused.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) status: Value,
    tree: Value,
    peripherals: Value,
    usernet: Value,
    network: Value,
    pub(super) blocks: Value,
    pub(super) named_nodes: Value,
    pub(super) pci: Value,
    chardevs: Value,
    target: Value,
    kvm: Value,
    uuid: Value,
    pub(super) cpus: Value,
    memory: Value,
    machine: Value,
}

impl Answers {
    /// Sends the queries. `strictly`: a refusal of a query that every QEMU answers once its machine exists is an error.
    pub(super) async fn ask(session: &Session, strictly: bool) -> Result<Self, CommandError> {
        let mut answers = Self::default();
        let plain = |name: &str| Command::new(name, Value::Null);
        // with whether every QEMU answers it
        let questions = [
            (&mut answers.status, query::status(), true),
            (&mut answers.tree, query::device_tree(), true),
            (&mut answers.peripherals, query::peripherals(), true),
            (&mut answers.usernet, query::user_networks(), true),
            (&mut answers.network, Command::hmp("info network"), true),
            (&mut answers.blocks, query::blocks(), true),
            (&mut answers.named_nodes, query::block_nodes(), true),
            (&mut answers.pci, pci::query(), false),
            (&mut answers.chardevs, query::chardevs(), false),
            (&mut answers.target, plain("query-target"), false),
            (&mut answers.kvm, plain("query-kvm"), false),
            (&mut answers.uuid, plain("query-uuid"), false),
            (&mut answers.cpus, query::cpus(), false),
            (&mut answers.memory, plain("query-memory-size-summary"), false),
            (&mut answers.machine, query::machine_type(), false),
        ];
        let commands: Vec<Command> = questions.iter().map(|(_, command, _)| command.clone()).collect();
        for ((answer, _, always), pending) in questions.into_iter().zip(session.submit_all(&commands)) {
            *answer = match pending.await {
                Err(CommandError::Refused { .. }) if !(strictly && always) => Value::Null,
                other => other?,
            };
        }
        Ok(answers)
    }

    /// The text of `info qtree`.
    pub(super) fn tree(&self) -> &str {
        self.tree.as_str().unwrap_or_default()
    }

    /// The text of `info usernet`.
    pub(super) fn usernet(&self) -> &str {
        self.usernet.as_str().unwrap_or_default()
    }

    /// The text of `info network`.
    pub(super) fn network(&self) -> &str {
        self.network.as_str().unwrap_or_default()
    }

    /// QEMU's name of the architecture.
    pub(super) fn target(&self) -> Option<&str> {
        self.target["arch"].as_str()
    }

    /// Whether the guest's processors are the host's.
    pub(super) fn has_kvm(&self) -> bool {
        reply::one::<KvmInfo>(&self.kvm).is_some_and(|kvm| kvm.enabled)
    }

    /// The VM's UUID, as text.
    pub(super) fn uuid(&self) -> Option<String> {
        reply::one::<UuidInfo>(&self.uuid).map(|uuid| uuid.UUID)
    }

    /// Memory.
    pub(super) fn memory(&self) -> Option<MemoryInfo> {
        reply::one(&self.memory)
    }

    /// QEMU's name of the machine's type.
    pub(super) fn machine(&self) -> &str {
        let kind = self.machine.as_str().unwrap_or_default();
        kind.strip_suffix("-machine").unwrap_or(kind)
    }

    /// Ids and models of everything that has an id. Memory and processors sit on no bus, so the device tree does not have them.
    pub(super) fn peripherals(&self) -> Vec<(String, String)> {
        let entry = |item: &Value| {
            let kind = item["type"].as_str()?.strip_prefix("child<")?.strip_suffix('>')?;
            Some((item["name"].as_str()?.to_owned(), kind.to_owned()))
        };
        self.peripherals.as_array().into_iter().flatten().filter_map(entry).collect()
    }

    /// Whether the guest has opened the port behind this chardev.
    pub(super) fn is_open(&self, chardev: &str) -> bool {
        is_open(&self.chardevs, chardev)
    }
}

/// Whether the guest has opened the port behind a chardev, by the answer of `query-chardev`.
pub(in crate::vm) fn is_open(chardevs: &Value, chardev: &str) -> bool {
    reply::each::<ChardevInfo>(chardevs).iter().any(|one| one.label == chardev && one.frontend_open)
}
