//! Arguments whose clap definition is built when their command was recognised.
//!
//! There are some fifty commands with two hundred flags. Building all of them takes longer than everything else in a `vmrun ctl
//! status`, which needs one.

use clap::builder::Resettable;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Id};

/// A command's arguments; otherwise the same as `T`.
#[derive(Debug)]
pub(super) struct Lazy<T>(pub(super) T);

impl<T: FromArgMatches> FromArgMatches for Lazy<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }

    fn update_from_arg_matches_mut(&mut self, matches: &mut ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches_mut(matches)
    }
}

impl<T: Args> Args for Lazy<T> {
    fn group_id() -> Option<Id> {
        T::group_id()
    }

    fn augment_args(command: Command) -> Command {
        command.defer(|command| described(command, T::augment_args))
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(|command| described(command, T::augment_args_for_update))
    }
}

/// The description of the command, not of the type of its arguments.
fn described(command: Command, grammar: impl FnOnce(Command) -> Command) -> Command {
    let (about, long) = (command.get_about().cloned(), command.get_long_about().cloned());
    grammar(command).about(Resettable::from(about)).long_about(Resettable::from(long))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::args::Cli;

    #[test]
    fn the_whole_grammar_is_sound_and_each_command_has_its_own_description() {
        Cli::command().debug_assert();
        let mut grammar = Cli::command();
        grammar.build();
        let ctl = grammar.find_subcommand("ctl").unwrap();
        assert_eq!(ctl.get_about().unwrap().to_string(), "Show and change a running VM");
        let add = ctl.find_subcommand("usb-add").unwrap();
        assert_eq!(add.get_about().unwrap().to_string(), "Plug a USB device");
        assert!(add.get_arguments().any(|argument| argument.get_long() == Some("id")));
    }
}
