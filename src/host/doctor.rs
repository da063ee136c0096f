//! What this machine has of what vmrun needs, and what to do about the rest.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use crate::spec::Arch;

use super::accel::{self, Machine};
use super::dirs::{RuntimeEnvironment, runtime_root};
use super::environment;
use super::firmware::{self, FirmwareSources, FoundFirmware};
use super::programs::{self, ProgramError, SearchPath};
use super::usb::{UsbRoots, host_devices};

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Some things will not work, or not well.
    Limited,
    /// No VM can be started.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found, or why not.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Good, found: found.into(), hint: None }
    }
}

/// Looks at all of it. Starts QEMU and `qemu-img` for their versions, and changes nothing but that the folder of running VMs is made.
pub fn examine() -> Vec<Finding> {
    let search = SearchPath::from_env();
    let machine = Machine::here();
    let arch = machine.as_ref().map_or(Arch::X86_64, |machine| machine.arch);
    vec![
        program("qemu", Verdict::Bad, programs::qemu(arch, None, &search)),
        program("qemu-img", Verdict::Limited, programs::qemu_img(&search)),
        acceleration(machine.as_ref()),
        uefi(arch),
        program("virtiofsd", Verdict::Limited, programs::virtiofsd(None, &search)),
        runtime(),
        usb(&UsbRoots::default()),
    ]
}

/// The QEMU for this machine's architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The program.
    pub path: PathBuf,
    /// The first line that it says of itself; none if it does not run.
    pub version: Option<String>,
}

/// The QEMU that a VM of this machine's architecture would be started with.
pub fn qemu() -> Option<Found> {
    let arch = Machine::here().map_or(Arch::X86_64, |machine| machine.arch);
    let path = programs::qemu(arch, None, &SearchPath::from_env()).ok()?;
    Some(Found { version: version(&path).ok(), path })
}

fn program(what: &'static str, without: Verdict, found: Result<PathBuf, ProgramError>) -> Finding {
    match found.map(|path| (version(&path), path)) {
        Ok((Ok(version), path)) => Finding::good(what, format!("{} ({version})", path.display())),
        Ok((Err(why), path)) => Finding {
            what,
            verdict: without,
            found: format!("{} does not run: {why}", path.display()),
            hint: None,
        },
        Err(error) => Finding { what, verdict: without, hint: error.hint(), found: error.to_string() },
    }
}

/// The first line that a program says of itself.
fn version(path: &Path) -> Result<String, String> {
    let mut command = Command::new(path);
    environment::apply(command.arg("--version"));
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next().filter(|_| output.status.success()) {
        Some(line) => Ok(line.trim().to_owned()),
        None => Err(format!("it ended with {}", output.status)),
    }
}

fn acceleration(machine: Option<&Machine>) -> Finding {
    let what = "acceleration";
    let Some(machine) = machine else {
        let found = "vmrun does not know this kind of machine".to_owned();
        return Finding { what, verdict: Verdict::Bad, found, hint: None };
    };
    match accel::choose(None, machine.arch, machine) {
        Ok(choice) => {
            let fast = choice.accel != crate::spec::Accel::Tcg;
            if fast {
                return Finding::good(what, format!("{}: {}", choice.accel, choice.reason));
            }
            let found = format!(
                "KVM does not work: {}. VMs run all the same, translated by QEMU (tcg), about ten times slower",
                choice.reason
            );
            Finding {
                what,
                verdict: Verdict::Limited,
                found,
                hint: choice.warning.map(|warning| warning.hint),
            }
        }
        Err(error) => Finding { what, verdict: Verdict::Bad, hint: error.hint(), found: error.to_string() },
    }
}

fn uefi(arch: Arch) -> Finding {
    match firmware::find(arch, None, &FirmwareSources::from_env()) {
        Ok(FoundFirmware::Flash { code, .. } | FoundFirmware::Bios(code)) => {
            Finding::good("uefi firmware", code.display().to_string())
        }
        Err(error) => Finding {
            what: "uefi firmware",
            verdict: Verdict::Limited,
            hint: error.hint(),
            found: error.to_string(),
        },
    }
}

fn runtime() -> Finding {
    match runtime_root(&RuntimeEnvironment::from_env()) {
        Ok(path) => Finding::good("running VMs", path.display().to_string()),
        Err(error) => Finding {
            what: "running VMs",
            verdict: Verdict::Bad,
            hint: error.hint(),
            found: error.to_string(),
        },
    }
}

fn usb(roots: &UsbRoots) -> Finding {
    let devices: Vec<_> = host_devices(roots).into_iter().filter(|device| !device.is_hub).collect();
    Finding::good(
        "usb devices",
        format!("{} could be given to a VM: `vmrun ctl usb-list --host`", devices.len()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_that_does_not_run_is_told_from_one_that_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qemu");
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        write("#!/bin/sh\necho QEMU version 9\necho more\n");
        let found = program("qemu", Verdict::Bad, Ok(path.clone()));
        assert_eq!(found, Finding::good("qemu", format!("{} (QEMU version 9)", path.display())));
        write("#!/bin/sh\nexit 3\n");
        let found = program("qemu", Verdict::Bad, Ok(path.clone()));
        assert_eq!(found.verdict, Verdict::Bad);
        assert!(found.found.contains("exit status: 3"), "{found:?}");
        let nowhere = SearchPath { path: dir.path().join("bin").into(), root: dir.path().to_owned() };
        let found = program("qemu-img", Verdict::Limited, programs::qemu_img(&nowhere));
        assert_eq!(
            (found.verdict, found.hint.as_deref()),
            (Verdict::Limited, Some("apt-get install qemu-utils"))
        );
    }
}
