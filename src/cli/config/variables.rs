//! `VMRUN_COMMAND_FLAG`: a default from the environment.

use std::ffi::OsString;

use super::super::failure::Failure;
use super::super::help;
use super::defaults::{Default, Origin};
use super::file::meant;
use super::key::Key;

/// What all of them begin with.
const PREFIX: &str = "VMRUN_";

/// What the environment says.
#[derive(Debug, std::default::Default)]
pub(super) struct Found {
    pub(super) defaults: Vec<Default>,
    /// Names that look like mistyped ones, with what was meant.
    pub(super) slips: Vec<(String, String)>,
}

/// The variables of this process that could be meant: those with another meaning are none of them.
pub(super) fn from_env() -> Vec<(String, OsString)> {
    let all = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let could_be =
        |name: &str| name.starts_with(PREFIX) && help::VARIABLES.iter().all(|(other, _)| *other != name);
    all.filter(|(name, value)| could_be(name) && !value.is_empty()).collect()
}

/// The defaults that they give.
///
/// # Errors
/// A value does not fit.
pub(super) fn parse(variables: &[(String, OsString)], keys: &[Key]) -> Result<Found, Failure> {
    let mut found = Found::default();
    for (name, value) in variables {
        let Some(key) = keys.iter().find(|key| key.variable() == *name) else {
            // one of another program, or of a script: only a slip is told of
            let slip = keys.iter().find_map(|key| {
                let flag = name.strip_prefix(&key.variable()[..key.variable().len() - key.flag.len()])?;
                meant(&format!("{}.{}", key.command.join("."), flag.to_lowercase().replace('_', "-")), keys)
            });
            let slip = slip.and_then(|near| keys.iter().find(|key| key.name() == near)).map(Key::variable);
            found.slips.extend(slip.map(|near| (name.clone(), near)));
            continue;
        };
        let origin = Origin::Variable(name.clone());
        let failure = |why: &str| Failure::usage(format!("{origin}: {why}"));
        let text = value.to_str().ok_or_else(|| failure("it is not UTF-8 text"))?;
        found.defaults.push(Default::checked(key.clone(), values(key, text).map_err(failure)?, origin)?);
    }
    Ok(found)
}

/// A list is written as words of a shell.
fn values(key: &Key, text: &str) -> Result<Vec<String>, &'static str> {
    if key.is_list() {
        return shlex::split(text).ok_or("its quotes are not closed: it is a list of words as in a shell");
    }
    Ok(vec![match (key.is_switch(), text) {
        (true, "1") => "true".to_owned(),
        (true, "0") => "false".to_owned(),
        _ => text.to_owned(),
    }])
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::super::args::Cli;
    use super::super::key;
    use super::*;

    fn parsed(pairs: &[(&str, &str)]) -> Result<(Vec<String>, Vec<String>), String> {
        let mut grammar = Cli::command();
        grammar.build();
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        let found = parse(&pairs, &key::all(&grammar)).map_err(|failure| failure.message)?;
        let words = found.defaults.iter().map(|default| default.words().join(" ")).collect();
        Ok((words, found.slips.into_iter().map(|(_, near)| near).collect()))
    }

    #[test]
    fn a_variable_gives_what_the_file_would() {
        let (words, doubtful) = parsed(&[
            ("VMRUN_QEMU_MEM", "2G"),
            ("VMRUN_QEMU_PUBLISH", "0:22 '0:80'"),
            ("VMRUN_QEMU_UEFI", "1"),
            ("VMRUN_QEMU_USB", "false"),
            ("VMRUN_CTL_DISK_REMOVE_TIMEOUT", "1m"),
            // of others
            ("VMRUN_VM", "x"),
            ("VMRUN_RUNTIME_DIR", "/x"),
            ("VMRUN_TEST_GUEST", "/x"),
            ("VMRUN_QEMU_IMAGE_FOLDER", "/x"),
        ])
        .unwrap();
        assert_eq!(words, ["--mem=2G", "--publish=0:22 --publish=0:80", "--uefi", "", "--timeout=1m"]);
        assert!(doubtful.is_empty(), "{doubtful:?}");
        assert_eq!(parsed(&[("VMRUN_QEMU_MEMM", "2G")]).unwrap().1, ["VMRUN_QEMU_MEM"]);
    }

    #[test]
    fn a_value_that_does_not_fit_names_the_variable() {
        for (name, value, why) in [
            ("VMRUN_QEMU_MEM", "much", "$VMRUN_QEMU_MEM: qemu.mem: --mem"),
            ("VMRUN_QEMU_UEFI", "yes", "$VMRUN_QEMU_UEFI: qemu.uefi: it is true or false"),
            ("VMRUN_QEMU_PUBLISH", "'0:22", "$VMRUN_QEMU_PUBLISH: its quotes are not closed"),
        ] {
            let told = parsed(&[(name, value)]).unwrap_err();
            assert!(told.starts_with(why), "{told}");
        }
    }
}
