//! Records of VMs that have ended: `records` in the user's store. Two files for each run, `<run id>.json` and the last output of its
//! console, `<run id>.log`; the oldest go by themselves.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstatat};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::directory::Directory;
use super::{StoreEnvironment, StoreError, existing_user_store, user_store};

/// How many records are kept.
const KEPT: usize = 100;
/// How long each is kept.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// Name of the folder in the store.
const FOLDER: &str = "records";
const RECORD: &str = "json";
const CONSOLE: &str = "log";
/// What a record and the console's last output have in bytes, without much output.
const USUAL: usize = 16 << 10;

/// One run of a VM: unique, whatever names VMs have had and will have. Prints as 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

/// A text is not a run id.
#[derive(Debug, Error)]
#[error("a run id has 32 hexadecimal digits")]
pub struct RunIdError;

impl RunId {
    /// A new one.
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }
}

impl FromStr for RunId {
    type Err = RunIdError;

    fn from_str(text: &str) -> Result<Self, RunIdError> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 32 && text.bytes().all(digit)).then(|| Self(text.to_owned())).ok_or(RunIdError)
    }
}

impl TryFrom<String> for RunId {
    type Error = RunIdError;

    fn try_from(text: String) -> Result<Self, RunIdError> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(run: RunId) -> Self {
        run.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The records of one user.
#[derive(Debug)]
pub struct Records(Directory);

impl Records {
    /// Opens the folder in the user's store, and makes both if need be.
    ///
    /// # Errors
    /// They cannot be made, or not be trusted.
    pub fn open(environment: &StoreEnvironment) -> Result<Self, StoreError> {
        Ok(Self(user_store(environment)?.subdirectory(FOLDER)?))
    }

    /// Opens the folder to read in it; none if there is none, or none that can be trusted. Nothing is made.
    pub fn existing(environment: &StoreEnvironment) -> Option<Self> {
        existing_user_store(environment).ok()??.existing_subdirectory(FOLDER).ok()?.map(Self)
    }

    /// Whether a record can be written here now, tried with as many bytes as one has.
    ///
    /// # Errors
    /// Of the file system.
    pub fn check(&self, run: &RunId) -> io::Result<()> {
        self.0.write_for_now(&file(run, CONSOLE), &[0; USUAL])?;
        self.0.unlink(&file(run, CONSOLE))
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes the record of a run, and then removes what is too old. Readers see all of a record or none of it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self, run: &RunId, record: &[u8], console: &[u8]) -> io::Result<()> {
        // the console first: who finds the record finds it, too
        self.0.write_for_now(&file(run, CONSOLE), console)?;
        self.0.write_for_now(&file(run, RECORD), record)?;
        if let Err(error) = self.prune(SystemTime::now()) {
            log::debug!("old records of VMs could not be removed: {error}");
        }
        Ok(())
    }

    /// A run's record; none if there is none.
    pub fn read(&self, run: &RunId) -> Option<Vec<u8>> {
        self.0.read(&file(run, RECORD)).ok()
    }

    /// The last output of a run's console.
    pub fn console(&self, run: &RunId) -> Option<Vec<u8>> {
        self.0.read(&file(run, CONSOLE)).ok()
    }

    /// Removes a run's record.
    ///
    /// # Errors
    /// Of the file system.
    pub fn remove(&self, run: &RunId) -> io::Result<()> {
        self.0.unlink(&file(run, RECORD))?;
        self.0.unlink(&file(run, CONSOLE))
    }

    /// All runs that have a record, in no order.
    ///
    /// # Errors
    /// Of the file system.
    pub fn runs(&self) -> io::Result<Vec<RunId>> {
        let runs = self.files()?.into_iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok());
        Ok(runs.collect())
    }

    /// Removes all but the newest, and what is older than a month. Only what has a name as [`file`] gives it is ours.
    fn prune(&self, now: SystemTime) -> io::Result<()> {
        let mut runs: Vec<(i64, RunId)> = Vec::new();
        for name in self.files()? {
            let run =
                name.strip_suffix(".json").or(name.strip_suffix(".log")).and_then(|run| run.parse().ok());
            // one that goes at this moment
            let Ok(facts) = fstatat(&self.0, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            runs.extend(run.map(|run| (facts.st_mtime, run)));
        }
        runs.sort_unstable_by(|a, b| b.cmp(a));
        runs.dedup_by(|a, b| a.1 == b.1);
        let oldest = now.checked_sub(KEPT_FOR).and_then(|then| then.duration_since(UNIX_EPOCH).ok());
        let oldest = oldest.map_or(0, |oldest| i64::try_from(oldest.as_secs()).unwrap_or(0));
        let mut seen = std::collections::BTreeSet::new();
        for (time, run) in runs {
            if seen.insert(run.clone()) && (seen.len() > KEPT || time < oldest) {
                self.remove(&run)?;
            }
        }
        Ok(())
    }

    fn files(&self) -> io::Result<Vec<String>> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut entries = Dir::openat(&self.0, ".", flags, Mode::empty())?;
        let names = entries.iter().filter_map(|entry| {
            entry.ok().and_then(|entry| entry.file_name().to_str().ok().map(str::to_owned))
        });
        Ok(names.collect())
    }
}

fn file(run: &RunId, kind: &str) -> String {
    format!("{run}.{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(folder: &Path) -> Records {
        Records::open(&StoreEnvironment::from_env_or(Some(folder))).unwrap()
    }

    #[test]
    fn the_last_hundred_are_kept_for_a_month_and_what_is_not_ours_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path());
        let path = folder.path().join("vmrun/records");
        std::fs::write(path.join("notes.json"), "mine").unwrap();
        let runs: Vec<RunId> = (0..KEPT + 5).map(|_| RunId::random()).collect();
        let now = SystemTime::now();
        // the oldest first: each is the newest when it is written
        for (age, run) in runs.iter().rev().enumerate().rev() {
            records.write(run, b"{}", b"last words").unwrap();
            let then = now - Duration::from_secs(age as u64 + 1);
            for kind in [RECORD, CONSOLE] {
                std::fs::File::open(path.join(file(run, kind))).unwrap().set_modified(then).unwrap();
            }
        }
        records.prune(now).unwrap();
        let mut kept = records.runs().unwrap();
        let mut newest = runs[5..].to_vec();
        kept.sort();
        newest.sort();
        assert_eq!(kept, newest);
        assert_eq!(records.console(&runs[0]), None);
        assert_eq!(records.console(&runs[9]).unwrap(), b"last words");
        records.prune(now + KEPT_FOR - Duration::from_secs(50)).unwrap();
        assert_eq!(records.runs().unwrap().len(), 50);
        records.prune(now + KEPT_FOR).unwrap();
        let left: Vec<_> =
            std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["notes.json"]);
    }

    #[test]
    fn run_ids_are_nothing_else() {
        let run = RunId::random();
        assert_eq!(run.to_string().parse::<RunId>().unwrap(), run);
        for wrong in ["", "../../etc/passwd", &"A".repeat(32), &"0".repeat(33)] {
            assert!(wrong.parse::<RunId>().is_err());
        }
    }
}
