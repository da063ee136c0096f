//! `vmrun cp`: copies a file into a VM's guest, or out of it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;

use crate::spec::VmName;

use super::super::ctl::{self, AgentArgs, run_command};
use super::super::failure::Failure;
use super::super::output::Output;
use super::super::target::named;

/// `vmrun cp`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CpArgs {
    /// File on this host (- for standard input), or NAME:PATH in a VM's guest
    source: OsString,
    /// File or directory on this host (- for standard output), or NAME:PATH in a VM's guest
    destination: OsString,
    #[command(flatten)]
    agent: AgentArgs,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// A side of the copy.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    Host(PathBuf),
    Guest(VmName, String),
}

/// Copies.
pub(in crate::cli) fn run(args: CpArgs) -> Result<u8, Failure> {
    let output = Output { json: args.json };
    match (side(&args.source)?, side(&args.destination)?) {
        (Side::Host(source), Side::Guest(vm, destination)) => {
            run_command(ctl::CopyTo::new(source, destination, args.agent), Some(&vm), output)
        }
        (Side::Guest(vm, source), Side::Host(destination)) => {
            run_command(ctl::CopyFrom::new(source, destination, args.agent), Some(&vm), output)
        }
        (Side::Host(_), Side::Host(_)) => Err(Failure::usage("neither side is in a VM")
            .hint(Some("the side in the guest is NAME:PATH, such as `guest:/etc/hosts`".to_owned()))),
        (Side::Guest(..), Side::Guest(..)) => Err(Failure::usage("both sides are in a VM").hint(Some(
            "copy to a file on this host first, or pipe: `vmrun cp A:FILE - | vmrun cp - B:FILE`".to_owned(),
        ))),
    }
}

/// `NAME:PATH` is in a guest; a file of this host whose name has a colon is written as `./NAME:PATH`.
fn side(text: &OsStr) -> Result<Side, Failure> {
    let bytes = text.as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':').filter(|at| !bytes[..*at].contains(&b'/'));
    let Some(colon) = colon else { return Ok(Side::Host(text.into())) };
    let shown = || text.to_string_lossy().into_owned();
    let (vm, path) = (&bytes[..colon], &bytes[colon + 1..]);
    let vm = named(&String::from_utf8_lossy(vm)).map_err(|why| {
        Failure::usage(format!("{}: {why}", shown()))
            .hint(Some(format!("a file of this host with a colon in its name is `./{}`", shown())))
    })?;
    let path = std::str::from_utf8(path)
        .map_err(|_| Failure::usage(format!("{}: the path is not UTF-8", shown())))?;
    Ok(Side::Guest(vm, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_front_of_a_colon_is_a_vm() {
        let guest = |name: &str, path: &str| Side::Guest(name.parse().unwrap(), path.to_owned());
        assert_eq!(side("web:/etc/hosts".as_ref()).unwrap(), guest("web", "/etc/hosts"));
        assert_eq!(side("web:a:b".as_ref()).unwrap(), guest("web", "a:b"));
        for host in ["file", "/a:b", "./a:b", "-", "dir/a:b"] {
            assert_eq!(side(host.as_ref()).unwrap(), Side::Host(host.into()), "{host}");
        }
        assert!(side(":/etc/hosts".as_ref()).unwrap_err().message.contains("the name is empty"));
    }
}
