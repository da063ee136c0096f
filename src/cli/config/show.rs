//! `vmrun config show` and `vmrun config path`.

use clap::{ArgAction, Args, CommandFactory, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::args::Cli;
use super::super::failure::Failure;
use super::super::output::{Output, table};
use super::arguments::{load, older};
use super::defaults::{Default, Origin};
use super::file::{Environment, VARIABLE};
use super::key::{self, Key};
use super::variables;

/// `vmrun config`.
#[derive(Debug, Args)]
#[command(
    after_help = "The file has a table for each command and a key for each flag, such as `[qemu]` and then `mem = \"2G\"`, or \
    `[ctl.wait]` and then `timeout = \"10m\"`. The variable of a key is VMRUN_ and its name in capitals: VMRUN_QEMU_MEM. The \
    command line stands above variables, and variables above the file."
)]
pub(in crate::cli) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
    /// Print JSON
    #[arg(long, global = true)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// List all flags that can have a default, with its value and where that comes from
    Show,
    /// Print where the configuration file is, or would be
    Path,
}

/// One flag.
#[derive(Debug, Serialize)]
struct Row {
    key: String,
    /// A text, a truth value, a list of texts, or nothing.
    value: Value,
    /// `built-in`, `file` or `variable`.
    source: &'static str,
    /// `FILE:LINE` or the variable.
    place: Option<String>,
    /// The variable that would set it.
    variable: String,
}

/// Runs it.
pub(in crate::cli) fn run(args: &ConfigArgs) -> Result<u8, Failure> {
    let output = Output { json: args.json };
    let place = Environment::from_env().place();
    if matches!(args.command, ConfigCommand::Path) {
        let Some(place) = place else {
            let why = match std::env::var_os(VARIABLE) {
                Some(_) => format!("${VARIABLE} is empty"),
                None => "there is no home directory, and $XDG_CONFIG_HOME is not set".to_owned(),
            };
            return Err(Failure::other(format!("no configuration file is read: {why}")));
        };
        let path = place.path.display().to_string();
        return output.print(&json!({ "path": path, "exists": place.path.exists() }), || path.clone());
    }
    let mut grammar = Cli::command();
    grammar.build();
    let keys = key::all(&grammar);
    let variables = variables::from_env();
    let set = load(place.as_ref(), &variables, &grammar, &keys)?;
    let rows: Vec<Row> = keys
        .iter()
        .map(|key| match (set.iter().find(|set| set.key.name() == key.name()), older(key)) {
            (Some(set), _) => given(set),
            (None, Some(variable)) => {
                let value = std::env::var(variable).unwrap_or_default();
                Row {
                    value: value.into(),
                    source: "variable",
                    place: Some(variable.to_owned()),
                    ..built_in(key)
                }
            }
            (None, None) => built_in(key),
        })
        .collect();
    output.print(&rows, || {
        let cells = rows.iter().map(|row| {
            [row.key.clone(), shown(&row.value), row.place.clone().unwrap_or_else(|| row.source.to_owned())]
        });
        table(["KEY", "VALUE", "FROM"], cells)
    })
}

fn given(set: &Default) -> Row {
    let value = match &set.values[..] {
        values if set.key.is_list() => json!(values),
        [one] if set.key.is_switch() => json!(one == "true"),
        [one, ..] => json!(one),
        [] => Value::Null,
    };
    let (source, place) = match &set.origin {
        Origin::File(..) => ("file", set.origin.to_string()),
        Origin::Variable(name) => ("variable", name.clone()),
    };
    Row { value, source, place: Some(place), ..built_in(&set.key) }
}

fn built_in(key: &Key) -> Row {
    let defaults: Vec<String> =
        key.argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let value = match (key.argument.get_action(), defaults.first()) {
        (ArgAction::SetTrue, _) => json!(false),
        (ArgAction::Append, _) => json!(defaults),
        (_, Some(default)) => json!(default),
        (_, None) => Value::Null,
    };
    Row { key: key.name(), value, source: "built-in", place: None, variable: key.variable() }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
