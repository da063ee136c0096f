//! Architectures, with all that differs between them, and accelerators.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use super::words::{UnknownWord, word_type};

/// A guest (or host) architecture that vmrun knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// `x86_64`, also typed `amd64`.
    #[serde(rename = "x86_64")]
    X86_64,
    /// `aarch64`, also typed `arm64`.
    Aarch64,
    /// `s390x`.
    S390x,
    /// `riscv64`.
    Riscv64,
}

word_type!(Arch, "architecture", {
    X86_64 = "x86_64" | "amd64",
    Aarch64 = "aarch64" | "arm64",
    S390x = "s390x",
    Riscv64 = "riscv64",
});

/// Machine types that behave alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// x86 with PCI Express and AHCI (`q35`, `pc-q35-…`).
    Q35,
    /// x86 with PCI and IDE (`pc`, `pc-i440fx-…`).
    Pc,
    /// x86 without PCI (`microvm`).
    Microvm,
    /// ARM or RISC-V with PCI Express (`virt`).
    Virt,
    /// s390x with its channel subsystem (`s390-ccw-virtio`).
    Ccw,
}

/// How a machine's power button reaches the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerButton {
    /// Through ACPI, which can be switched off (`-machine acpi=off`).
    Acpi,
    /// In a way of its own: a GPIO line (aarch64), a signal (s390x).
    BuiltIn,
    /// There is none. QEMU takes `system_powerdown` all the same.
    None,
}

/// All that differs between the architectures: a new one is a variant of [`Arch`] and one of these.
#[derive(Debug)]
pub struct ArchFacts {
    /// QEMU's program, to be found in `PATH`.
    pub program: &'static str,
    /// The package that has it, in Debian's words.
    pub package: &'static str,
    /// The package of its UEFI firmware; none if it has no UEFI.
    pub firmware_package: Option<&'static str>,
    /// Whether a disk cannot be booted without UEFI firmware: QEMU brings none of its own.
    pub needs_uefi: bool,
    /// QEMU's targets (`query-target`) that are taken for it.
    pub targets: &'static [&'static str],
    /// The machine type unless another is asked for.
    pub machine: &'static str,
    /// What this type behaves like.
    pub family: Family,
    /// `-cpu` without an accelerator; none leaves the machine's default.
    pub emulated_cpu: Option<&'static str>,
    /// The longest kernel command line in bytes that QEMU's boot protocol takes; none if that was never a limit.
    pub max_command_line: Option<usize>,
    /// The power button of its machines.
    pub power_button: PowerButton,
    /// Whether QEMU ends with code 0 and no SHUTDOWN event when the guest switches itself off (7.2).
    pub silent_power_off: bool,
}

const X86_64: ArchFacts = ArchFacts {
    program: "qemu-system-x86_64",
    package: "qemu-system-x86",
    firmware_package: Some("ovmf"),
    needs_uefi: false,
    targets: &["x86_64", "i386"],
    machine: "q35",
    family: Family::Q35,
    // When the processor announces fast copying of bytes (ERMS, FSRM), Linux clears and copies memory by `rep stosb` and `rep movsb`, and TCG does
    // these byte by byte: without, Linux boots in nine tenths of the time (QEMU 7.2)
    emulated_cpu: Some("max,erms=off,fsrm=off"),
    // Linux's boot protocol: COMMAND_LINE_SIZE is 2048 with the byte 0 at its end
    max_command_line: Some(2047),
    power_button: PowerButton::Acpi,
    silent_power_off: false,
};

const AARCH64: ArchFacts = ArchFacts {
    program: "qemu-system-aarch64",
    package: "qemu-system-arm",
    firmware_package: Some("qemu-efi-aarch64"),
    needs_uefi: true,
    targets: &["aarch64", "arm"],
    machine: "virt",
    family: Family::Virt,
    // pointer authentication's standard algorithm costs TCG half of its speed
    emulated_cpu: Some("max,pauth-impdef=on"),
    max_command_line: None,
    power_button: PowerButton::BuiltIn,
    silent_power_off: false,
};

const S390X: ArchFacts = ArchFacts {
    program: "qemu-system-s390x",
    // Debian 12 has it in qemu-system-misc, later releases in a package of its own
    package: "qemu-system-s390x (Debian 12: qemu-system-misc)",
    firmware_package: None,
    needs_uefi: false,
    targets: &["s390x"],
    machine: "s390-ccw-virtio",
    family: Family::Ccw,
    emulated_cpu: Some("max"),
    max_command_line: None,
    power_button: PowerButton::BuiltIn,
    silent_power_off: false,
};

const RISCV64: ArchFacts = ArchFacts {
    program: "qemu-system-riscv64",
    package: "qemu-system-riscv (Debian 12: qemu-system-misc)",
    firmware_package: Some("qemu-efi-riscv64"),
    needs_uefi: false,
    targets: &["riscv64", "riscv32"],
    machine: "virt",
    family: Family::Virt,
    // `max` came with 8.2; the default, `rv64`, has what a distribution needs
    emulated_cpu: None,
    max_command_line: None,
    power_button: PowerButton::None,
    silent_power_off: true,
};

impl Arch {
    /// What differs between it and the others.
    pub const fn facts(self) -> &'static ArchFacts {
        match self {
            Self::X86_64 => &X86_64,
            Self::Aarch64 => &AARCH64,
            Self::S390x => &S390X,
            Self::Riscv64 => &RISCV64,
        }
    }

    /// The name in QEMU's programs and files: `qemu-system-<name>`.
    pub const fn qemu_name(self) -> &'static str {
        self.as_str()
    }
}

