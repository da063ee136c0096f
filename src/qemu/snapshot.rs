//! Snapshots of a running VM: QEMU's commands for them, and what `query-block` says of those that exist.
//!
//! QEMU can neither rename a snapshot nor have two of one name. One that is to replace another is therefore made under the name
//! with a `~` behind it, or, if it replaces such a one, without: only then the old one is deleted, and nothing is ever lost.

use std::collections::BTreeMap;

use qapi::qmp::{JobInfo, JobStatus};
use serde_json::{Value, json};

use super::ids::Ids;
use super::{Command, block, reply};

/// Our one job. There is never more than one: nothing else goes on while a snapshot is made or loaded.
pub const JOB: &str = "vmrun-snapshot";
/// Behind the name of a snapshot that has replaced another; no name of a snapshot ends so.
const REPLACED: char = '~';
/// The image format that can hold snapshots.
const FORMAT: &str = "qcow2";

/// A disk that the guest can write to, and that a snapshot must therefore include.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writable {
    /// The block node; for disks of vmrun's it is the disk's id.
    pub node: String,
    /// The image's format.
    pub format: String,
    /// The image.
    pub file: String,
    snapshots: Vec<OnDisk>,
}

/// A snapshot in one image.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OnDisk {
    name: String,
    id: String,
    state_bytes: u64,
    created_unix_ms: u64,
    vm_clock_ms: u64,
}

/// A snapshot, as far as the VM's disks have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// What the images and QEMU call it: the name, perhaps with a `~` behind it.
    pub tag: String,
    /// The number that the image of the first disk has for it.
    pub id: String,
    /// When it was made, in milliseconds after the Unix epoch.
    pub created_unix_ms: u64,
    /// How long the guest had run, in milliseconds.
    pub vm_clock_ms: u64,
    /// Size of the memory and device state; 0 = it has none.
    pub state_bytes: u64,
    /// The disks that have it.
    pub disks: Vec<String>,
    /// The disks that should have it and do not.
    pub missing: Vec<String>,
}

impl Snapshot {
    /// It has the machine's state, and every disk has it.
    pub fn is_complete(&self) -> bool {
        self.state_bytes > 0 && self.missing.is_empty()
    }

    /// Of two of one name, the greater is meant: the newest that is complete. An image counts its snapshots up; their times would not
    /// tell, for clocks are set.
    fn rank(&self) -> (bool, u64) {
        (self.is_complete(), self.id.parse().unwrap_or_default())
    }
}

/// The writable disks in an answer of `query-block`. The firmware's variables are not among them: the flash chip's content is
/// part of the machine's state, and is written to its file again when that is loaded.
pub fn writable(drives: &Value) -> Vec<Writable> {
    let one = |drive: &Value| {
        let medium = &drive["inserted"];
        let node = medium["node-name"].as_str()?;
        if medium["ro"] == json!(true) || is_flash(node, &drive["qdev"]) {
            return None;
        }
        let snapshots = medium["image"]["snapshots"].as_array().into_iter().flatten();
        Some(Writable {
            node: node.to_owned(),
            format: medium["drv"].as_str().unwrap_or_default().to_owned(),
            file: block::host_file(medium["file"].as_str().unwrap_or_default()),
            snapshots: snapshots.filter_map(on_disk).collect(),
        })
    };
    drives.as_array().into_iter().flatten().filter_map(one).collect()
}

/// Whether this is the node of the firmware's variables: by a disk's node, which is named after the disk, a device of this name has it.
fn is_flash(node: &str, device: &Value) -> bool {
    let named = Ids::all().iter().any(|ids| ids.flash_variables == node);
    named && device.as_str().and_then(|device| device.strip_prefix(node)).is_none()
}

fn on_disk(snapshot: &Value) -> Option<OnDisk> {
    let number = |key: &str| snapshot[key].as_u64().unwrap_or_default();
    Some(OnDisk {
        name: snapshot["name"].as_str()?.to_owned(),
        id: snapshot["id"].as_str().unwrap_or_default().to_owned(),
        state_bytes: number("vm-state-size"),
        created_unix_ms: number("date-sec") * 1000 + number("date-nsec") / 1_000_000,
        vm_clock_ms: number("vm-clock-sec") * 1000 + number("vm-clock-nsec") / 1_000_000,
    })
}

impl Writable {
    /// Whether its image can hold snapshots.
    pub fn can_hold(&self) -> bool {
        self.format == FORMAT
    }
}

