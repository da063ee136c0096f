//! What the model does with the whole machine: snapshots as jobs, and the stream of its state into a descriptor.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

use serde_json::{Value, json};

use super::fake_qemu::{Answer, Model, Plugged, event};

/// What a machine's state is here; it fits into a pipe.
pub(super) const STREAM: &[u8] = b"the machine, as QEMU writes it";

/// Snapshots, jobs and streams.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// By tag.
    pub(super) snapshots: BTreeMap<String, Kept>,
    /// Jobs that were not dismissed, with their error.
    pub(super) jobs: BTreeMap<String, Option<String>>,
    /// Descriptors that came and are still open, by name.
    pub(super) descriptors: BTreeMap<String, File>,
    /// The next job or stream breaks off with these words.
    pub(super) breaks: Option<&'static str>,
    /// A stream does not end until it is let go, or cancelled.
    pub(super) holds: bool,
    /// The stream that has not ended.
    under_way: Option<File>,
    /// How the last stream ended, and why.
    status: Option<(&'static str, Option<String>)>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// Greater than those of the snapshots that were there.
    id: u64,
    /// Those that have it, the one with the machine's state first.
    nodes: Vec<String>,
}

fn job_event(id: &str, status: &str) -> Value {
    event("JOB_STATUS_CHANGE", json!({ "id": id, "status": status }))
}

fn migration(status: &str) -> Value {
    event("MIGRATION", json!({ "status": status }))
}

impl Model {
    /// Commands that are about the whole machine; none of the others.
    pub(super) fn keep(&mut self, name: &str, arguments: &Value, late: &mut Vec<Value>) -> Option<Answer> {
        let text = |key: &str| arguments[key].as_str().unwrap_or_default().to_owned();
        Some(match name {
            "snapshot-save" | "snapshot-load" | "snapshot-delete" => {
                self.snapshot(name, &text("job-id"), &text("tag"), arguments, late)
            }
            "query-jobs" => {
                let job = |(id, error): (&String, &Option<String>)| {
                    let mut job = json!({ "id": id, "type": "snapshot-save", "status": "concluded",
                                          "current-progress": 1, "total-progress": 1 });
                    if let Some(error) = error {
                        job["error"] = json!(error);
                    }
                    job
                };
                Ok(self.kept.jobs.iter().map(job).collect())
            }
            "job-dismiss" => match self.kept.jobs.remove(&text("id")) {
                Some(_) => Ok(json!({})),
                None => Err("Job not found".to_owned()),
            },
            "query-status" => {
                let status = if self.running { "running" } else { "paused" };
                Ok(json!({ "running": self.running, "status": status }))
            }
            "query-chardev" => Ok(json!([])),
            "qom-list" => {
                let child = |(id, device): (&String, &Plugged)| json!({ "name": id, "type": format!("child<{}>", device.driver) });
                Ok(self.devices.iter().map(child).collect())
            }
            "qom-get" if text("property") == "type" => Ok(json!("pc-q35-7.2-machine")),
            "query-named-block-nodes" => Ok(self.images.values().map(node_facts).collect()),
            "getfd" => match self.came.pop_front() {
                Some(file) => {
                    self.kept.descriptors.insert(text("fdname"), file);
                    Ok(json!({}))
                }
                None => Err("No file descriptor supplied via SCM_RIGHTS".to_owned()),
            },
            "closefd" => match self.kept.descriptors.remove(&text("fdname")) {
                Some(_) => Ok(json!({})),
                None => Err(format!("File descriptor named '{}' not found", text("fdname"))),
            },
            "migrate" => self.migrate(&text("uri"), late),
            "migrate_cancel" => {
                if self.kept.under_way.take().is_some() {
                    self.kept.status = Some(("cancelled", None));
                    late.extend(["cancelling", "cancelled"].map(migration));
                }
                Ok(json!({}))
            }
            "query-migrate" => Ok(match &self.kept.status {
                None => json!({}),
                Some((status, why)) => json!({ "status": status, "error-desc": why }),
            }),
            _ => return None,
        })
    }

