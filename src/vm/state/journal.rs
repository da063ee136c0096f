//! The journal of unfinished changes: written to the run directory before a change that could leave something behind, so that a
//! takeover after a `kill -9` can finish it or roll it back. It also has what a new supervisor cannot ask QEMU for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::host::dirs::{RunDir, names};
use crate::host::made::MadeFile;
use crate::host::saved::remove_parts;
use crate::host::template::take_back;
use crate::spec::{Image, Networking};

use super::inventory::NicFacts;
use super::opened::ImageNodes;
use crate::vm::error::ChangeError;

/// The file in the run directory; it exists only if the journal is not empty.
const FILE: &str = names::PENDING;

/// The changes that were unfinished when a supervisor died.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::vm) struct Pending {
    /// Devices with an image that are being added, by id; with the image if the change makes it.
    #[serde(default, deserialize_with = "known_files")]
    pub(in crate::vm) adding: BTreeMap<String, Option<MadeFile>>,
    /// Devices that the guest has been asked to release.
    #[serde(default)]
    pub(in crate::vm) removing: BTreeSet<String>,
    /// A snapshot, or a save of the whole VM.
    #[serde(default)]
    pub(in crate::vm) job: Option<Job>,
    /// What QEMU does not report of network cards: of those that were plugged, and those whose cable was ever pulled.
    #[serde(default)]
    pub(in crate::vm) cards: Cards,
    /// Images that were opened since the start, by the names of their block nodes: the identity of each file, whatever its name
    /// refers to now.
    #[serde(default)]
    pub(in crate::vm) images: ImageNodes,
}

/// What QEMU does not report of network cards, by id.
pub(in crate::vm) type Cards = BTreeMap<String, Card>;

/// An operation that excludes other changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::vm) struct Job {
    /// Its name for display.
    pub(in crate::vm) what: String,
    /// The guest was running before it.
    pub(in crate::vm) resume: bool,
    /// The file that the VM is saved to.
    #[serde(with = "crate::spec::fields::optional_path", default)]
    pub(in crate::vm) file: Option<PathBuf>,
    /// The temporary name of that file while it is incomplete: see [`remove_parts`].
    #[serde(default)]
    pub(in crate::vm) part: Option<MadeFile>,
    /// The folder of a template until it is complete: see [`take_back`].
    #[serde(with = "crate::spec::fields::optional_path", default)]
    pub(in crate::vm) template: Option<PathBuf>,
}

/// Versions before this one recorded only paths: the file there now may be another one.
fn known_files<'de, D>(deserializer: D) -> Result<BTreeMap<String, Option<MadeFile>>, D::Error>
where
    D: Deserializer<'de>,
{
    let written = BTreeMap::<String, Value>::deserialize(deserializer)?;
    Ok(written.into_iter().map(|(id, made)| (id, serde_json::from_value(made).ok())).collect())
}

impl Job {
    /// Removes the incomplete file.
    pub(in crate::vm) fn remove_part(&self) {
        if let (Some(file), Some(part)) = (&self.file, &self.part) {
            remove_parts(file, part);
        }
        if let Some(folder) = &self.template {
            take_back(folder);
        }
    }
}

/// What QEMU does not report of a network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::vm) struct Card {
    /// Its network: QEMU knows only the number of a descriptor that it was given.
    pub(in crate::vm) network: Option<Networking>,
    /// The host's interface.
    pub(in crate::vm) interface: Option<String>,
    /// Its cable is plugged.
    pub(in crate::vm) link_up: bool,
}

impl From<&NicFacts> for Card {
    fn from(nic: &NicFacts) -> Self {
        Self { network: nic.network.clone(), interface: nic.interface.clone(), link_up: nic.link_up }
    }
}

impl Card {
    /// Adds this to QEMU's facts of the card.
    pub(in crate::vm) fn complete(&self, nic: &mut NicFacts) {
        nic.network = nic.network.take().or_else(|| self.network.clone());
        nic.interface = nic.interface.take().or_else(|| self.interface.clone());
        nic.link_up = self.link_up;
    }
}

impl Pending {
    /// The content of the file; empty if it does not exist or is invalid.
    pub(in crate::vm) fn read(run: &RunDir) -> Self {
        run.read(FILE).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Removes the files that a dead VM was making.
    pub(in crate::vm) fn remove_made(&self) {
        self.adding.values().flatten().for_each(MadeFile::remove);
        self.job.iter().for_each(Job::remove_part);
    }

    /// Writes the file, or removes it. A takeover checks entries of finished changes that are still in it.
    pub(in crate::vm) fn write(&self, run: &RunDir) {
        if let Err(error) = self.try_write(run) {
            log::warn!("the journal could not be written: {error}");
        }
    }

    fn try_write(&self, run: &RunDir) -> std::io::Result<()> {
        match *self == Self::default() {
            true => run.unlink(FILE),
            false => serde_json::to_vec(self)
                .map_err(std::io::Error::other)
                .and_then(|text| run.write(FILE, &text)),
        }
    }
}

/// Keeps the file up to date.
#[derive(Debug)]
pub(in crate::vm) struct Journal {
    run: Arc<RunDir>,
    pending: Pending,
}

impl Journal {
    pub(in crate::vm) fn new(run: Arc<RunDir>, pending: Pending) -> Self {
        Self { run, pending }
    }

    /// Records that a device with an image is about to be added; `made`: the change makes the image.
    ///
    /// # Errors
    /// It cannot be written, and the change must not start. The same holds for all records of planned changes.
    pub(in crate::vm) fn adding(&mut self, id: &str, made: Option<&MadeFile>) -> Result<(), ChangeError> {
        self.first(|pending| {
            pending.adding.insert(id.to_owned(), made.cloned());
        })
    }

