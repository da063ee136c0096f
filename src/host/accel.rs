//! Which accelerator works here: tried rather than assumed.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::sys;
use crate::spec::{Accel, AccelList, Arch};

/// What decides about acceleration on a machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its processor's architecture.
    pub arch: Arch,
    /// `/proc/cpuinfo`.
    pub cpuinfo: PathBuf,
    /// `/dev/kvm`.
    pub dev_kvm: PathBuf,
}

impl Machine {
    /// This machine; none on an architecture that vmrun does not know.
    pub fn here() -> Option<Self> {
        // Rust's names of the architectures are the same
        let arch = std::env::consts::ARCH.parse().ok()?;
        Some(Self { arch, cpuinfo: "/proc/cpuinfo".into(), dev_kvm: "/dev/kvm".into() })
    }
}

/// What was chosen, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccelChoice {
    /// The accelerator.
    pub accel: Accel,
    /// Why this one, in words: `KVM works`, or why a faster one does not.
    pub reason: String,
    /// Worth telling without being asked, once: it will be slow although this machine looks as if it need not be.
    pub warning: Option<Warning>,
}

/// What is not as it was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What, in one line.
    pub message: String,
    /// What to do about it, for `vmrun doctor`.
    pub hint: String,
}

impl Warning {
    fn new(failed: &[(Accel, Unusable)], chosen: Accel) -> Self {
        let names: Vec<&str> = failed.iter().map(|(accel, _)| name(*accel)).collect();
        let (names, does) = (names.join(" and "), if names.len() == 1 { "does" } else { "do" });
        let slow = if chosen == Accel::Tcg { ", so that VMs are slow" } else { "" };
        Self {
            message: format!("{names} {does} not work here{slow}: `vmrun doctor` says why and what helps"),
            hint: match failed.iter().any(|(_, why)| why.needs_group) {
                true => "add yourself to the group kvm (`sudo usermod -aG kvm $USER`), and log in again".to_owned(),
                false => "switch virtualisation on in the firmware's setup (in a VM: nested virtualisation, by who runs its host), \
                          and load the module kvm_intel or kvm_amd; a container needs `--device /dev/kvm`"
                    .to_owned(),
            },
        }
    }
}

/// Why an accelerator cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    why: String,
    /// A group's membership is all that is missing.
    needs_group: bool,
}

impl From<String> for Unusable {
    fn from(why: String) -> Self {
        Self { why, needs_group: false }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// None of the accelerators asked for works.
#[derive(Debug, Error)]
pub enum AccelError {
    /// Why each does not.
    #[error("{}", failed.iter().map(|(accel, why)| format!("{} does not work: {why}", name(*accel))).collect::<Vec<_>>().join("; "))]
    NoneWorks {
        /// Each accelerator asked for, with the reason.
        failed: Vec<(Accel, Unusable)>,
    },
}

impl AccelError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let Self::NoneWorks { failed } = self;
        let not_allowed = failed.iter().any(|(_, why)| why.needs_group);
        let way =
            if not_allowed { "add yourself to the group kvm (and log in again), or add" } else { "add" };
        Some(format!("{way} tcg to the list to run without acceleration: slower, but works everywhere"))
    }
}

/// An accelerator's name as people write it.
fn name(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "KVM",
        Accel::Tcg => "TCG",
    }
}

/// The value of the override that counts: `VMRUN_ACCEL` before `LINUXKIT_QEMU_ACCEL`, empty ones aside.
/// `read` looks up a variable.
pub fn override_from(read: impl Fn(&str) -> Option<String>) -> Option<String> {
    ["VMRUN_ACCEL", "LINUXKIT_QEMU_ACCEL"].into_iter().filter_map(read).find(|value| !value.is_empty())
}