    /// A job: it is answered when it exists, and tells by events how it goes. One that fails leaves the guest stopped.
    fn snapshot(
        &mut self,
        name: &str,
        id: &str,
        tag: &str,
        arguments: &Value,
        late: &mut Vec<Value>,
    ) -> Answer {
        if self.kept.jobs.contains_key(id) {
            return Err(format!("Job ID '{id}' already in use"));
        }
        late.extend(["created", "running"].map(|status| job_event(id, status)));
        let stops = name != "snapshot-delete";
        if stops {
            late.push(event("STOP", json!({})));
        }
        let done = self.do_snapshot(name, tag, arguments);
        if stops {
            match done.is_ok() && self.running {
                true => late.push(event("RESUME", json!({}))),
                false => self.running = false,
            }
        }
        self.kept.jobs.insert(id.to_owned(), done.err());
        late.extend(["waiting", "pending", "concluded"].map(|status| job_event(id, status)));
        Ok(json!({}))
    }

    fn do_snapshot(&mut self, name: &str, tag: &str, arguments: &Value) -> Result<(), String> {
        if let Some(why) = self.kept.breaks.take() {
            return Err(why.to_owned());
        }
        let node = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let devices: Vec<String> = arguments["devices"].as_array().into_iter().flatten().map(node).collect();
        let there = self.kept.snapshots.get(tag);
        match name {
            "snapshot-save" if there.is_some() => {
                return Err(format!("Snapshot '{tag}' already exists in one or more devices"));
            }
            "snapshot-save" => {
                let state = node(&arguments["vmstate"]);
                let others = devices.into_iter().filter(|device| *device != state);
                let nodes = std::iter::once(state.clone()).chain(others).collect();
                let id = 1 + self.kept.snapshots.values().map(|kept| kept.id).max().unwrap_or_default();
                self.kept.snapshots.insert(tag.to_owned(), Kept { id, nodes });
            }
            _ if there.is_none() => {
                return Err(format!("Snapshot '{tag}' does not exist in one or more devices"));
            }
            "snapshot-delete" => drop(self.kept.snapshots.remove(tag)),
            _ => {}
        }
        Ok(())
    }

    /// What `query-block` tells of an image's snapshots. The host's clock has been set, so that all are of one time.
    pub(super) fn snapshots_on(&self, node: &str) -> Value {
        let of_node =
            self.kept.snapshots.iter().filter(|(_, kept)| kept.nodes.iter().any(|name| name == node));
        let listed = |(tag, kept): (&String, &Kept)| {
            let size = if kept.nodes[0] == node { 500 } else { 0 };
            json!({ "id": kept.id.to_string(), "name": tag, "vm-state-size": size, "date-sec": 5, "date-nsec": 0 })
        };
        of_node.map(listed).collect()
    }

    /// Takes the descriptor whatever comes of it, as QEMU does.
    fn migrate(&mut self, uri: &str, late: &mut Vec<Value>) -> Answer {
        let name = uri.strip_prefix("fd:").unwrap_or_default();
        let Some(file) = self.kept.descriptors.remove(name) else {
            return Err(format!("File descriptor named '{name}' has not been found"));
        };
        late.extend(["setup", "active"].map(migration));
        self.kept.under_way = Some(file);
        if !self.kept.holds {
            self.end_stream(late);
        }
        Ok(json!({}))
    }

    /// The stream comes to its end: QEMU closes the descriptor, and the guest stands still for good if all is written.
    pub(super) fn end_stream(&mut self, events: &mut Vec<Value>) {
        let Some(mut file) = self.kept.under_way.take() else { return };
        let ended = match self.kept.breaks.take() {
            Some(why) => Err(why.to_owned()),
            None => file.write_all(STREAM).map_err(|error| error.to_string()),
        };
        self.kept.status = Some(match ended {
            Ok(()) => {
                self.running = false;
                ("completed", None)
            }
            Err(why) => ("failed", Some(why)),
        });
        events.extend(self.kept.status.as_ref().map(|(status, _)| migration(status)));
    }

    /// The process has ended: what it held open is closed.
    pub(super) fn close_all(&mut self) {
        self.gone = true;
        self.came.clear();
        self.kept.descriptors.clear();
        self.kept.under_way = None;
    }
}

fn node_facts(added: &Value) -> Value {
    json!({ "node-name": added["node-name"], "drv": added["driver"], "file": added["filename"] })
}
