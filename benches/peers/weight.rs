//! The program itself.

use std::collections::HashSet;
use std::process::Command;

use super::measure::{RUNS, Series, in_turn, time_of};
use super::report::{Beside, Goal, Row};

const VMRUN: &str = env!("CARGO_BIN_EXE_vmrun");

/// What it takes to do nothing.
pub(crate) fn starts() -> Vec<Row> {
    let mut version = || time_of(Command::new(VMRUN).arg("--version"));
    let mut help = || time_of(Command::new(VMRUN).arg("--help"));
    let mut nothing = || time_of(&mut Command::new("true"));
    let [version, help, nothing] = in_turn(10 * RUNS, [&mut version, &mut help, &mut nothing]);
    let beside = Beside::Peer("true", nothing);
    vec![
        Row::new("vmrun --version", "ms", &version, beside.clone(), Goal::AtMost(2.0)),
        Row::new("vmrun --help", "ms", &help, beside, Goal::AtMost(2.0)),
    ]
}

/// How large it is.
pub(crate) fn rows() -> Vec<Row> {
    let size = std::fs::metadata(VMRUN).unwrap().len() as f64 / f64::from(1 << 20);
    let size = Series::exactly(size);
    let crates = Series::exactly(crates());
    vec![
        Row::new("program, stripped", "MiB", &size, Beside::Nobody, Goal::AtMost(4.0)),
        Row::new("crates in it", "", &crates, Beside::Nobody, Goal::None),
    ]
}

fn crates() -> f64 {
    let arguments = ["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().collect::<HashSet<_>>().len() as f64
}
