//! What is half-done: written to the run directory before a change that could leave something behind, so that a supervisor that
//! takes over after a `kill -9` can finish it or take it back. And what a new supervisor cannot ask QEMU for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::host::dirs::{RunDir, names};
use crate::spec::{Image, Networking};

use super::error::ChangeError;
use super::inventory::NicFacts;
use super::opened::ImageNodes;

/// The file in the run directory; not there while there is nothing to tell.
const FILE: &str = names::PENDING;

/// What was half-done when a supervisor died.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// Devices with an image that are being added, by id; with the image if the change makes it.
    #[serde(default)]
    pub(super) adding: BTreeMap<String, Option<PathBuf>>,
    /// Devices that the guest has been asked to release.
    #[serde(default)]
    pub(super) removing: BTreeSet<String>,
    /// A snapshot, or the saving of the whole VM.
    #[serde(default)]
    pub(super) job: Option<Job>,
    /// Network cards, as far as QEMU does not tell of them: those that were plugged, and those whose cable was ever pulled.
    #[serde(default)]
    pub(super) cards: Cards,
    /// Images that were opened since the start, by the names of their block nodes: which file each is, whatever its name leads to now.
    #[serde(default)]
    pub(super) images: ImageNodes,
}

/// What QEMU does not tell of network cards, by id.
pub(super) type Cards = BTreeMap<String, Card>;

/// Something during which nothing else is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    /// For people.
    pub(super) what: String,
    /// The guest ran before it.
    pub(super) resume: bool,
    /// A file that is not whole yet.
    #[serde(default)]
    pub(super) file: Option<PathBuf>,
}

/// What QEMU does not tell of a network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Card {
    /// What it is connected to: QEMU only knows the number of a descriptor that it was given.
    pub(super) network: Option<Networking>,
    /// The host's interface.
    pub(super) interface: Option<String>,
    /// Its cable is plugged.
    pub(super) link_up: bool,
}

impl From<&NicFacts> for Card {
    fn from(nic: &NicFacts) -> Self {
        Self { network: nic.network.clone(), interface: nic.interface.clone(), link_up: nic.link_up }
    }
}

impl Card {
    /// Adds to what QEMU says of the card.
    pub(super) fn complete(&self, nic: &mut NicFacts) {
        nic.network = nic.network.take().or_else(|| self.network.clone());
        nic.interface = nic.interface.take().or_else(|| self.interface.clone());
        nic.link_up = self.link_up;
    }
}

impl Pending {
    /// What the file says; nothing if it is not there or makes no sense.
    pub(super) fn read(run: &RunDir) -> Self {
        run.read(FILE).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Writes the file, or removes it. What is over, and stays in it, is looked at by whoever takes the VM over.
    pub(super) fn write(&self, run: &RunDir) {
        if let Err(error) = self.try_write(run) {
            log::warn!("what is half-done could not be written down: {error}");
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
pub(super) struct Journal {
    run: Arc<RunDir>,
    pending: Pending,
}

impl Journal {
    pub(super) fn new(run: Arc<RunDir>, pending: Pending) -> Self {
        Self { run, pending }
    }

    /// A device with an image is about to be added; `made`: the change makes the image.
    ///
    /// # Errors
    /// It cannot be written down, and must not begin. So of all that is about to be done.
    pub(super) fn adding(&mut self, id: &str, made: Option<&Path>) -> Result<(), ChangeError> {
        self.first(|pending| {
            pending.adding.insert(id.to_owned(), made.map(Path::to_owned));
        })
    }

    /// A device is about to be removed.
    pub(super) fn removing(&mut self, id: &str) -> Result<(), ChangeError> {
        match self.pending.removing.contains(id) {
            true => Ok(()),
            false => self.first(|pending| {
                pending.removing.insert(id.to_owned());
            }),
        }
    }

    /// A job is about to begin.
    pub(super) fn job(&mut self, job: Job) -> Result<(), ChangeError> {
        self.first(|pending| pending.job = Some(job))
    }

    /// The job has ended.
    pub(super) fn job_ended(&mut self) {
        self.pending.job = None;
        self.write();
    }

    /// A network card is about to be added, or its cable to be pulled or plugged.
    pub(super) fn card(&mut self, id: &str, nic: &NicFacts) -> Result<(), ChangeError> {
        let card = Card::from(nic);
        match self.pending.cards.get(id) == Some(&card) {
            true => Ok(()),
            false => self.first(|pending| {
                pending.cards.insert(id.to_owned(), card);
            }),
        }
    }

    /// A network card is as this now.
    pub(super) fn card_is(&mut self, id: &str, nic: &NicFacts) {
        self.pending.cards.insert(id.to_owned(), nic.into());
        self.write();
    }

    /// A network card is gone.
    pub(super) fn card_gone(&mut self, id: &str) {
        if self.pending.cards.remove(id).is_some() {
            self.write();
        }
    }

    /// An image has been opened.
    pub(super) fn opened(&mut self, node: &str, image: Image) {
        self.pending.images.insert(node.to_owned(), image);
        self.write();
    }

    /// An image has been closed.
    pub(super) fn closed(&mut self, node: &str) {
        if self.pending.images.remove(node).is_some() {
            self.write();
        }
    }

    /// All of it.
    pub(super) fn pending(&self) -> &Pending {
        &self.pending
    }

    /// What QEMU does not tell of the network cards.
    pub(super) fn cards(&self) -> &Cards {
        &self.pending.cards
    }

    /// Whatever was half-done with a device is done, or undone.
    pub(super) fn settled(&mut self, id: &str) {
        let added = self.pending.adding.remove(id).is_some();
        let removed = self.pending.removing.remove(id);
        if added || removed {
            self.write();
        }
    }

    fn write(&self) {
        self.pending.write(&self.run);
    }

    /// Writes down what is about to be done; if that fails, the journal is as before.
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
