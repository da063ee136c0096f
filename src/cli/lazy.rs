//! A grammar that is made only where it is used.
//!
//! There are some fifty commands with two hundred flags. To make the grammar of all of them takes longer than everything else that a
//! `vmrun ctl status` does, and it needs one. So the arguments of a command are described when it has been recognised, and a group of
//! commands of which the command line has no word is left out, until something is to be said about all commands.

use std::cell::RefCell;
use std::ffi::OsString;

use clap::builder::Resettable;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Id, Subcommand};

/// A command's arguments, or a group of commands; in all other respects as `T`.
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

impl<T: Subcommand> Subcommand for Lazy<T> {
    fn augment_subcommands(command: Command) -> Command {
        if is_left_out(T::has_subcommand) { command } else { T::augment_subcommands(command) }
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        T::augment_subcommands_for_update(command)
    }

    fn has_subcommand(name: &str) -> bool {
        T::has_subcommand(name)
    }
}

/// What the grammar is to be good for.
struct Words {
    words: Vec<OsString>,
    /// Some group was not among them.
    left_out: bool,
}

thread_local! {
    /// None: for everything. Beside clap's traits, since they give a group nothing to go by.
    static WORDS: RefCell<Option<Words>> = const { RefCell::new(None) };
}

/// Does something with a grammar that need only be good for these words. What succeeds so would have come out the same with the
/// whole grammar: the words that decide are in both. `None` = a group was left out, and it did not succeed.
pub(super) fn for_words<T, E>(
    words: &[OsString],
    parse: impl FnOnce() -> Result<T, E>,
) -> Option<Result<T, E>> {
    WORDS.set(Some(Words { words: words.to_vec(), left_out: false }));
    let result = parse();
    let left_out = WORDS.take().is_some_and(|words| words.left_out);
    (result.is_ok() || !left_out).then_some(result)
}

fn is_left_out(has_subcommand: fn(&str) -> bool) -> bool {
    WORDS.with_borrow_mut(|words| {
        let Some(Words { words, left_out }) = words else { return false };
        let named = words.iter().filter_map(|word| word.to_str()).any(has_subcommand);
        *left_out |= !named;
        !named
    })
}

/// The description is that of the command, not that of the type of its arguments.
fn described(command: Command, grammar: impl FnOnce(Command) -> Command) -> Command {
    let (about, long) = (command.get_about().cloned(), command.get_long_about().cloned());
    grammar(command).about(Resettable::from(about)).long_about(Resettable::from(long))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::args::Cli;
    use super::for_words;

    fn commands_for(words: &[&str]) -> (Vec<String>, Option<bool>) {
        let words: Vec<_> = words.iter().map(Into::into).collect();
        let mut commands = Vec::new();
        let parsed = for_words(&words, || {
            let mut grammar = Cli::command();
            grammar.build();
            let ctl = grammar.find_subcommand("ctl").unwrap();
            commands = ctl.get_subcommands().map(|command| command.get_name().to_owned()).collect();
            Cli::try_parse_from(&words)
        });
        (commands, parsed.map(|parsed| parsed.is_ok()))
    }

    #[test]
    fn groups_without_a_word_of_theirs_are_left_out_until_something_is_wrong() {
        let (commands, parsed) = commands_for(&["vmrun", "ctl", "--vm", "pause", "usb-add", "usb-kbd"]);
        assert_eq!(parsed, Some(true));
        assert!(["usb-add", "usb-list", "pause"].iter().all(|name| commands.iter().any(|it| it == name)));
        assert!(!commands.iter().any(|name| name == "disk-add"));
        for wrong in
            [&["vmrun", "ctl", "usb-ad", "a"][..], &["vmrun", "ctl", "usb-add"], &["vmrun", "ctl", "--help"]]
        {
            assert_eq!(commands_for(wrong).1, None);
        }
        // outside the words count for nothing
        assert!(Cli::try_parse_from(["vmrun", "ctl", "hmp", "info"]).is_ok());
    }

    #[test]
    fn what_leaves_no_group_out_is_final() {
        let parsed = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(Into::into).collect();
            for_words(&words, || Cli::try_parse_from(&words)).map(|parsed| parsed.is_ok())
        };
        assert_eq!(parsed(&["vmrun", "--help"]), Some(false));
        assert_eq!(parsed(&["vmrun", "ls"]), Some(true));
    }

    #[test]
    fn the_whole_grammar_is_sound_and_each_command_has_its_own_description() {
        Cli::command().debug_assert();
        let mut grammar = Cli::command();
        grammar.build();
        let ctl = grammar.find_subcommand("ctl").unwrap();
        assert_eq!(ctl.get_about().unwrap().to_string(), "See and change a running VM");
        let add = ctl.find_subcommand("usb-add").unwrap();
        assert_eq!(add.get_about().unwrap().to_string(), "Plug a USB device");
        assert!(add.get_arguments().any(|argument| argument.get_long() == Some("id")));
    }
}