/// The snapshots of these disks, oldest first; of several of one name the one that the name means.
pub fn list(disks: &[Writable]) -> Vec<Snapshot> {
    let all = all(disks);
    let meant = |snapshot: &&Snapshot| {
        let of_name = all.iter().filter(|other| other.name == snapshot.name);
        of_name.max_by_key(|other| other.rank()).is_some_and(|best| best.tag == snapshot.tag)
    };
    all.iter().filter(meant).cloned().collect()
}

/// All snapshots of a name, the one first that the name means. The others have outlived their replacement, since a supervisor or
/// QEMU died before they could be deleted.
pub fn named(disks: &[Writable], name: &str) -> Vec<Snapshot> {
    let mut all = all(disks);
    all.retain(|snapshot| snapshot.name == name);
    if let Some(meant) = (0..all.len()).max_by_key(|&index| all[index].rank()) {
        all.swap(0, meant);
    }
    all
}

/// What the images are to call a snapshot that replaces another of its name.
pub fn tag_beside(name: &str, old: Option<&Snapshot>) -> String {
    match old {
        Some(old) if old.tag == name => format!("{name}{REPLACED}"),
        _ => name.to_owned(),
    }
}

fn all(disks: &[Writable]) -> Vec<Snapshot> {
    let mut found: BTreeMap<&str, Snapshot> = BTreeMap::new();
    for disk in disks {
        for snapshot in &disk.snapshots {
            let entry = found.entry(&snapshot.name).or_insert_with(|| Snapshot {
                name: snapshot.name.strip_suffix(REPLACED).unwrap_or(&snapshot.name).to_owned(),
                tag: snapshot.name.clone(),
                id: snapshot.id.clone(),
                created_unix_ms: snapshot.created_unix_ms,
                vm_clock_ms: snapshot.vm_clock_ms,
                state_bytes: 0,
                disks: Vec::new(),
                missing: Vec::new(),
            });
            // one image holds the machine's state, the others have a size of 0
            entry.state_bytes = entry.state_bytes.max(snapshot.state_bytes);
            entry.disks.push(disk.node.clone());
        }
    }
    let mut all: Vec<Snapshot> = found.into_values().collect();
    for snapshot in &mut all {
        let lacks = |disk: &&Writable| !snapshot.disks.contains(&disk.node);
        snapshot.missing = disks.iter().filter(lacks).map(|disk| disk.node.clone()).collect();
    }
    all.sort_by(|a, b| (a.created_unix_ms, &a.name).cmp(&(b.created_unix_ms, &b.name)));
    all
}

/// The node that holds (or is to hold) the machine's state of a snapshot.
pub fn state_node<'a>(disks: &'a [Writable], tag: &str) -> Option<&'a Writable> {
    let holds = |disk: &&Writable| disk.snapshots.iter().any(|s| s.name == tag && s.state_bytes > 0);
    disks.iter().find(holds).or_else(|| disks.iter().find(|disk| disk.can_hold()))
}

/// Saves the machine's state into node `state`, and a snapshot of every disk.
pub fn save(tag: &str, state: &str, disks: &[&str]) -> Command {
    let arguments = json!({ "job-id": JOB, "tag": tag, "vmstate": state, "devices": disks });
    Command::new("snapshot-save", arguments)
}

/// Goes back to a snapshot.
pub fn load(tag: &str, state: &str, disks: &[&str]) -> Command {
    let arguments = json!({ "job-id": JOB, "tag": tag, "vmstate": state, "devices": disks });
    Command::new("snapshot-load", arguments)
}

/// Deletes a snapshot from these disks.
pub fn delete(tag: &str, disks: &[&str]) -> Command {
    Command::new("snapshot-delete", json!({ "job-id": JOB, "tag": tag, "devices": disks }))
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It has not.
    UnderWay,
    /// QEMU's error, if it failed.
    Concluded(Option<String>),
    /// There is none.
    Gone,
}

