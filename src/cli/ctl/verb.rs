//! What a command of `vmrun ctl` is, and how any of them runs.

use clap::Args;

use crate::control::client::Client;
use crate::spec::VmName;

use super::super::failure::Failure;
use super::super::output::Output;

/// A command of `vmrun ctl`, with its arguments as fields.
pub(super) trait Verb: Args {
    /// What the help page says of it.
    const ABOUT: &'static str;
    /// Where no VM runs, the one that has just ended is meant.
    const AFTER_THE_END: bool = false;

    /// Does what needs no VM, and refuses what is wrong whatever the VM; none: go on with the VM.
    fn without_vm(&self, _output: Output) -> Option<Result<u8, Failure>> {
        None
    }

    /// Runs it; the exit code of the program.
    fn run(self, context: &mut Context) -> Result<u8, Failure>;
}

/// What every command gets.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) output: Output,
}

/// Runs one command against the VM that is meant.
pub(super) fn run<V: Verb>(command: V, vm: Option<&VmName>, output: Output) -> Result<u8, Failure> {
    if let Some(done) = command.without_vm(output) {
        return done;
    }
    let (_, client) = match V::AFTER_THE_END {
        true => super::super::connect_after_the_end(vm)?,
        false => super::super::connect(vm)?,
    };
    command.run(&mut Context { client, output })
}
