//! Architectures, host systems and accelerators.

use serde::{Deserialize, Serialize};

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

/// The host's operating system, as far as QEMU's arguments depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Os {
    /// Linux: KVM, bridges, taps, virtiofs.
    Linux,
    /// macOS: Hypervisor.framework.
    Macos,
}

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

/// What was typed for `--accel`: accelerators in order of preference, e.g. `kvm:tcg`. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccelList(pub(crate) Vec<Accel>);

impl AccelList {
    /// The accelerators, best first.
    pub fn as_slice(&self) -> &[Accel] {
        &self.0
    }
}
