//! Where a VM comes from, which decides what is known of it: vmrun's own have a description; of wrapped VMs only QEMU's answers are
//! known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::spec::{Arch, FileId, Layout, Networking, Size, Target, VmName, VmSpec, request};

use super::facts::Facts;

/// Where a VM comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Origin {
    /// Started by vmrun, from this description.
    #[serde(rename = "spec")]
    Ours(Box<VmSpec>),
    /// Started by the user's own command line, under `vmrun wrap`.
    #[serde(rename = "wrapped")]
    Wrapped(Wrapped),
}

/// A VM that the user has put together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wrapped {
    /// Its name in vmrun.
    pub name: VmName,
    /// QEMU's seccomp sandbox is on, from the command line.
    pub sandbox: bool,
    /// QEMU's name of the architecture: from the program's name until QEMU was asked.
    pub target: Target,
    /// Ids of the devices at vmrun's first look.
    #[serde(default)]
    pub from_start: Vec<String>,
    /// QEMU's last answers; `None` before the first look.
    #[serde(default)]
    pub seen: Option<Hardware>,
}

/// What QEMU reports of a machine, besides its devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    /// SMBIOS system UUID; `None` = not set.
    pub uuid: Option<Uuid>,
    /// The architecture that vmrun treats it as.
    pub arch: Arch,
    /// The type of the machine.
    pub machine: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, including plugged memory.
    pub memory: Size,
    /// The network of the first network card.
    pub network: Network,
    /// MAC address of the first network card.
    pub mac: Option<String>,
    /// The file that each block node has open, by name: identified through QEMU's descriptors while the names in its answers were
    /// still true.
    #[serde(default)]
    pub files: BTreeMap<String, NodeFile>,
}

/// The network of the first network card of a wrapped VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// QEMU's user networking.
    User,
    /// Another network, which vmrun does not know.
    Other,
    /// There is no card.
    None,
}

/// The file of a block node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFile {
    /// Its path as QEMU reports it.
    pub name: String,
    /// Its identity.
    pub id: FileId,
}

impl Network {
    /// The name in the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Other => "other",
            Self::None => "none",
        }
    }
}

impl Origin {
    /// The description; `None` for a VM that vmrun has not started.
    pub fn spec(&self) -> Option<&VmSpec> {
        match self {
            Self::Ours(spec) => Some(spec),
            Self::Wrapped(_) => None,
        }
    }

    /// The facts of a VM that the user has put together.
    pub fn wrapped(&self) -> Option<&Wrapped> {
        match self {
            Self::Ours(_) => None,
            Self::Wrapped(wrapped) => Some(wrapped),
        }
    }

    fn seen(&self) -> Option<&Hardware> {
        self.wrapped()?.seen.as_ref()
    }

    /// Whether the user has put it together.
    pub fn is_wrapped(&self) -> bool {
        matches!(self, Self::Wrapped(_))
    }

    /// Its name.
    pub fn name(&self) -> &VmName {
        match self {
            Self::Ours(spec) => &spec.name,
            Self::Wrapped(wrapped) => &wrapped.name,
        }
    }

    /// Its architecture, or the one that vmrun treats it as.
    pub fn arch(&self) -> Arch {
        match self {
            Self::Ours(spec) => spec.arch,
            Self::Wrapped(wrapped) => wrapped.target.arch(),
        }
    }

    /// The name of its architecture.
    pub fn target(&self) -> String {
        match self {
            Self::Ours(spec) => spec.arch.to_string(),
            Self::Wrapped(wrapped) => wrapped.target.name().to_owned(),
        }
    }

    /// SMBIOS system UUID; nil if it has none.
    pub fn uuid(&self) -> Uuid {
        match self {
            Self::Ours(spec) => spec.uuid,
            Self::Wrapped(wrapped) => wrapped.seen.as_ref().and_then(|seen| seen.uuid).unwrap_or_default(),
        }
    }

    /// The machine's type.
    pub fn machine(&self) -> &str {
        let named = match self {
            Self::Ours(spec) => spec.machine.as_deref(),
            Self::Wrapped(wrapped) => wrapped.seen.as_ref().map(|seen| seen.machine.as_str()),
        };
        named.unwrap_or_else(|| self.arch().facts().machine)
    }

    /// Names and slots of vmrun's own devices in it.
    pub fn layout(&self) -> Layout {
        self.spec().map(|spec| spec.layout).unwrap_or_default()
    }

    /// Processors; 0 if QEMU was never asked.
    pub fn cpus(&self) -> u32 {
        self.spec().map(|spec| spec.cpus).or(self.seen().map(|seen| seen.cpus)).unwrap_or(0)
    }

    /// Memory.
    pub fn memory(&self) -> Size {
        let memory = self.spec().map(|spec| spec.memory).or(self.seen().map(|seen| seen.memory));
        memory.unwrap_or(request::DEFAULT_MEMORY)
    }

    /// QEMU's seccomp sandbox is on.
    pub fn sandbox(&self) -> bool {
        match self {
            Self::Ours(spec) => spec.sandbox,
            Self::Wrapped(wrapped) => wrapped.sandbox,
        }
    }

    /// The network of the first network card, as named in the protocol.
    pub fn networking(&self) -> String {
        match self {
            Self::Ours(spec) => spec.networking.without_options(),
            Self::Wrapped(wrapped) => {
                wrapped.seen.as_ref().map_or(Network::None, |seen| seen.network).as_str().to_owned()
            }
        }
    }

    /// MAC address of the first network card; empty if there is none or it is unknown.
    pub fn mac(&self) -> String {
        match self {
            Self::Ours(spec) => spec.mac.to_string(),
            Self::Wrapped(wrapped) => {
                wrapped.seen.as_ref().and_then(|seen| seen.mac.clone()).unwrap_or_default()
            }
        }
    }
}

