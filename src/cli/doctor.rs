//! `vmrun doctor`.

use crate::host::doctor::{Finding, Verdict, examine};

use super::args::DoctorArgs;
use super::failure::Failure;
use super::output::Output;

/// Tells what is there; fails if no VM can be started.
pub(super) fn run(args: &DoctorArgs) -> Result<u8, Failure> {
    let findings = examine();
    Output { json: args.json }.print(&findings, || findings.iter().map(line).collect())?;
    Ok(u8::from(findings.iter().any(|finding| finding.verdict == Verdict::Bad)))
}

fn line(finding: &Finding) -> String {
    let verdict = match finding.verdict {
        Verdict::Good => "ok",
        Verdict::Limited => "--",
        Verdict::Bad => "no",
    };
    let hint = finding.hint.as_ref().map(|hint| format!("      hint: {hint}\n")).unwrap_or_default();
    format!("{verdict}  {}: {}\n{hint}", finding.what, finding.found)
}