/// The first accelerator asked for that works; without a list, the machine's own or TCG.
///
/// # Errors
/// None of those asked for works.
pub fn choose(requested: Option<&AccelList>, guest: Arch, host: &Machine) -> Result<AccelChoice, AccelError> {
    match requested {
        Some(list) => choose_from(list.as_slice(), guest, host),
        None => Ok(choose_best(guest, host)),
    }
}

fn choose_best(guest: Arch, host: &Machine) -> AccelChoice {
    match check(Accel::Kvm, guest, host) {
        Ok(()) => AccelChoice { accel: Accel::Kvm, reason: "KVM works".to_owned(), warning: None },
        Err(why) => {
            let warning = || Warning::new(&[(Accel::Kvm, why.clone())], Accel::Tcg);
            AccelChoice { accel: Accel::Tcg, warning: (guest == host.arch).then(warning), reason: why.why }
        }
    }
}

fn choose_from(list: &[Accel], guest: Arch, host: &Machine) -> Result<AccelChoice, AccelError> {
    let mut failed = Vec::new();
    for &accel in list {
        let Err(why) = check(accel, guest, host) else {
            if failed.is_empty() {
                return Ok(AccelChoice { accel, reason: "asked for".to_owned(), warning: None });
            }
            let described =
                |(accel, why): &(Accel, Unusable)| format!("{} does not work: {why}", name(*accel));
            let reason = failed.iter().map(described).collect::<Vec<_>>().join("; ");
            return Ok(AccelChoice { accel, reason, warning: Some(Warning::new(&failed, accel)) });
        };
        failed.push((accel, why));
    }
    Err(AccelError::NoneWorks { failed })
}

/// Whether an accelerator works, else why not.
fn check(accel: Accel, guest: Arch, host: &Machine) -> Result<(), Unusable> {
    match accel {
        Accel::Tcg => Ok(()),
        Accel::Kvm if guest != host.arch => {
            Err(format!("the guest is {guest}, this machine is {}", host.arch).into())
        }
        Accel::Kvm => check_kvm(host),
    }
}

fn check_kvm(host: &Machine) -> Result<(), Unusable> {
    let device = host.dev_kvm.display();
    if !host.dev_kvm.exists() {
        return Err(format!(
            "{device} does not exist (no virtualisation, or the kernel's module kvm is not loaded)"
        )
        .into());
    }
    // Seen with the software back-end kvm_pvm: everything below works, firmware starts, and then a stock kernel hangs for ever.
    if host.arch == Arch::X86_64 && !has_virtualisation_flag(host)? {
        return Err(format!(
            "the CPU flags have neither vmx nor svm, so {device} is a software back-end that would hang stock guests"
        )
        .into());
    }
    sys::try_kvm(&host.dev_kvm).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Unusable {
            why: format!("{device} may not be opened: it is for root and members of the group kvm"),
            needs_group: true,
        },
        _ => format!("{device} cannot make a VM: {error}").into(),
    })
}

fn has_virtualisation_flag(host: &Machine) -> Result<bool, String> {
    let cpuinfo = fs::read(&host.cpuinfo)
        .map_err(|error| format!("cannot read {}: {error}", host.cpuinfo.display()))?;
    let text = String::from_utf8_lossy(&cpuinfo);
    let flags = text.lines().filter_map(|line| line.split_once(':')).filter(|(key, _)| key.trim() == "flags");
    Ok(flags.flat_map(|(_, flags)| flags.split_ascii_whitespace()).any(|flag| matches!(flag, "vmx" | "svm")))
}

