//! `config.toml`: a table for each command, a key for each flag.
//!
//! ```toml
//! [qemu]
//! mem = "2G"
//! publish = ["0:22"]
//!
//! [ctl.wait]
//! timeout = "10m"
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Command;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::host::dirs::read_trusted;
use crate::vm::ErrorChain;

use super::super::failure::Failure;
use super::defaults::{Default, Origin};
use super::key::{self, Key};

/// Another file, or none if it is empty.
pub(super) const VARIABLE: &str = "VMRUN_CONFIG";
/// How alike (Jaro–Winkler, 0 to 1) a key must be to be suggested.
const ALIKE: f64 = 0.8;

/// Where the file is, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// The user has named it: it must be there.
    named: bool,
}

impl Place {
    /// The user has named this file.
    pub(super) fn is_named(&self) -> bool {
        self.named
    }
}

/// What decides where the file is.
pub(super) struct Environment {
    pub(super) own: Option<OsString>,
    pub(super) xdg_config_home: Option<OsString>,
    pub(super) home: Option<PathBuf>,
}

impl Environment {
    pub(super) fn from_env() -> Self {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        Self { own: std::env::var_os(VARIABLE), xdg_config_home: std::env::var_os("XDG_CONFIG_HOME"), home }
    }

    /// `None`: there is none, by the user's word or for lack of a home.
    pub(super) fn place(&self) -> Option<Place> {
        if let Some(own) = &self.own {
            return (!own.is_empty()).then(|| Place { path: own.into(), named: true });
        }
        let given = self.xdg_config_home.as_ref().map(PathBuf::from).filter(|given| given.is_absolute());
        let folder =
            given.or_else(|| Some(self.home.as_ref().filter(|home| home.is_absolute())?.join(".config")))?;
        Some(Place { path: folder.join("vmrun/config.toml"), named: false })
    }
}

/// The text of the file; `None` if there is none.
pub(super) fn read(place: &Place) -> Result<Option<String>, Failure> {
    let unset = format!("`{VARIABLE}=` goes without it");
    let text = read_trusted(&place.path, "configuration file").map_err(|error| {
        let hint = error.hint().map_or_else(|| unset.clone(), |hint| format!("{hint}; {unset}"));
        Failure::usage(error.with_causes()).hint(Some(hint))
    })?;
    match (text, place.named) {
        (None, true) => {
            Err(Failure::usage(format!("${VARIABLE}: there is no file {}", place.path.display())))
        }
        (text, _) => Ok(text),
    }
}

/// The defaults of a file, in its order.
pub(super) fn parse(text: &str, path: &Path, grammar: &Command) -> Result<Vec<Default>, Failure> {
    let line = |at: usize| text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
    let at = |position: usize| Origin::File(path.to_owned(), line(position));
    let root = DeTable::parse(text).map_err(|error| {
        let position = error.span().map_or(0, |span| span.start);
        Failure::usage(format!("{}: {}", at(position), error.message().replace('\n', ", ")))
    })?;
    let keys = key::all(grammar);
    let mut found = Vec::new();
    walk(root.get_ref(), &mut Vec::new(), &mut |name, position, value| {
        let origin = at(position);
        let Some(key) = keys.iter().find(|key| key.name() == name) else {
            return Err(unknown(name, &origin, &keys, grammar));
        };
        let values = values(key, value).map_err(|why| Failure::usage(format!("{origin}: {name}: {why}")))?;
        found.push(Default::checked(key.clone(), values, origin)?);
        Ok(())
    })?;
    // a map has no order
    found.sort_by_key(|default| match &default.origin {
        Origin::File(_, line) => *line,
        Origin::Variable(_) => 0,
    });
    Ok(found)
}

type Visit<'a> = dyn FnMut(&str, usize, &DeValue<'_>) -> Result<(), Failure> + 'a;

/// Calls `see` with each key's full name.
fn walk(table: &DeTable<'_>, path: &mut Vec<String>, see: &mut Visit<'_>) -> Result<(), Failure> {
    // in the order of the file: the first error is the one that is told
    let mut entries: Vec<(&Spanned<_>, &Spanned<DeValue<'_>>)> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in entries {
        path.push(name.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(below) => walk(below, path, see)?,
            other => see(&path.join("."), name.span().start, other)?,
        }
        path.pop();
    }
    Ok(())
}

fn unknown(name: &str, origin: &Origin, keys: &[Key], grammar: &Command) -> Failure {
    if let Some(reason) = key::refusal(grammar, name) {
        let flag = name.rsplit('.').next().unwrap_or(name);
        return Failure::usage(format!("{origin}: {name}: --{flag} can have no default: {reason}"));
    }
    let nearest = meant(name, keys).map(|near| format!("did you mean {near}?"));
    let hint = nearest.unwrap_or_else(|| "`vmrun config show` lists the keys".to_owned());
    Failure::usage(format!("{origin}: there is no key {name}")).hint(Some(hint))
}

/// The key that was meant by a name: another flag of its command, or the same flag of a command.
pub(super) fn meant(name: &str, keys: &[Key]) -> Option<String> {
    let (command, flag) = name.rsplit_once('.').unwrap_or(("", name));
    let mut of_command = keys.iter().filter(|key| key.command.join(".") == command).peekable();
    let key = match of_command.peek() {
        Some(_) => nearest(flag, of_command.map(|key| (key.flag.clone(), key))),
        None if command.is_empty() => keys.iter().find(|key| key.flag == flag),
        None => {
            let same_flag = keys.iter().filter(|key| key.flag == flag);
            nearest(command, same_flag.map(|key| (key.command.join("."), key)))
        }
    };
    key.map(Key::name)
}

