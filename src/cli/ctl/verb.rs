//! The trait of `vmrun ctl` commands, and how they run.

use clap::Args;

use crate::control::client::Client;
use crate::spec::VmName;

use super::super::failure::Failure;
use super::super::output::Output;

/// A command of `vmrun ctl`, with its arguments as fields.
pub(super) trait Verb: Args {
    /// The first line of its help page.
    const ABOUT: &'static str;
    /// Without a running VM, the one that has just ended is used.
    const AFTER_THE_END: bool = false;

    /// Handles what needs no VM, and refuses invalid arguments; `None`: continue with the VM.
    fn without_vm(&self, _output: Output) -> Option<Result<u8, Failure>> {
        None
    }

    /// Runs it; returns the program's exit code.
    fn run(self, context: &mut Context) -> Result<u8, Failure>;
}

/// The context of every command.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) output: Output,
}

/// Runs one command against its VM.
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
