//! `vmrun ls`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::control::client::{ClientError, PendingCall};
use crate::control::find::{self, FindError, Standing};
use crate::control::verbs;
use crate::control::verbs::StatusReply;
use crate::control::wire::Status;
use crate::host::dirs::{RunDir, RuntimeEnvironment, runtime_root};
use crate::spec::VmName;

use super::adopt;
use super::args::LsArgs;
use super::ended::{self, Ended};
use super::failure::Failure;
use super::output::{Lines, Output, bytes, milliseconds, table, tell};
use super::waiting::Progress;

/// One VM of the list.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    state: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    status: Option<Brief>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    silence: Option<NotAnswering>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    ended: Option<Ended>,
}

/// A VM whose supervisor does not answer.
#[derive(Debug, Serialize)]
struct NotAnswering {
    supervisor_pid: Option<i32>,
    reason: &'static str,
}

#[derive(Debug, Serialize)]
struct Brief {
    uptime_ms: u64,
    qemu_pid: i32,
    supervisor_pid: u32,
    arch: String,
    accel: String,
    cpus: u32,
    memory_bytes: u64,
    detached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    forwards: Vec<crate::control::wire::Forward>,
}

/// How long connecting to all VMs may take: healthy ones need no time.
const CONNECTING: Duration = Duration::from_millis(500);
/// How long they may take to reply, on a busy machine.
const ANSWERING: Duration = Duration::from_secs(3);
/// How many VMs are queried before the first reply is read; each needs four descriptors.
const AT_ONCE: usize = 64;

/// Lists the running VMs; takes over those without a supervisor, and cleans up after dead ones.
pub(super) fn run(args: &LsArgs) -> Result<u8, Failure> {
    let root = runtime_root(&RuntimeEnvironment::from_env()).map_err(FindError::from)?;
    for stranger in RunDir::tidy(&root).map_err(FindError::List)? {
        log::warn!("{} was not made by vmrun, and is left alone", stranger.display());
    }
    let progress = Progress::new("waiting for the VMs' supervisors");
    let mut rows: Vec<Row> = Vec::new();
    for some in find::all(&root)?.chunks(AT_ONCE) {
        let connected = Instant::now() + CONNECTING;
        let pending: Vec<Inquiry> =
            some.iter().filter_map(|(name, standing)| inquire(&root, name, *standing, connected)).collect();
        let answered = Instant::now() + ANSWERING;
        rows.extend(pending.into_iter().filter_map(|pending| pending.row(answered)));
    }
    drop(progress);
    if args.all {
        let ended = ended::all(&root);
        rows.extend(ended.into_iter().map(|(name, ended)| Row {
            name,
            ended: Some(ended),
            ..stateless_named("ended")
        }));
    }
    if rows.is_empty() && !args.json {
        tell(&format!(
            "vmrun: no VM {} in {}",
            if args.all { "has run" } else { "is running" },
            root.display()
        ));
    }
    Output { json: args.json }.print(&rows, || match args.quiet {
        true => rows.iter().map(|row| row.name.clone()).collect(),
        false => as_table(&rows),
    })
}

/// A query of one VM.
enum Inquiry {
    Pending(VmName, Result<PendingCall<verbs::GetStatus>, FindError>),
    Orphan(VmName),
}

fn inquire(root: &Path, name: &VmName, standing: Standing, by: Instant) -> Option<Inquiry> {
    match standing {
        Standing::Supervised => {}
        // no other process would clean up after it
        Standing::Stale => {
            crate::vm::clean(root, name);
            return None;
        }
        Standing::Orphan => {
            if let Err(failure) = adopt::run(root, name) {
                // QEMU has just ended
                if find::standing(root, name) == Standing::Stale {
                    crate::vm::clean(root, name);
                    return None;
                }
                log::warn!("VM '{name}' has no supervisor, and cannot be given one: {}", failure.message);
                return Some(Inquiry::Orphan(name.clone()));
            }
        }
    }
    let pending = find::connect_within(root, name, by.saturating_duration_since(Instant::now()))
        .and_then(|client| Ok(client.send_call(verbs::GetStatus {})?));
    Some(Inquiry::Pending(name.clone(), pending))
}

