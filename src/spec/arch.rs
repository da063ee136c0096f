//! Architectures, host systems and accelerators.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
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

impl Arch {
    /// The name in QEMU's programs and files: `qemu-system-<name>`.
    pub const fn qemu_name(self) -> &'static str {
        self.as_str()
    }
}

/// The host's operating system, as far as QEMU's arguments depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Os {
    /// Linux: KVM, bridges, taps, virtiofs.
    Linux,
    /// macOS: Hypervisor.framework.
    Macos,
}

word_type!(Os, "operating system", { Linux = "linux", Macos = "macos" });

/// One of QEMU's accelerators (`-accel NAME`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// Linux's kernel virtual machine.
    Kvm,
    /// macOS' Hypervisor.framework.
    Hvf,
    /// QEMU's own translation; works everywhere.
    Tcg,
}

word_type!(Accel, "accelerator", { Kvm = "kvm", Hvf = "hvf", Tcg = "tcg" });

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
#[derive(Debug, Clone, PartialEq, Eq, Error)]
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
    fn lists_of_accelerators() {
        assert_eq!("kvm:tcg".parse(), Ok(AccelList(vec![Accel::Kvm, Accel::Tcg])));
        let error = |text: &str| text.parse::<AccelList>().unwrap_err().to_string();
        assert_eq!(error(""), "an accelerator is missing in '' (as in kvm:tcg)");
        assert_eq!(error("kvm:"), "an accelerator is missing in 'kvm:' (as in kvm:tcg)");
        assert_eq!(error("kvm,tcg"), "accelerators have ':' between them, as in kvm:tcg, not ','");
        assert_eq!(error("kvm:kmv"), "unknown accelerator 'kmv', did you mean 'kvm'? (known: kvm, hvf, tcg)");
        assert_eq!(error("tcg:kvm:tcg"), "accelerator 'tcg' is given twice");
    }

    proptest! {
        #[test]
        fn lists_round_trip(list in prop::sample::subsequence(Accel::ALL, 1..=3).prop_shuffle()) {
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
