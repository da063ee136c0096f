//! The table and `target/bench.json`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::figures::Figure;
use super::machine;
use super::measure::Series;

/// What is wanted of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// It is there to be known.
    None,
    /// No more than this, whatever others need.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
    /// No more than this above the other.
    AtMostMore(f64),
    /// No longer than this many times the other.
    TimesTheTime(f64),
    /// This many times faster than the other: what is measured is a time.
    TimesFaster(f64),
    /// This many times as much as the other: what is measured is a rate.
    TimesTheRate(f64),
}

/// Beside whom.
#[derive(Debug, Clone)]
pub(crate) enum Beside {
    Nobody,
    /// Its name and what was measured of it.
    Peer(&'static str, Series),
    /// One that is not installed.
    Missing(&'static str),
}

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) figure: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: Series,
    pub(crate) beside: Beside,
    pub(crate) goal: Goal,
}

impl Row {
    pub(crate) fn new(figure: &str, unit: &'static str, ours: &Series, beside: Beside, goal: Goal) -> Self {
        Self { figure: figure.to_owned(), unit, ours: ours.clone(), beside, goal }
    }

    fn theirs(&self) -> Option<f64> {
        match &self.beside {
            Beside::Peer(_, series) => Some(series.median()),
            Beside::Nobody | Beside::Missing(_) => None,
        }
    }

    /// The ratio that the goal is about; with a goal about times that are to be short, how many times faster we are.
    fn ratio(&self) -> Option<f64> {
        let (ours, theirs) = (self.ours.median(), self.theirs().filter(|theirs| *theirs != 0.0)?);
        Some(match self.goal {
            Goal::TimesFaster(_) => theirs / ours,
            _ => ours / theirs,
        })
    }

    /// None without the peer that it takes.
    fn met(&self) -> Option<bool> {
        let ours = self.ours.median();
        Some(match self.goal {
            Goal::None => return None,
            Goal::AtMost(most) => ours <= most,
            Goal::AtLeast(least) => ours >= least,
            Goal::AtMostMore(most) => ours - self.theirs()? <= most,
            Goal::TimesTheTime(most) => self.ratio()? <= most,
            Goal::TimesFaster(least) | Goal::TimesTheRate(least) => self.ratio()? >= least,
        })
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::None => "–".to_owned(),
            Goal::AtMost(most) => format!("≤ {} {}", number(most), self.unit),
            Goal::AtLeast(least) => format!("≥ {} {}", number(least), self.unit),
            Goal::AtMostMore(most) => format!("≤ +{} {}", number(most), self.unit),
            Goal::TimesTheTime(most) => format!("≤ {} ×", number(most)),
            Goal::TimesFaster(least) => format!("≥ {} × faster", number(least)),
            Goal::TimesTheRate(least) => format!("≥ {} ×", number(least)),
        }
    }

    fn cells(&self) -> [String; 7] {
        let (name, theirs) = match &self.beside {
            Beside::Nobody => ("–", "–".to_owned()),
            Beside::Peer(name, series) => (*name, value(series, self.unit)),
            Beside::Missing(name) => (*name, "not installed".to_owned()),
        };
        let met = self.met().map_or("–", |met| if met { "yes" } else { "NO" });
        let ratio = self.ratio().map_or("–".to_owned(), number);
        [
            self.figure.clone(),
            value(&self.ours, self.unit),
            name.to_owned(),
            theirs,
            ratio,
            self.goal(),
            met.to_owned(),
        ]
    }

    fn json(&self) -> Value {
        let (peer, theirs) = match &self.beside {
            Beside::Nobody => (Value::Null, Value::Null),
            Beside::Peer(name, series) => (json!(name), measured(series)),
            Beside::Missing(name) => (json!(name), json!("not installed")),
        };
        json!({
            "figure": self.figure, "unit": self.unit, "ours": measured(&self.ours), "peer": peer, "theirs": theirs,
            "ratio": self.ratio(), "goal": self.goal(), "met": self.met(),
        })
    }
}

fn measured(series: &Series) -> Value {
    let (low, high) = series.spread();
    json!({ "median": series.median(), "half_within": [low, high], "runs": series.runs() })
}

/// Three digits, and no more than there are.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        below if below < 0.995 => 3,
        below if below < 9.95 => 2,
        below if below < 99.5 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn value(series: &Series, unit: &str) -> String {
    let (low, high) = series.spread();
    match series.runs() {
        1 => format!("{} {unit}", number(series.median())),
        _ => format!("{} {unit} ({}…{})", number(series.median()), number(low), number(high)),
    }
}

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    /// Figures that could not be measured, and why.
    failures: Vec<(String, String)>,
}

impl Report {
    /// Measures; one figure that cannot be measured does not take the others with it.
    pub(crate) fn add(&mut self, name: &str, figure: &Figure) {
        match catch_unwind(AssertUnwindSafe(figure)) {
            Ok(rows) => self.rows.extend(rows),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let why = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
                self.failures.push((name.to_owned(), why.to_owned()));
            }
        }
    }

    pub(crate) fn failed(&self) -> bool {
        !self.failures.is_empty()
    }

    pub(crate) fn table(&self) -> String {
        let heads = ["figure", "vmrun", "beside", "limit or peer", "ratio", "goal", "met"].map(str::to_owned);
        let rows: Vec<[String; 7]> = std::iter::once(heads).chain(self.rows.iter().map(Row::cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 7] = std::array::from_fn(width);
        let mut text = String::new();
        for (number, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!(" {cell:width$} "));
            text += &format!("|{}|\n", cells.collect::<Vec<_>>().join("|"));
            if number == 0 {
                text += &format!("|{}|\n", widths.map(|width| "-".repeat(width + 2)).join("|"));
            }
        }
        for (name, why) in &self.failures {
            text += &format!("{name} could not be measured: {why}\n");
        }
        text
    }

    pub(crate) fn write(&self) -> std::io::Result<PathBuf> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"));
        let path = target.join("bench.json");
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let failures: Vec<Value> =
            self.failures.iter().map(|(figure, why)| json!({ "figure": figure, "why": why })).collect();
        let all = json!({ "machine": machine::description(), "rows": rows, "failures": failures });
        std::fs::create_dir_all(&target)?;
        std::fs::write(&path, format!("{all:#}\n"))?;
        Ok(path)
    }
}
