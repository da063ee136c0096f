//! The figures, in the order of the table.

use super::report::Row;
use super::{boot, calls, console, crowd, ctl, disk, end, fork, idle, many_forks, start, weight};

/// Measures one figure, or several that need the same surroundings.
pub(crate) type Figure = fn() -> Vec<Row>;

pub(crate) const ALL: [(&str, Figure); 13] = [
    ("start", start::rows),
    ("ctl", ctl::rows),
    ("calls", calls::rows),
    ("end", end::rows),
    ("idle", idle::rows),
    ("console", console::rows),
    ("boot", boot::rows),
    ("fork", fork::rows),
    ("forks", many_forks::rows),
    ("disk", disk::rows),
    ("crowd", crowd::rows),
    ("program", weight::starts),
    ("weight", weight::rows),
];