impl Inquiry {
    /// `None` for a VM that has ended since the folder was read.
    fn row(self, by: Instant) -> Option<Row> {
        let (name, pending) = match self {
            Self::Pending(name, pending) => (name, pending),
            Self::Orphan(name) => return Some(stateless(&name, "orphan")),
        };
        match pending.and_then(|pending| Ok(pending.reply_by(by)?)) {
            Ok(StatusReply { status }) => Some(Row {
                name: status.name.clone(),
                state: status.state.clone(),
                status: Some(brief(status)),
                silence: None,
                ended: None,
            }),
            Err(FindError::Client(ClientError::NotAnswering(silence))) => {
                let supervisor_pid = silence.supervisor_pid;
                let silence = NotAnswering { supervisor_pid, reason: silence.reason() };
                Some(Row { silence: Some(silence), ..stateless(&name, "not answering") })
            }
            Err(FindError::NoSuch { .. } | FindError::Stale(_) | FindError::Client(ClientError::Gone)) => {
                None
            }
            // it holds its lock and does not listen yet
            Err(_) => Some(stateless(&name, "starting")),
        }
    }
}

fn stateless(name: &VmName, state: &str) -> Row {
    Row { name: name.to_string(), ..stateless_named(state) }
}

fn stateless_named(state: &str) -> Row {
    Row { name: String::new(), state: state.to_owned(), status: None, silence: None, ended: None }
}

fn brief(status: Status) -> Brief {
    Brief {
        uptime_ms: status.uptime_ms,
        qemu_pid: status.qemu_pid,
        supervisor_pid: status.supervisor_pid,
        arch: status.arch,
        accel: status.accel,
        cpus: status.cpus,
        memory_bytes: status.memory_bytes,
        detached: status.detached,
        template: status.template,
        forwards: status.forwards,
    }
}

impl NotAnswering {
    fn text(&self) -> String {
        let process = self.supervisor_pid.map(|pid| format!(" {pid}")).unwrap_or_default();
        format!("supervisor{process}: {}", self.reason)
    }
}

fn forwards(brief: &Brief) -> String {
    let forwards = brief.forwards.iter().map(|f| format!("{}:{}", f.host_port, f.guest_port));
    forwards.collect::<Vec<_>>().join(" ")
}

fn as_table(rows: &[Row]) -> Lines {
    let (ended, running): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.ended.is_some());
    let mut lines = running_table(&running);
    if !ended.is_empty() {
        let table =
            ended::as_table(ended.iter().filter_map(|row| Some((row.name.as_str(), row.ended.as_ref()?))));
        match running.is_empty() {
            true => lines.push(table),
            false => lines.section("ended", table),
        }
    }
    lines
}

fn running_table(rows: &[&Row]) -> Lines {
    if rows.is_empty() {
        return Lines::default();
    }
    let cells = rows.iter().map(|row| {
        let fact = |pick: fn(&Brief) -> String| row.status.as_ref().map(pick).unwrap_or_default();
        [
            row.name.clone(),
            row.state.clone(),
            fact(|brief| milliseconds(brief.uptime_ms)),
            fact(|brief| brief.qemu_pid.to_string()),
            fact(|brief| format!("{}/{}", brief.arch, brief.accel)),
            fact(|brief| brief.cpus.to_string()),
            fact(|brief| bytes(brief.memory_bytes)),
            row.silence.as_ref().map_or_else(|| fact(forwards), NotAnswering::text),
        ]
    });
    table(["NAME", "STATE", "UPTIME", "PID", "MACHINE", "CPUS", "MEMORY", "FORWARDS"], cells)
}