/// What `query-jobs` says of our job.
pub fn job(jobs: &Value) -> JobState {
    match reply::each::<JobInfo>(jobs).into_iter().find(|job| job.id == JOB) {
        None => JobState::Gone,
        Some(job) if job.status == JobStatus::concluded => JobState::Concluded(job.error),
        Some(_) => JobState::UnderWay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(name: &str, id: &str, size: u64, seconds: u64) -> Value {
        json!({ "vm-clock-nsec": 16_129_836, "name": name, "date-sec": seconds, "date-nsec": 64_061_000, "vm-clock-sec": 3,
            "id": id, "vm-state-size": size })
    }

    /// The shape of QEMU 7.2's answer.
    fn drives() -> Value {
        let drive = |node: &str, driver: &str, ro: bool, snapshots: Value| {
            let image = json!({ "virtual-size": 1, "snapshots": snapshots });
            json!({ "device": "", "inserted": { "node-name": node, "drv": driver, "ro": ro, "file": "/i", "image": image } })
        };
        json!([
            drive("a", "qcow2", false, json!([snapshot("t1", "1", 506_584, 9), snapshot("t2", "2", 7, 8)])),
            drive("b", "qcow2", false, json!([snapshot("t2", "1", 0, 8)])),
            drive("cd", "raw", true, json!([])),
            drive("vmrun-flash1", "raw", false, Value::Null),
            { "device": "", "qdev": "empty" },
        ])
    }

    #[test]
    fn a_snapshot_is_complete_if_all_writable_disks_have_it() {
        let disks = writable(&drives());
        let list = list(&disks);
        let listed: Vec<_> =
            list.iter().map(|s| (s.name.as_str(), s.state_bytes, s.missing.len(), s.is_complete())).collect();
        assert_eq!(listed, [("t2", 7, 0, true), ("t1", 506_584, 1, false)]);
        assert_eq!((list[0].created_unix_ms, list[0].vm_clock_ms), (8_064, 3_016));
        assert_eq!((list[1].disks.clone(), list[1].missing.clone()), (vec!["a".into()], vec!["b".into()]));
    }

    #[test]
    fn a_replacement_has_the_same_name() {
        let drives = |snapshots: Value| json!([{ "inserted": { "node-name": "a", "drv": "qcow2", "ro": false, "image": { "snapshots": snapshots } } }]);
        let tags = |snapshots: Value| -> Vec<String> {
            let disks = writable(&drives(snapshots));
            assert_eq!(list(&disks).len(), 1);
            assert_eq!(list(&disks)[0].tag, named(&disks, "t")[0].tag);
            assert!(named(&disks, "t").iter().all(|snapshot| snapshot.name == "t"));
            let old = named(&disks, "t");
            old.iter().map(|old| old.tag.clone()).chain([tag_beside("t", old.first())]).collect()
        };
        assert_eq!(tags(json!([snapshot("t", "1", 7, 8)])), ["t", "t~"]);
        assert_eq!(tags(json!([snapshot("t~", "2", 7, 9)])), ["t~", "t"]);
        // the old one could not be deleted
        assert_eq!(tags(json!([snapshot("t", "1", 7, 8), snapshot("t~", "2", 7, 9)])), ["t~", "t", "t"]);
        // the same, but the clock was set back meanwhile
        assert_eq!(tags(json!([snapshot("t", "9", 7, 8), snapshot("t~", "10", 7, 3)])), ["t~", "t", "t"]);
        // the new one is not complete
        assert_eq!(tags(json!([snapshot("t", "1", 7, 8), snapshot("t~", "2", 0, 9)])), ["t", "t~", "t~"]);
        assert_eq!(tag_beside("t", None), "t");
    }

    #[test]
    fn a_disk_without_the_machines_state_is_no_snapshot_of_it() {
        let drives = json!([{ "inserted": { "node-name": "a", "drv": "qcow2", "ro": false,
            "image": { "snapshots": [snapshot("by-qemu-img", "1", 0, 1)] } } }]);
        assert!(!list(&writable(&drives))[0].is_complete());
    }

    #[test]
    fn the_state_goes_where_it_can() {
        let raw_first = json!([
            { "inserted": { "node-name": "r", "drv": "raw", "ro": false } },
            { "inserted": { "node-name": "q", "drv": "qcow2", "ro": false } },
        ]);
        let disks = writable(&raw_first);
        assert_eq!(disks.iter().map(Writable::can_hold).collect::<Vec<_>>(), [false, true]);
        assert_eq!(state_node(&disks, "new").unwrap().node, "q");
    }

    #[test]
    fn jobs_end_with_qemus_words() {
        let jobs = |status: &str, error: Option<&str>| {
            let ours = json!({ "id": JOB, "type": "snapshot-save", "status": status, "error": error,
                               "current-progress": 1, "total-progress": 1 });
            json!([{ "id": "x", "type": "from-the-future" }, ours])
        };
        assert_eq!(job(&jobs("running", None)), JobState::UnderWay);
        assert_eq!(job(&jobs("concluded", None)), JobState::Concluded(None));
        assert_eq!(job(&jobs("concluded", Some("no"))), JobState::Concluded(Some("no".to_owned())));
        assert_eq!(job(&json!([])), JobState::Gone);
    }
}
