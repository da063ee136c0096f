//! What a command of `vmrun ctl` is, and how any of them runs.

use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Id};

use crate::control::client::Client;
use crate::spec::VmName;

use super::super::failure::Failure;
use super::super::lazy::described;
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

/// A command in the grammar: its description is always there, its arguments are described when the command has been recognised.
#[derive(Debug)]
pub(super) struct Described<V>(pub(super) V);

impl<V: Verb> FromArgMatches for Described<V> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        V::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        V::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }

    fn update_from_arg_matches_mut(&mut self, matches: &mut ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches_mut(matches)
    }
}

impl<V: Verb> Args for Described<V> {
    fn group_id() -> Option<Id> {
        V::group_id()
    }

    fn augment_args(command: Command) -> Command {
        command.about(V::ABOUT).defer(|command| described(command, V::augment_args))
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.about(V::ABOUT).defer(|command| described(command, V::augment_args_for_update))
    }
}
