//! UEFI firmware: found through QEMU's own descriptors first, at well-known paths after, or given by path.

mod descriptor;
mod prepare;
mod select;
mod well_known;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use prepare::{VARS_FILE, prepare};
pub use select::{find, given};

use crate::spec::{Arch, Firmware, ImageFormat};

/// The fuzzer's entry to the descriptors.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_descriptor(bytes: &[u8]) {
    if let Some(descriptor) = descriptor::Descriptor::parse(bytes) {
        descriptor.has("secure-boot");
        descriptor.is_for("x86_64", "pc-q35-7.2");
    }
}

/// Where firmware is looked for.
#[derive(Debug, Clone)]
pub struct FirmwareSources {
    /// Folders of descriptors, the most important first.
    pub descriptors: Vec<PathBuf>,
    /// The root of well-known paths; `/` but in tests.
    pub root: PathBuf,
}

impl FirmwareSources {
    /// [`Self::standard`] for this process's user.
    pub fn from_env() -> Self {
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let config =
            config.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
        Self::standard(config)
    }

    /// As QEMU's docs/interop/firmware.json has it: the user's folder, the administrator's, the distribution's.
    /// `config_home` is `$XDG_CONFIG_HOME`, or `~/.config`.
    pub fn standard(config_home: Option<PathBuf>) -> Self {
        let system = ["/etc/qemu/firmware", "/usr/share/qemu/firmware", "/usr/local/share/qemu/firmware"];
        let own = config_home.map(|home| home.join("qemu/firmware"));
        Self { descriptors: own.into_iter().chain(system.map(PathBuf::from)).collect(), root: "/".into() }
    }
}

/// Firmware that was found; `prepare` makes it ready for a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundFirmware {
    /// Two flash chips.
    Flash {
        /// The code.
        code: PathBuf,
        /// Its format.
        code_format: ImageFormat,
        /// What a VM's variables start as, with the format; none = the firmware has no variables.
        template: Option<(PathBuf, ImageFormat)>,
        /// It needs System Management Mode.
        needs_smm: bool,
    },
    /// One image for `-bios`.
    Bios(PathBuf),
}

impl FoundFirmware {
    /// What [`prepare`] would make of it with this state directory, which is not looked at.
    pub fn in_folder(self, state: &Path) -> Firmware {
        match self {
            Self::Bios(path) => Firmware::Bios { path },
            Self::Flash { code, code_format, template, needs_smm } => {
                let vars_format = template.as_ref().map_or(ImageFormat::Raw, |(_, format)| *format);
                let vars = template.map(|_| state.join(VARS_FILE));
                Firmware::Flash { code, code_format, vars, vars_format, needs_smm }
            }
        }
    }
}

/// Why there is no firmware.
#[derive(Debug, Error)]
pub enum FirmwareError {
    /// None for this architecture and machine.
    #[error("no UEFI firmware for {arch} machines of type '{machine}' is installed")]
    NotFound {
        /// The guest's architecture.
        arch: Arch,
        /// The machine type.
        machine: String,
    },
    /// The path given is not there.
    #[error("firmware {} does not exist", .0.display())]
    Missing(PathBuf),
    /// The path given cannot be read, or is no file.
    #[error("firmware {}", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder given has none.
    #[error("{} has no firmware for {arch} under a known name", folder.display())]
    NoneInFolder {
        /// The folder.
        folder: PathBuf,
        /// The guest's architecture.
        arch: Arch,
    },
    /// The VM's variables are of another firmware.
    #[error("{} has {found} bytes, but this firmware's variables have {expected}", vars.display())]
    OtherVariables {
        /// The VM's variables.
        vars: PathBuf,
        /// Their size in bytes.
        found: u64,
        /// What it should be.
        expected: u64,
    },
    /// They could lead anywhere.
    #[error("{} is a symbolic link", .0.display())]
    Link(PathBuf),
    /// Of the file system.
    #[error("cannot copy {} into the state directory", template.display())]
    Copy {
        /// What was copied.
        template: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl FirmwareError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { arch, .. } => Some(match arch.facts().firmware_package {
                Some(package) => format!("apt-get install {package}, or give a path with --fw"),
                None => format!("{arch} has no UEFI: leave --uefi away"),
            }),
            Self::NoneInFolder { .. } => Some("give the path of the code file itself".to_owned()),
            Self::OtherVariables { vars, .. } => Some(format!(
                "use the same firmware as before, or remove '{}' to start with new variables",
                vars.display()
            )),
            Self::Link(vars) => {
                Some(format!("put the variables themselves there, or remove '{}'", vars.display()))
            }
            Self::Missing(_) | Self::Unreadable { .. } | Self::Copy { .. } => None,
        }
    }
}
