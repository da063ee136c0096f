//! `vmrun clean`: removes state directories whose images are gone.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::host::dirs::leftover::{self, Leftover};

use super::failure::Failure;
use super::output::{Lines, Output, bytes, table, tell};
use super::waiting::Progress;

/// `vmrun clean`.
#[derive(Debug, Args)]
pub(super) struct CleanArgs {
    /// Folder that is looked into, without those below it
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Remove them; without it they are only listed
    #[arg(long)]
    yes: bool,
    /// Remove also those with disks in them that vmrun has made
    #[arg(long, requires = "yes")]
    disks: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Lists them, and removes them if that is wanted.
pub(super) fn run(args: &CleanArgs) -> Result<u8, Failure> {
    let shown = args.folder.display();
    let found = leftover::find(&args.folder).map_err(|error| Failure::other(format!("{shown}: {error}")))?;
    let goes = |one: &Leftover| args.yes && (args.disks || one.disks.is_empty());
    let rows = found.iter().map(|one| {
        let state = if goes(one) { "removed" } else { "kept" };
        (one.path().display().to_string(), one.size_bytes, one.disks.clone(), state)
    });
    let rows: Vec<(String, u64, Vec<String>, &str)> = rows.collect();
    let facts: Vec<_> = rows
        .iter()
        .map(|(path, size, disks, state)| {
            json!({ "directory": path, "size_bytes": size, "disks": disks, "state": state })
        })
        .collect();
    // before any goes
    Output { json: args.json }.print(&facts, || {
        if rows.is_empty() {
            return Lines::default();
        }
        let cells = rows.iter().map(|(path, size, disks, state)| {
            [path.clone(), bytes(*size), disks.join(" "), (*state).to_owned()]
        });
        table(["STATE DIRECTORY", "SIZE", "DISKS", ""], cells)
    })?;
    if rows.is_empty() && !args.json {
        tell(&format!("vmrun: no state directory without an image is in {shown}"));
    }
    let kept = rows.iter().filter(|(.., state)| *state == "kept").count();
    if kept > 0 && !args.json {
        let how = if args.yes { "`--disks` removes those with disks, too" } else { "`--yes` removes them" };
        tell(&format!("hint: {how}"));
    }
    let _progress = Progress::new("removing state directories");
    for one in found.into_iter().filter(goes) {
        one.remove().map_err(Failure::other)?;
    }
    Ok(0)
}