    /// Records that a device is about to be removed.
    pub(in crate::vm) fn removing(&mut self, id: &str) -> Result<(), ChangeError> {
        match self.pending.removing.contains(id) {
            true => Ok(()),
            false => self.first(|pending| {
                pending.removing.insert(id.to_owned());
            }),
        }
    }

    /// Records that a job is about to start.
    pub(in crate::vm) fn job(&mut self, job: Job) -> Result<(), ChangeError> {
        self.first(|pending| pending.job = Some(job))
    }

    /// Records that the job's file is complete and gets its final name now.
    pub(in crate::vm) fn job_makes(&mut self, part: &MadeFile) -> Result<(), ChangeError> {
        self.first(|pending| {
            if let Some(job) = &mut pending.job {
                job.part = Some(part.clone());
            }
        })
    }

    /// Records that the job has ended.
    pub(in crate::vm) fn job_ended(&mut self) {
        self.pending.job = None;
        self.write();
    }

    /// Records that a network card is about to be added, or its cable to be pulled or plugged.
    pub(in crate::vm) fn card(&mut self, id: &str, nic: &NicFacts) -> Result<(), ChangeError> {
        let card = Card::from(nic);
        match self.pending.cards.get(id) == Some(&card) {
            true => Ok(()),
            false => self.first(|pending| {
                pending.cards.insert(id.to_owned(), card);
            }),
        }
    }

    /// Records the present state of a network card.
    pub(in crate::vm) fn card_is(&mut self, id: &str, nic: &NicFacts) {
        self.pending.cards.insert(id.to_owned(), nic.into());
        self.write();
    }

    /// Records that a network card is gone.
    pub(in crate::vm) fn card_gone(&mut self, id: &str) {
        if self.pending.cards.remove(id).is_some() {
            self.write();
        }
    }

    /// Records that an image was opened.
    pub(in crate::vm) fn opened(&mut self, node: &str, image: Image) {
        self.pending.images.insert(node.to_owned(), image);
        self.write();
    }

    /// Records that an image was closed.
    pub(in crate::vm) fn closed(&mut self, node: &str) {
        if self.pending.images.remove(node).is_some() {
            self.write();
        }
    }

    /// The whole journal.
    pub(in crate::vm) fn pending(&self) -> &Pending {
        &self.pending
    }

    /// What QEMU does not report of the network cards.
    pub(in crate::vm) fn cards(&self) -> &Cards {
        &self.pending.cards
    }

    /// A change of a device is finished, or rolled back.
    pub(in crate::vm) fn finished(&mut self, id: &str) {
        let added = self.pending.adding.remove(id).is_some();
        let removed = self.pending.removing.remove(id);
        if added || removed {
            self.write();
        }
    }

    fn write(&self) {
        self.pending.write(&self.run);
    }

    /// Writes a planned change; if that fails, the journal is as before.
    fn first(&mut self, note: impl FnOnce(&mut Pending)) -> Result<(), ChangeError> {
        let mut pending = self.pending.clone();
        note(&mut pending);
        match pending.try_write(&self.run) {
            Ok(()) => {
                self.pending = pending;
                Ok(())
            }
            Err(error) => {
                let folder = self.run.path().display();
                let message = format!(
                    "nothing was changed: it cannot be written down in the run directory {folder}: {error}"
                );
                Err(ChangeError::host(message).hint("make room there, and try again"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_version_wrote_down_is_read_and_its_files_stay() {
        let text = r#"{"adding": {"disk1": "/srv/new.img", "usb1": null}, "removing": ["disk0"],
                       "job": {"what": "it is saved", "resume": true, "file": "/srv/vm"}}"#;
        let pending: Pending = serde_json::from_str(text).unwrap();
        assert!(pending.adding.len() == 2 && pending.adding.values().all(Option::is_none), "{pending:?}");
        assert!(pending.removing.contains("disk0"));
        assert_eq!(pending.job.unwrap().part, None);
    }

    /// between the death of a supervisor and the takeover
    #[test]
    fn only_what_was_made_is_removed_whatever_has_its_name() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(std::ffi::OsStr::new(name));
        let made = |name: &str| {
            std::fs::write(at(name), "").unwrap();
            crate::host::made::made_at(&at(name))
        };
        let (disk, other, part) = (made("disk"), made("other"), made("vm.part"));
        let job = Job {
            what: String::new(),
            resume: false,
            file: Some(at("vm")),
            part: Some(part.clone()),
            template: None,
        };
        let adding = [("a".to_owned(), Some(disk)), ("b".to_owned(), Some(other)), ("c".to_owned(), None)];
        let pending = Pending { adding: adding.into(), job: Some(job), ..Pending::default() };
        let text = serde_json::to_vec(&pending).unwrap();
        for name in ["disk", "vm.part"] {
            std::fs::rename(at(name), at(&format!("{name}.moved"))).unwrap();
            std::fs::write(at(name), "the user's").unwrap();
        }
        serde_json::from_slice::<Pending>(&text).unwrap().remove_made();
        assert!(at("disk").exists() && at("disk.moved").exists() && !at("other").exists());
        assert!(at("vm.part").exists());
        // unfinished as well: its temporary name
        std::fs::rename(at("vm.part.moved"), at("vm.part0")).unwrap();
        pending.remove_made();
        assert!(at("vm.part").exists() && !at("vm.part0").exists());
    }
}
