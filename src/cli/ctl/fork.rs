//! `fork`.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use serde_json::json;

use crate::control::client::ClientError;
use crate::control::find::{self, FindError, Standing};
use crate::control::supervise::{Ready, Supervision, SyncClock};
use crate::control::verbs::GetStatus;
use crate::control::wire;
use crate::host::descriptors;
use crate::host::dirs::{RuntimeEnvironment, runtime_root};
use crate::machine::ForkPlace;
use crate::spec::{Condition, Forward, Request, VmName};
use crate::vm::{Launch, ProcessRole};

use super::super::background::{Reporter, Started, in_background};
use super::super::failure::Failure;
use super::super::limit::Limit;
use super::super::output::{Lines, milliseconds};
use super::super::qemu::{self, Ending};
use super::super::qemu_args::ForkArgs;
use super::super::waiting::Progress;
use super::verb::{Context, Verb};

/// The most forks of one command.
const MOST: u32 = 1000;

#[derive(Debug, Args)]
pub(in crate::cli) struct Fork {
    /// How many
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MOST as i64))]
    count: u32,
    /// Their names are PREFIX-1, PREFIX-2, ... as far as those are free [default: the VM's name]
    #[arg(long, short, value_name = "PREFIX")]
    name: Option<VmName>,
    /// Return when each has met this condition (as for wait)
    #[arg(long, value_name = "CONDITION")]
    wait: Option<Condition>,
    /// How long each may take for --wait, or none [default: 5m; none for exit]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, requires = "wait")]
    wait_timeout: Option<Limit>,
    #[command(flatten)]
    own: ForkArgs,
}

impl Verb for Fork {
    const ABOUT: &'static str = "Start forks of the VM, which goes on; it must have been started with --forkable, or be a fork itself";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let base = self.own.request(Path::new(""));
        check_ports(&base.publish, self.count)?;
        let root = runtime_root(&RuntimeEnvironment::from_env()).map_err(FindError::from)?;
        let own_name = context.call(GetStatus {})?.status.name;
        let prefix = self.name.as_ref().map_or(own_name, ToString::to_string);
        let taken = find::all(&root)?.into_iter().map(|(name, _)| name.to_string()).collect();
        let mut names = Names::new(prefix, self.count, taken)?;
        let place = ForkPlace::new()?;
        let mut paused_ms = None;
        let progress = Progress::new("copying the memory of the VM");
        context.client.stream(place.freeze()?, |reply| {
            progress.bytes(reply.done_bytes, reply.total_bytes);
            paused_ms = reply.paused_ms;
            true
        })?;
        drop(progress);
        // the stream also ends, without a reply, when the VM does
        let paused_ms = paused_ms.ok_or(ClientError::Gone)?;
        let mut template = place.made()?;
        // the supervisors, which are forked from this process, are no clients of the VM
        context.client.hang_up();
        log::info!("the VM was paused for {}", milliseconds(paused_ms));
        descriptors::raise_limit();
        let base = Request { from: Some(template.folder().to_owned()), ..base };
        let ready = self.wait.map(|condition| {
            let timeout = Limit::of(self.wait_timeout, std::slice::from_ref(&condition));
            Ready { condition, timeout, shown: true }
        });
        let mut started: Vec<Started> = Vec::new();
        while started.len() < self.count as usize {
            let name = names.next()?;
            let request = Request { name: Some(name.clone()), ..base.clone() };
            let launch = Launch { detached: true, transcript: None, process: ProcessRole::Owner };
            let supervision = Supervision {
                ready: ready.clone(),
                sync_clock: Some(SyncClock::Quiet),
                ..Supervision::new(launch, request.stop_timeout)
            };
            let job = |reporter: &mut Reporter| {
                // in the new process, where the connections to the other supervisors would keep those from seeing that this one ended
                started.clear();
                let in_use = template.take_use();
                qemu::supervisor(&request, supervision, Ending::Forced, in_use, "", reporter)
            };
            match in_background(job, |_| Ok(())) {
                Ok(fork) => started.push(fork),
                // another command has started a VM of this name meanwhile
                Err(_) if find::standing(&root, &name) != Standing::Stale => {}
                Err(failure) => {
                    started.into_iter().for_each(Started::end);
                    return Err(failure);
                }
            }
        }
        drop(template);
        let statuses = || started.iter().map(|fork| status(&root, &fork.name)).collect::<Result<Vec<_>, _>>();
        let forks = if context.output.json { statuses()? } else { Vec::new() };
        let facts = json!({ "paused_ms": paused_ms, "forks": forks });
        context.output.print(&facts, || started.iter().map(|fork| fork.name.clone()).collect::<Lines>())?;
        started.into_iter().for_each(Started::leave);
        Ok(0)
    }
}

/// Refuses host ports that the forks could not have, before the VM is paused for them.
fn check_ports(publish: &[Forward], count: u32) -> Result<(), Failure> {
    let fixed = publish.iter().find(|forward| forward.host != 0);
    if let Some(Forward { host, guest, .. }) = fixed.filter(|_| count > 1) {
        let failure = Failure::usage(format!("{count} forks cannot share host port {host}"));
        let hint = format!("`--publish 0:{guest}` gives each a free one; `vmrun ctl port-list` tells which");
        return Err(failure.hint(Some(hint)));
    }
    Ok(())
}

/// The names `PREFIX-1`, `PREFIX-2`, ... without those of other VMs.
struct Names {
    prefix: String,
    taken: BTreeSet<String>,
    last: u32,
}

impl Names {
    /// Refuses a prefix of which so many names cannot be made.
    fn new(prefix: String, count: u32, taken: BTreeSet<String>) -> Result<Self, Failure> {
        let names = Self { prefix, taken, last: 0 };
        names.numbered(count).map(|_| names)
    }

    fn next(&mut self) -> Result<VmName, Failure> {
        loop {
            self.last += 1;
            let name = self.numbered(self.last)?;
            if !self.taken.contains(name.as_str()) {
                return Ok(name);
            }
        }
    }

    fn numbered(&self, number: u32) -> Result<VmName, Failure> {
        let prefix = &self.prefix;
        let name = format!("{prefix}-{number}").parse();
        name.map_err(|error| Failure::usage(format!("--name {prefix}: {error}")))
    }
}

fn status(root: &Path, name: &str) -> Result<wire::Status, Failure> {
    let name = name.parse().map_err(Failure::other)?;
    let (_, mut client) = find::connect(root, Some(&name))?;
    Ok(client.call(GetStatus {})?.status)
}