/// What has the name that is most like another, if it is like it at all.
fn nearest<T>(name: &str, known: impl Iterator<Item = (String, T)>) -> Option<T> {
    let scored = known.map(|(known, what)| (strsim::jaro_winkler(name, &known), what));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| *score >= ALIKE).map(|(_, what)| what)
}

/// The values as words.
fn values(key: &Key, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::Array(all) if key.is_list() => all.iter().map(|one| word(key, one.get_ref())).collect(),
        other => Ok(vec![word(key, other)?]),
    }
}

fn word(key: &Key, value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) if !key.is_switch() => Ok(text.to_string()),
        DeValue::Integer(number) if !key.is_switch() && number.radix() == 10 => {
            Ok(number.as_str().to_owned())
        }
        DeValue::Boolean(truth) if key.is_switch() => Ok(truth.to_string()),
        _ => Err(match (key.is_switch(), key.is_list()) {
            (true, _) => "it is true or false, without quotes".to_owned(),
            (_, true) => "it is a text, or a list of texts".to_owned(),
            _ => "it is a text or a whole number".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::super::args::Cli;
    use super::*;

    fn parsed(text: &str) -> Result<Vec<String>, String> {
        let mut grammar = Cli::command();
        grammar.build();
        let found = parse(text, Path::new("c.toml"), &grammar).map_err(|failure| {
            assert_eq!(failure.exit_code, 2, "{text}");
            format!("{} | {}", failure.message, failure.hint.unwrap_or_default())
        })?;
        Ok(found
            .iter()
            .map(|default| format!("{} {} {}", default.origin, default.key.name(), default.words().join(" ")))
            .collect())
    }

    #[test]
    fn each_kind_of_value_becomes_words() {
        let text = "[qemu]\nmem = \"2G\"\ncpus = 2\npublish = [\n  \"0:22\",\n  \"0:80\"]\nuefi = true\nusb = false\nverbose = 2\n\
                    [ctl.wait]\ntimeout = \"10m\"\n[run]\nvirtiofs = \"/srv\"\n";
        assert_eq!(
            parsed(text).unwrap(),
            [
                "c.toml:2 qemu.mem --mem=2G",
                "c.toml:3 qemu.cpus --cpus=2",
                "c.toml:4 qemu.publish --publish=0:22 --publish=0:80",
                "c.toml:7 qemu.uefi --uefi",
                "c.toml:8 qemu.usb ",
                "c.toml:9 qemu.verbose --verbose --verbose",
                "c.toml:11 ctl.wait.timeout --timeout=10m",
                "c.toml:13 run.virtiofs --virtiofs=/srv",
            ]
        );
        assert_eq!(parsed("qemu.mem = 512").unwrap(), ["c.toml:1 qemu.mem --mem=512"]);
        assert!(parsed("").unwrap().is_empty() && parsed("# nothing\n[qemu]\n").unwrap().is_empty());
    }

    #[test]
    fn an_error_names_the_line_and_what_was_meant() {
        let texts = [
            "[qemu]\n\nmemm = \"2G\"",
            "[qmu]\nmem = \"2G\"",
            "[qemu]\nzzz = 1",
            "mem = 1",
            "[qemu]\nmem = \"much\"",
            "[qemu]\nmem = 1.5",
            "[qemu]\nmem = [\"1G\"]",
            "[qemu]\ncpus = 0",
            "[qemu]\ncpus = 0x2",
            "[qemu]\nuefi = \"true\"",
            "[qemu]\nverbose = -1",
            "[qemu]\npublish = [\"0:22\", \"x\"]",
            "[qemu]\npublish = [[1]]",
            "[qemu]\ndetached = true",
            "[qemu]\nname = \"x\"",
            "[ctl.status]\njson = true",
            "[ctl.disk-remove]\nforce = true",
            "[qemu]\nmem = \"1G\"\nmem = \"2G\"",
            "[qemu\nmem = 1",
            "[ls]\nall = true",
        ];
        let told: Vec<String> = texts.iter().map(|text| parsed(text).expect_err(text)).collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn the_file_is_where_the_variables_say() {
        let place = |own: Option<&str>, xdg: Option<&str>, home: Option<&str>| {
            let environment = Environment {
                own: own.map(Into::into),
                xdg_config_home: xdg.map(Into::into),
                home: home.map(Into::into),
            };
            environment.place().map(|place| place.path.display().to_string())
        };
        assert_eq!(place(None, None, Some("/h")).unwrap(), "/h/.config/vmrun/config.toml");
        assert_eq!(place(None, Some("/x"), Some("/h")).unwrap(), "/x/vmrun/config.toml");
        // relative ones do not count, as the XDG specification says
        assert_eq!(place(None, Some("x"), Some("/h")).unwrap(), "/h/.config/vmrun/config.toml");
        assert_eq!(place(Some("c"), Some("/x"), None).unwrap(), "c");
        assert_eq!(place(Some(""), Some("/x"), Some("/h")), None);
        assert_eq!(place(None, None, None), None);
    }
}
