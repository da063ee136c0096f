//! `make bench`: what vmrun costs, measured beside QEMU itself, libvirt and linuxkit's command line.
//!
//! Not criterion: what is timed are whole processes that live from milliseconds to seconds, beside a peer, in turn, so that a
//! machine that gets slower gets slower for both; and what counts is their ratio. `docs/performance.md` explains each figure.
//!
//! `cargo bench --bench peers -- NAME…` measures only the figures with these names.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod boot;
mod calls;
mod console;
mod crowd;
mod ctl;
mod disk;
mod end;
mod figures;
mod fork;
mod idle;
mod libvirt;
mod limits;
mod line;
mod linuxkit;
mod machine;
mod many_forks;
mod measure;
mod qemu;
mod report;
mod start;
#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code)]
mod support;
mod weight;

use std::process::ExitCode;
use std::time::Instant;

use report::Report;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs benchmarks, too, without this
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut report = Report::default();
    for (name, figure) in figures::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| *wanted == name) {
            continue;
        }
        let begun = Instant::now();
        eprint!("bench: {name} …");
        report.add(name, &figure);
        eprintln!(" {:.0} s", begun.elapsed().as_secs_f64());
    }
    print!("{}", report.table());
    match report.write() {
        Ok(path) => eprintln!("bench: written to {}", path.display()),
        Err(error) => {
            eprintln!("bench: the report could not be written: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::from(u8::from(report.failed()))
}
