//! Devices from the start and devices plugged since, with the commands that plugged them: an identical machine can be rebuilt from
//! these. Written to the run directory, since QEMU cannot be asked for it.

use std::ffi::OsString;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::host::dirs::{RunDir, names};
use crate::qemu::Command;
use crate::qemu::Machine;
use crate::qemu::plan::Step;
use crate::qemu::replug::{Replug, What};
use crate::spec::{DeviceId, VmSpec};

use super::inventory::Inventory;
use crate::vm::error::{ChangeError, ErrorKind};

/// The file in the run directory.
const FILE: &str = names::PLUGGED;

/// The record of the VM's devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::vm) struct Record {
    /// Ids of the devices on the command line.
    pub(in crate::vm) cold: Vec<String>,
    /// Devices plugged since, in that order.
    pub(in crate::vm) hot: Vec<Hot>,
}

/// A plugged device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::vm) struct Hot {
    pub(in crate::vm) id: String,
    /// `blockdev-add`, `object-add` or `netdev_add`, and `device_add`.
    pub(in crate::vm) commands: Vec<Command>,
}

/// The record, and its file.
#[derive(Debug)]
pub(in crate::vm) struct Plugged {
    run: Arc<RunDir>,
    record: Record,
}

impl Plugged {
    /// For a VM that starts.
    pub(in crate::vm) fn new(run: Arc<RunDir>, record: Record) -> Self {
        let plugged = Self { run, record };
        plugged.write();
        plugged
    }

    /// For a VM that is taken over.
    pub(in crate::vm) fn read(run: Arc<RunDir>) -> Self {
        let text = run.read(FILE).unwrap_or_default();
        Self { run, record: serde_json::from_slice(&text).unwrap_or_default() }
    }

    pub(in crate::vm) fn commands(steps: &[Step]) -> Vec<Command> {
        steps.iter().map(|step| step.command.clone()).collect()
    }

    /// The recorded content.
    pub(in crate::vm) fn record(&self) -> &Record {
        &self.record
    }

    pub(in crate::vm) fn add(&mut self, id: &str, commands: Vec<Command>) {
        self.record.hot.push(Hot { id: id.to_owned(), commands });
        self.write();
    }

    pub(in crate::vm) fn remove(&mut self, id: &str) {
        let before = self.record.hot.len();
        self.record.hot.retain(|hot| hot.id != id);
        if self.record.hot.len() != before {
            self.write();
        }
    }

    /// The record, if it matches the present machine.
    pub(in crate::vm) fn of_now(&self, inventory: &Inventory) -> Result<Record, ChangeError> {
        let Record { cold, hot } = &self.record;
        let refused = |message: String| {
            let kind = ErrorKind::NotNow { state: "changed".to_owned() };
            Err(ChangeError::new(kind, message)
                .hint("what has changed since the start cannot be built again"))
        };
        for entry in inventory.named() {
            let id = entry.id.as_str();
            if cold.iter().all(|cold| cold != id) && hot.iter().all(|hot| hot.id != id) {
                return refused(format!("it is unknown how '{id}' was plugged: not by vmrun"));
            }
            if let Some(nic) = entry.kind.nic()
                && hot.iter().any(|hot| hot.id == id)
                && nic.user().is_none()
            {
                return refused(format!(
                    "network card '{id}' hangs on a device of the host that was opened for it"
                ));
            }
            if let Some(facts) = entry.kind.disk()
                && facts.removable
                && facts.node.as_deref() != Some(id)
            {
                return refused(format!("CD-ROM drive '{id}' has another medium than at the start"));
            }
        }
        // `--publish` applies to the first card with user networking, if that is from the start
        let is_cold = |id: &DeviceId| cold.iter().any(|cold| id.as_str() == cold);
        let first = inventory.nics().find(|(_, nic)| nic.user().is_some());
        let first = first.filter(|(entry, _)| is_cold(&entry.id)).map(|(_, nic)| nic.netdev.as_str());
        if let Some(bound) = inventory.requested_forwards().find(|bound| Some(bound.netdev.as_str()) != first)
        {
            let published = inventory.published(bound).nic.unwrap_or_default();
            return refused(format!(
                "{} leads to network card '{published}', but a saved VM can only have forwards to its first card",
                bound.forward
            ));
        }
        match cold.iter().find(|id| inventory.device(id).is_none()) {
            Some(id) => refused(format!("'{id}', which the VM had at the start, has been unplugged")),
            None => Ok(self.record.clone()),
        }
    }

    fn write(&self) {
        let written = serde_json::to_vec(&self.record)
            .map_err(std::io::Error::other)
            .and_then(|text| self.run.write(FILE, &text));
        if let Err(error) = written {
            log::warn!("the record of plugged devices could not be written: {error}");
        }
    }
}

/// Adds what QEMU does not report of disks: their options at the start, or when they were plugged.
pub(in crate::vm) fn fill_options(
    inventory: &mut Inventory,
    machine: &Machine,
    spec: Option<&VmSpec>,
    record: &Record,
) {
    let disks = spec.map(|spec| spec.disks.iter()).into_iter().flatten();
    let cold = disks.map(|disk| (disk.id.to_string(), disk.options));
    let hot =
        record.hot.iter().filter_map(|hot| match Replug::read(machine, &hot.id, &hot.commands).ok()?.what {
            What::Disk { options, .. } => Some((hot.id.clone(), options)),
            _ => None,
        });
    for (id, options) in cold.chain(hot) {
        if let Some(facts) = inventory.device_mut(&id).and_then(|entry| entry.kind.disk_mut()) {
            facts.options = options;
        }
    }
}

impl Record {
    /// The same as arguments of a QEMU that waits for the machine's state.
    pub(in crate::vm) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        for command in self.hot.iter().flat_map(|hot| &hot.commands) {
            let option = match command.execute.as_str() {
                "blockdev-add" => "-blockdev",
                "object-add" => "-object",
                "device_add" => "-device",
                "netdev_add" => "-netdev",
                _ => continue,
            };
            arguments.extend([option.into(), Value::Object(command.arguments.clone()).to_string().into()]);
        }
        arguments.extend(["-incoming".into(), "defer".into()]);
        arguments
    }

    /// For a machine without plugged devices.
    pub(in crate::vm) fn cold(inventory: &Inventory) -> Self {
        let cold = inventory.named().map(|entry| entry.id.to_string()).collect();
        Self { cold, hot: Vec::new() }
    }
}
