//! Candidates that are there at the moment: VMs and what they have, templates, USB devices of this host.
//!
//! Nothing is taken over, cleaned up or created here, and what does not answer soon has no candidates.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap_complete::CompletionCandidate;

use crate::control::find::{self, Standing};
use crate::control::verbs;
use crate::control::wire::{Disk, Forward, Status};
use crate::host::dirs::{RuntimeEnvironment, runtime_root};
use crate::host::template_cache::TemplateCache;
use crate::host::usb::{UsbRoots, host_devices};
use crate::spec::VmName;
use crate::vm::template_source;

use super::super::ended;
use super::super::target::VARIABLE;

/// How long a supervisor may take to accept, and then to reply: a healthy one needs a millisecond.
const CONNECTING: Duration = Duration::from_millis(250);
const REPLYING: Duration = Duration::from_millis(500);

/// What a VM has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// USB devices.
    Usb,
    /// Port forwards.
    Forwards,
    /// Network cards.
    Nics,
    /// Disks and CD-ROM drives.
    Disks,
    /// CD-ROM drives.
    Drives,
    /// All that can be unplugged by its id.
    Devices,
    /// Snapshots.
    Snapshots,
}

fn candidate(value: &str, help: String) -> CompletionCandidate {
    CompletionCandidate::new(value).help((!help.is_empty()).then(|| help.into()))
}

fn root() -> Option<PathBuf> {
    runtime_root(&RuntimeEnvironment::from_env()).ok()
}

/// The names of running VMs.
pub(super) fn running() -> Vec<CompletionCandidate> {
    let all = root().and_then(|root| find::all(&root).ok()).unwrap_or_default();
    let running = all.iter().filter(|(_, standing)| *standing != Standing::Stale);
    running.map(|(name, _)| candidate(name.as_str(), "running".to_owned())).collect()
}

/// The names of VMs that have ended, each once.
pub(super) fn ended() -> Vec<CompletionCandidate> {
    let mut all: Vec<(String, String)> = root().map(|root| ended::names(&root)).unwrap_or_default();
    // the newest counts
    all.reverse();
    let mut seen = BTreeSet::new();
    all.retain(|(name, _)| seen.insert(name.clone()));
    all.into_iter().map(|(name, outcome)| candidate(&name, outcome)).collect()
}

/// What the VM of a command line has.
pub(super) fn of(words: &[OsString], of: Of) -> Vec<CompletionCandidate> {
    of_vm(words, of).unwrap_or_default()
}

fn of_vm(words: &[OsString], of: Of) -> Option<Vec<CompletionCandidate>> {
    let root = root()?;
    let name = match selected(words) {
        Some(name) => name,
        None => only(&root)?,
    };
    let client = find::connect_within(&root, &name, CONNECTING).ok()?;
    let by = Instant::now() + REPLYING;
    if of == Of::Snapshots {
        let verbs::SnapshotList { snapshots } =
            client.send_call(verbs::ListSnapshots {}).ok()?.reply_by(by).ok()?;
        return Some(
            snapshots.iter().map(|snapshot| candidate(&snapshot.name, snapshot.disks.join(" "))).collect(),
        );
    }
    let verbs::StatusReply { status } = client.send_call(verbs::GetStatus {}).ok()?.reply_by(by).ok()?;
    Some(in_status(&status, of))
}

fn in_status(status: &Status, of: Of) -> Vec<CompletionCandidate> {
    let usb = || status.usb.iter().map(|usb| candidate(&usb.id, usb.description.clone()));
    let disk = |disk: &Disk| candidate(&disk.id, disk.file.clone().unwrap_or_default());
    let disks = || status.disks.iter().map(disk);
    let nics = || {
        status.nics.iter().flatten().map(|nic| candidate(&nic.id, format!("{} {}", nic.driver, nic.network)))
    };
    match of {
        Of::Usb => usb().collect(),
        Of::Disks => disks().collect(),
        Of::Drives => status.disks.iter().filter(|disk| disk.removable).map(disk).collect(),
        Of::Nics => nics().collect(),
        Of::Devices => {
            let others = status.devices.iter().map(|device| candidate(&device.id, device.driver.clone()));
            usb().chain(disks()).chain(nics()).chain(others).collect()
        }
        Of::Forwards => status.forwards.iter().map(forward).collect(),
        Of::Snapshots => Vec::new(),
    }
}

/// As `port-remove` reads it.
fn forward(forward: &Forward) -> CompletionCandidate {
    let Forward { host_port, guest_port, protocol, address, .. } = forward;
    candidate(&format!("{host_port}:{guest_port}/{protocol}"), format!("on {address}"))
}

/// The VM that the words name, by the last `--vm`, or the environment.
fn selected(words: &[OsString]) -> Option<VmName> {
    let before = &words[..words.len().saturating_sub(1)];
    let words: Vec<&str> =
        before.iter().take_while(|word| *word != "--").filter_map(|word| word.to_str()).collect();
    let mut flags = words.iter().enumerate().filter_map(|(at, word)| match *word {
        "--vm" => words.get(at + 1).copied(),
        other => other.strip_prefix("--vm="),
    });
    let typed = flags.next_back().map(OsString::from);
    let name = typed.or_else(|| std::env::var_os(VARIABLE).filter(|name| !name.is_empty()))?;
    name.to_str()?.parse().ok()
}

/// The only VM that runs.
fn only(root: &Path) -> Option<VmName> {
    let running = find::all(root).ok()?.into_iter().filter(|(_, standing)| *standing == Standing::Supervised);
    let mut names = running.map(|(name, _)| name);
    names.next().filter(|_| names.next().is_none())
}

/// The folders of the templates in the cache.
pub(super) fn templates() -> Vec<CompletionCandidate> {
    let cached = TemplateCache::existing().ok().flatten().map(|cache| cache.list()).unwrap_or_default();
    let source = |path: &Path| template_source(path).ok().flatten();
    cached
        .iter()
        .map(|cached| {
            let from =
                source(&cached.path).map(|source| format!("of {}", source.display())).unwrap_or_default();
            candidate(&cached.path.to_string_lossy(), from)
        })
        .collect()
}

/// USB devices of this host that can be passed on: by vendor and product, and by port.
pub(super) fn host_usb() -> Vec<CompletionCandidate> {
    let devices = host_devices(&UsbRoots::default());
    let devices = devices.iter().filter(|device| !device.is_hub);
    devices
        .flat_map(|device| {
            let name = [device.manufacturer.as_deref(), device.name.as_deref()];
            let name = name.into_iter().flatten().collect::<Vec<_>>().join(" ");
            [
                candidate(&format!("{:04x}:{:04x}", device.vendor, device.product), name.clone()),
                candidate(&format!("{}.{}", device.bus, device.address), name),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_name_on_the_line_counts() {
        let of = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            selected(&words).map(|name| name.to_string())
        };
        assert_eq!(of("vmrun ctl --vm a disk-remove "), Some("a".to_owned()));
        assert_eq!(of("vmrun ctl --vm=a disk-remove --vm b "), Some("b".to_owned()));
        // the word that is being typed names nothing yet
        assert_eq!(of("vmrun ctl --vm=a"), None);
        assert_eq!(of("vmrun exec x -- --vm a "), None);
    }
}