/// All that is known of a VM and does not change with its devices. Part of `vm.json` and of the record of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Description {
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// What was decided or detected at its start.
    pub facts: Facts,
}

/// The format in the files. Earlier versions wrote a description for wrapped VMs as well, with meaningless values where QEMU had
/// not been asked; the rest was in the facts.
#[derive(Deserialize)]
struct Stored {
    #[serde(default)]
    spec: Option<VmSpec>,
    #[serde(default)]
    wrapped: Option<Wrapped>,
    facts: StoredFacts,
}

#[derive(Deserialize)]
struct StoredFacts {
    #[serde(flatten)]
    facts: Facts,
    #[serde(default)]
    wrapped: Option<OlderWrapped>,
}

/// The facts of a wrapped VM in the format of earlier versions.
#[derive(Deserialize)]
struct OlderWrapped {
    target: Target,
    networking: String,
    mac: Option<String>,
    #[serde(default)]
    from_start: Vec<String>,
    #[serde(default)]
    files: BTreeMap<String, NodeFile>,
}

impl TryFrom<Stored> for Description {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, &'static str> {
        let Stored { spec, wrapped, facts: StoredFacts { facts, wrapped: older } } = stored;
        let origin = match (wrapped, spec, older) {
            (Some(wrapped), ..) => Origin::Wrapped(wrapped),
            (None, Some(spec), Some(older)) => Origin::Wrapped(older.renewed(spec)),
            (None, Some(spec), None) => Origin::Ours(Box::new(spec)),
            (None, None, _) => return Err("it says neither `spec` nor `wrapped`"),
        };
        Ok(Self { origin, facts })
    }
}

impl OlderWrapped {
    fn renewed(self, spec: VmSpec) -> Wrapped {
        let Self { target, networking, mac, from_start, files } = self;
        // it had no processors until QEMU had been asked
        let seen = (spec.cpus > 0).then(|| Hardware {
            uuid: Some(spec.uuid).filter(|uuid| !uuid.is_nil()),
            arch: spec.arch,
            machine: spec.machine.unwrap_or_else(|| spec.arch.facts().machine.to_owned()),
            cpus: spec.cpus,
            memory: spec.memory,
            network: match (spec.networking, networking.as_str()) {
                (Networking::User(_), _) => Network::User,
                (_, "none") => Network::None,
                _ => Network::Other,
            },
            mac,
            files,
        });
        Wrapped { name: spec.name, sandbox: spec.sandbox, target, from_start, seen }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn older(cpus: u32) -> Value {
        json!({
            "spec": {
                "name": "web", "uuid": "00112233-4455-6677-8899-aabbccddeeff", "layout": "grown", "arch": "x86_64",
                "machine": "pc-q35-7.2", "cpu": null, "cpus": cpus, "memory": 67_108_864, "boot": { "mode": "disk" },
                "networking": { "mode": "user" }, "mac": "52:54:00:00:00:00", "hotplug_slots": 0, "sandbox": true
            },
            "facts": {
                "host": { "os": "linux", "arch": "x86_64", "accel": "tcg", "qemu_version": null },
                "accel_reason": "as its command line says", "qemu": "/usr/bin/qemu-system-x86_64",
                "qemu_version": "7.2.22", "qemu_pid": 7, "qemu_start_time": 8, "run_directory": "/run/user/1/web",
                "state_directory": "/tmp/x", "detached": false, "ephemeral": true, "stop_timeout_ms": 0,
                "started_unix_ms": 9,
                "wrapped": {
                    "target": "x86_64", "networking": "user", "mac": "52:54:00:aa:bb:cc", "from_start": ["disk0"],
                    "files": {}
                }
            }
        })
    }

    #[test]
    fn what_an_older_version_wrote_of_a_wrapped_vm_is_understood() {
        let read = |cpus| serde_json::from_value::<Description>(older(cpus)).unwrap();
        let Description { origin, facts } = read(2);
        assert_eq!((origin.cpus(), origin.machine(), origin.sandbox()), (2, "pc-q35-7.2", true));
        assert_eq!((origin.networking().as_str(), origin.mac().as_str()), ("user", "52:54:00:aa:bb:cc"));
        assert_eq!(origin.uuid().to_string(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(origin.wrapped().unwrap().from_start, ["disk0"]);
        assert_eq!(facts.qemu_pid, 7);
        // QEMU was never asked
        assert_eq!(read(0).origin.wrapped().unwrap().seen, None);
        // a new file is read back unchanged
        let again = serde_json::to_value(read(2)).unwrap();
        assert!(again.get("spec").is_none() && again["wrapped"]["name"] == "web", "{again}");
        assert_eq!(serde_json::from_value::<Description>(again).unwrap().origin, origin);
    }

    #[test]
    fn a_wrapped_vm_of_an_unknown_architecture_is_refused_by_its_name() {
        let mut written =
            serde_json::to_value(serde_json::from_value::<Description>(older(2)).unwrap()).unwrap();
        written["wrapped"]["target"] = json!("m68k");
        let refused = serde_json::from_value::<Description>(written).unwrap_err().to_string();
        assert!(refused.contains("does not know QEMU's architecture 'm68k'"), "{refused}");
    }

    #[test]
    fn a_description_of_vmruns_own_is_written_as_before() {
        let mut written = older(1);
        written["facts"]["wrapped"] = Value::Null;
        let read: Description = serde_json::from_value(written).unwrap();
        assert!(!read.origin.is_wrapped());
        assert_eq!(serde_json::to_value(&read).unwrap()["spec"]["name"], "web");
        assert!(serde_json::from_value::<Description>(json!({ "facts": older(1)["facts"] })).is_err());
    }
}