/// What the processor can do, which under KVM is what the guest's can.
pub fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let wanted = ["model name", "flags", "Features"];
    text.lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const NO_FLAGS: &str =
        "processor\t: 0\nmodel name\t: svm vmx\nvmx flags\t: vnmi\nflags\t\t: fpu svme vme\n";

    fn machine(root: &Path, arch: Arch, cpuinfo: &str) -> Machine {
        fs::write(root.join("cpuinfo"), cpuinfo).unwrap();
        fs::write(root.join("kvm"), "").unwrap();
        let (cpuinfo, dev_kvm) = (root.join("cpuinfo"), root.join("kvm"));
        Machine { arch, cpuinfo, dev_kvm }
    }

    #[test]
    fn another_architecture_is_translated_without_a_warning() {
        let root = tempfile::tempdir().unwrap();
        let choice = choose(None, Arch::Aarch64, &machine(root.path(), Arch::X86_64, NO_FLAGS)).unwrap();
        assert_eq!(choice.accel, Accel::Tcg);
        assert_eq!(choice.reason, "the guest is aarch64, this machine is x86_64");
        assert_eq!(choice.warning, None);
    }

    #[test]
    fn no_flag_means_no_kvm_whatever_the_device_says() {
        let root = tempfile::tempdir().unwrap();
        let choice = choose(None, Arch::X86_64, &machine(root.path(), Arch::X86_64, NO_FLAGS)).unwrap();
        assert_eq!(choice.accel, Accel::Tcg);
        assert!(choice.reason.starts_with("the CPU flags have neither vmx nor svm, so"), "{}", choice.reason);
        let Warning { message, hint } = choice.warning.unwrap();
        assert_eq!(
            message,
            "KVM does not work here, so that VMs are slow: `vmrun doctor` says why and what helps"
        );
        assert!(hint.starts_with("switch virtualisation on in the firmware's setup"), "{hint}");
        let why = Unusable { why: "/dev/kvm may not be opened".to_owned(), needs_group: true };
        assert!(Warning::new(&[(Accel::Kvm, why)], Accel::Tcg).hint.contains("add yourself to the group"));
    }

    #[test]
    fn a_device_that_is_missing_or_not_kvm_is_named() {
        let root = tempfile::tempdir().unwrap();
        let mut host = machine(root.path(), Arch::X86_64, "flags : svm\n");
        let choice = choose(None, Arch::X86_64, &host).unwrap();
        assert!(choice.reason.contains("cannot make a VM: Inappropriate ioctl"), "{}", choice.reason);
        host.dev_kvm = root.path().join("none");
        assert!(choose(None, Arch::X86_64, &host).unwrap().reason.contains("does not exist"));
    }

    #[test]
    fn the_first_asked_for_that_works_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let host = machine(root.path(), Arch::X86_64, "");
        let choice = choose(Some(&AccelList(vec![Accel::Kvm, Accel::Tcg])), Arch::Aarch64, &host).unwrap();
        assert_eq!(choice.accel, Accel::Tcg);
        assert_eq!(choice.reason, "KVM does not work: the guest is aarch64, this machine is x86_64");
        assert!(choice.warning.unwrap().message.starts_with("KVM does not work here, so that VMs are slow"));
        let choice = choose(Some(&AccelList(vec![Accel::Tcg])), Arch::Aarch64, &host).unwrap();
        assert_eq!((choice.accel, choice.warning), (Accel::Tcg, None));
    }

    #[test]
    fn the_error_says_why_each_does_not_work() {
        let root = tempfile::tempdir().unwrap();
        let host = machine(root.path(), Arch::X86_64, NO_FLAGS);
        let error = choose(Some(&AccelList(vec![Accel::Kvm])), Arch::X86_64, &host).unwrap_err();
        assert!(error.to_string().contains("KVM does not work: the CPU flags"), "{error}");
        assert!(error.hint().unwrap().contains("tcg"));
    }

    #[test]
    fn the_own_variable_wins_and_empty_ones_do_not_count() {
        let both = |name: &str| Some(name.to_lowercase());
        assert_eq!(override_from(both).as_deref(), Some("vmrun_accel"));
        let linuxkit =
            |name: &str| Some(if name == "VMRUN_ACCEL" { String::new() } else { "tcg".to_owned() });
        assert_eq!(override_from(linuxkit).as_deref(), Some("tcg"));
        assert_eq!(override_from(|_| None), None);
    }
}
