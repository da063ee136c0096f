//! `vmrun doctor`.

use crate::host::doctor::{Finding, Verdict, examine};

use super::args::DoctorArgs;
use super::failure::Failure;
use super::output::{Lines, Output};
use super::waiting::Progress;

/// Prints the findings; fails if no VM can be started.
pub(super) fn run(args: &DoctorArgs) -> Result<u8, Failure> {
    let progress = Progress::new("looking at this host");
    let findings = examine();
    drop(progress);
    Output { json: args.json }.print(&findings, || findings.iter().map(lines).collect::<Lines>())?;
    Ok(u8::from(findings.iter().any(|finding| finding.verdict == Verdict::Bad)))
}

fn lines(finding: &Finding) -> Lines {
    let verdict = match finding.verdict {
        Verdict::Good => "ok",
        Verdict::Limited => "--",
        Verdict::Bad => "no",
    };
    let mut lines = Lines::from(format!("{verdict}  {}: {}", finding.what, finding.found));
    if let Some(hint) = &finding.hint {
        lines.push(format!("      hint: {hint}"));
    }
    lines
}