/// One of QEMU's targets that vmrun knows, of which an architecture has several: `i386` is an x86_64 with smaller registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    name: &'static str,
    arch: Arch,
}

/// A target of QEMU that vmrun does not know.
#[derive(Clone, PartialEq, Eq, Error)]
#[error("vmrun does not know QEMU's architecture '{0}' (known: {known})", known = Target::known())]
pub struct UnknownTarget(pub String);

impl Target {
    /// The usual one of an architecture.
    pub const fn of(arch: Arch) -> Self {
        Self { name: arch.qemu_name(), arch }
    }

    /// QEMU's name.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// What it is taken for.
    pub const fn arch(self) -> Arch {
        self.arch
    }

    fn known() -> String {
        let names: Vec<_> = Arch::ALL.iter().flat_map(|arch| arch.facts().targets).copied().collect();
        names.join(", ")
    }
}

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(text: &str) -> Result<Self, UnknownTarget> {
        let of = |arch: &Arch| {
            let name = arch.facts().targets.iter().find(|name| **name == text)?;
            Some(Self { name, arch: *arch })
        };
        Arch::ALL.iter().find_map(of).ok_or_else(|| UnknownTarget(text.to_owned()))
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// One of QEMU's accelerators (`-accel NAME`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// Linux's kernel virtual machine.
    Kvm,
    /// QEMU's own translation; works everywhere.
    Tcg,
}

word_type!(Accel, "accelerator", { Kvm = "kvm", Tcg = "tcg" });

/// What was typed for `--accel`: accelerators in order of preference, e.g. `kvm:tcg`. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccelList(pub(crate) Vec<Accel>);

impl AccelList {
    /// The accelerators, best first.
    pub fn as_slice(&self) -> &[Accel] {
        &self.0
    }
}

/// Why a text is not a list of accelerators.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum AccelListError {
    /// Nothing was given, or nothing between two colons.
    #[error("an accelerator is missing in '{0}' (as in kvm:tcg)")]
    Empty(String),
    /// With commas, which QEMU would take for the start of the accelerator's properties.
    #[error("accelerators have ':' between them, as in kvm:tcg, not ','")]
    Comma,
    /// One that vmrun does not know.
    #[error(transparent)]
    Unknown(#[from] UnknownWord),
    /// The same one twice.
    #[error("accelerator '{0}' is given twice")]
    Duplicate(Accel),
}

impl FromStr for AccelList {
    type Err = AccelListError;

    fn from_str(text: &str) -> Result<Self, AccelListError> {
        if text.contains(',') {
            return Err(AccelListError::Comma);
        }
        let mut list = Vec::new();
        for word in text.split(':') {
            if word.is_empty() {
                return Err(AccelListError::Empty(text.to_owned()));
            }
            let accel: Accel = word.parse()?;
            if list.contains(&accel) {
                return Err(AccelListError::Duplicate(accel));
            }
            list.push(accel);
        }
        Ok(Self(list))
    }
}

impl fmt::Display for AccelList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|accel| accel.as_str()).collect();
        f.pad(&words.join(":"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn architectures_have_aliases() {
        assert_eq!("amd64".parse(), Ok(Arch::X86_64));
        assert_eq!("arm64".parse(), Ok(Arch::Aarch64));
        for arch in Arch::ALL {
            assert_eq!(arch.to_string().parse(), Ok(*arch));
            assert_eq!(serde_json::to_value(arch).unwrap(), arch.as_str());
        }
        assert_eq!(
            "x86-64".parse::<Arch>().unwrap_err().to_string(),
            "unknown architecture 'x86-64', did you mean 'x86_64'? (known: x86_64, aarch64, s390x, riscv64)"
        );
    }

    #[test]
    fn a_target_that_is_not_known_is_named() {
        let arch = |name: &str| name.parse().map(Target::arch);
        assert_eq!((arch("i386"), arch("arm")), (Ok(Arch::X86_64), Ok(Arch::Aarch64)));
        for known in Arch::ALL {
            assert_eq!(known.qemu_name().parse(), Ok(Target::of(*known)));
        }
        assert_eq!(
            arch("m68k").unwrap_err().to_string(),
            "vmrun does not know QEMU's architecture 'm68k' (known: x86_64, i386, aarch64, arm, s390x, riscv64, riscv32)"
        );
    }

    #[test]
    fn lists_of_accelerators() {
        assert_eq!("kvm:tcg".parse(), Ok(AccelList(vec![Accel::Kvm, Accel::Tcg])));
        let error = |text: &str| text.parse::<AccelList>().unwrap_err().to_string();
        assert_eq!(error(""), "an accelerator is missing in '' (as in kvm:tcg)");
        assert_eq!(error("kvm:"), "an accelerator is missing in 'kvm:' (as in kvm:tcg)");
        assert_eq!(error("kvm,tcg"), "accelerators have ':' between them, as in kvm:tcg, not ','");
        assert_eq!(error("kvm:kmv"), "unknown accelerator 'kmv', did you mean 'kvm'? (known: kvm, tcg)");
        assert_eq!(error("tcg:kvm:tcg"), "accelerator 'tcg' is given twice");
    }

    proptest! {
        #[test]
        fn lists_round_trip(list in prop::sample::subsequence(Accel::ALL, 1..=Accel::ALL.len()).prop_shuffle()) {
            let list = AccelList(list);
            prop_assert_eq!(list.to_string().parse(), Ok(list));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<AccelList>();
            let _ = text.parse::<Arch>();
        }
    }
}
