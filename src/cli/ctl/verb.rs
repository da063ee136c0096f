//! The trait of `vmrun ctl` commands, and how they run.

use clap::Args;

use crate::control::client::{Client, ClientError};
use crate::control::verbs::Method;
use crate::spec::VmName;

use super::super::failure::Failure;
use super::super::output::Output;
use super::super::target::NOT_RUNNING;
use super::super::waiting::Progress;

/// A command of `vmrun ctl`, with its arguments as fields.
pub(in crate::cli) trait Verb: Args {
    /// The first line of its help page.
    const ABOUT: &'static str;
    /// What is shown on a terminal while a call takes long.
    const WAITS_FOR: &'static str = "waiting for QEMU";
    /// Without a running VM, the one that has just ended is used.
    const AFTER_THE_END: bool = false;

    /// Handles what needs no VM, and refuses invalid arguments; `None`: continue with the VM.
    fn without_vm(&self, _output: Output) -> Option<Result<u8, Failure>> {
        None
    }

    /// What it does if no VM runs: fails, as a rule.
    fn not_running(&self, failure: Failure, _output: Output) -> Result<u8, Failure> {
        Err(failure)
    }

    /// Runs it; returns the program's exit code.
    fn run(self, context: &mut Context) -> Result<u8, Failure>;
}

/// The context of every command.
pub(in crate::cli) struct Context {
    pub(super) client: Client,
    pub(super) output: Output,
    /// [`Verb::WAITS_FOR`]
    waits_for: &'static str,
}

impl Context {
    /// Calls a method; if that takes long, a person at a terminal sees what is waited for.
    pub(super) fn call<M: Method>(&mut self, method: M) -> Result<M::Reply, ClientError> {
        let _progress = Progress::new(self.waits_for);
        self.client.call(method)
    }
}

/// Runs one command against its VM.
pub(in crate::cli) fn run<V: Verb>(command: V, vm: Option<&VmName>, output: Output) -> Result<u8, Failure> {
    if let Some(done) = command.without_vm(output) {
        return done;
    }
    let connected = match V::AFTER_THE_END {
        true => super::super::connect_after_the_end(vm),
        false => super::super::connect(vm),
    };
    let client = match connected {
        Ok((_, client)) => client,
        Err(failure) if failure.code == NOT_RUNNING => return command.not_running(failure, output),
        Err(failure) => return Err(failure),
    };
    command.run(&mut Context { client, output, waits_for: V::WAITS_FOR })
}
