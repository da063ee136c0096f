//! `vmrun templates`: what is in the cache of templates, and removing it.

use std::time::UNIX_EPOCH;

use serde::Serialize;

use crate::host::template_cache::{Cached, TemplateCache};
use crate::vm::template_source;

use super::args::{TemplatesArgs, TemplatesCommand};
use super::ended::when;
use super::failure::Failure;
use super::output::{Lines, Output, bytes, table};
use super::waiting::Progress;

/// One template.
#[derive(Debug, Serialize)]
struct Row {
    key: String,
    /// The image or kernel that was booted.
    source: Option<String>,
    /// It cannot be read, and goes with the next start that would use it.
    damaged: bool,
    disk_bytes: u64,
    last_used_unix_ms: u64,
    forks: usize,
    path: String,
}

impl Row {
    fn of(cached: &Cached) -> Self {
        let used = cached.last_used.duration_since(UNIX_EPOCH).unwrap_or_default();
        let source = template_source(&cached.path);
        Self {
            key: cached.key.clone(),
            damaged: source.is_err(),
            source: source.ok().flatten().map(|path| path.display().to_string()),
            disk_bytes: cached.disk_bytes,
            last_used_unix_ms: u64::try_from(used.as_millis()).unwrap_or(u64::MAX),
            forks: cached.forks(),
            path: cached.path.display().to_string(),
        }
    }
}

/// Lists the templates, or removes those that no VM uses.
pub(super) fn run(args: &TemplatesArgs) -> Result<u8, Failure> {
    let cache = TemplateCache::existing().map_err(Failure::other)?;
    let output = Output { json: args.json };
    let Some(TemplatesCommand::Prune(limits)) = &args.command else {
        let rows: Vec<Row> =
            cache.iter().flat_map(TemplateCache::list).map(|cached| Row::of(&cached)).collect();
        return output.print(&rows, || as_table(&rows));
    };
    let (most, older_than) = match limits.all {
        true => (Some(0), None),
        false => (limits.max_size.map(|size| size.bytes()), limits.older_than),
    };
    let progress = Progress::new("removing templates");
    let gone = cache.map(|cache| cache.prune(most, older_than)).unwrap_or_default();
    drop(progress);
    let rows: Vec<Row> = gone.iter().map(Row::of).collect();
    let freed: u64 = gone.iter().map(|cached| cached.disk_bytes).sum();
    output.print(&rows, || format!("{} removed, {} freed", rows.len(), bytes(freed)))
}

fn as_table(rows: &[Row]) -> Lines {
    let cells = rows.iter().map(|row| {
        [
            row.key.clone(),
            if row.damaged { "damaged".to_owned() } else { row.source.clone().unwrap_or_default() },
            bytes(row.disk_bytes),
            when(row.last_used_unix_ms),
            row.forks.to_string(),
        ]
    });
    table(["KEY", "FROM", "ON DISK", "LAST USED", "FORKS"], cells)
}
