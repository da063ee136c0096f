//! How a VM boots and what it shows.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::disk::ImageFormat;
use super::words::word_type;

/// Which boot mode was asked for (`--kernel`, `--iso`, `--squashfs`), or that it must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BootMode {
    /// Find out from what exists.
    #[default]
    Auto,
    /// `IMAGE` is a prefix of `-kernel`, `-initrd.img` and `-cmdline`.
    Kernel,
    /// `IMAGE` is a CD image.
    Iso,
    /// `IMAGE` is a prefix of `-kernel`, `-squashfs.img` and `-cmdline`.
    Squashfs,
}

/// What the machine boots, all paths absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "mode")]
pub enum Boot {
    /// From the first disk of `VmSpec::disks` (which then is the image).
    Disk,
    /// There is no image: the firmware tries the disks in their order (SeaBIOS the first alone), then the network.
    Firmware,
    /// From a CD image.
    Iso {
        /// The image, attached read-only as CD-ROM `cd0`.
        #[serde(with = "super::fields::path")]
        path: PathBuf,
    },
    /// QEMU loads a kernel by itself.
    Kernel {
        /// The kernel.
        #[serde(with = "super::fields::path")]
        kernel: PathBuf,
        /// The initial RAM disk.
        #[serde(with = "super::fields::optional_path", default)]
        initrd: Option<PathBuf>,
        /// The kernel's command line, as read from the `-cmdline` file.
        cmdline: String,
    },
    /// A kernel whose root is a squashfs image on the default disk bus.
    /// `qemu::argv` adds the image as the first drive and puts `root=/dev/vda` (or as the bus names it) behind `cmdline`, as linuxkit does.
    Squashfs {
        /// The kernel.
        #[serde(with = "super::fields::path")]
        kernel: PathBuf,
        /// The squashfs image, attached read-only.
        #[serde(with = "super::fields::path")]
        squashfs: PathBuf,
        /// The kernel's command line, without `root=`.
        cmdline: String,
        /// What follows `root=`.
        #[serde(default)]
        append: String,
        /// The image is a SATA disk, which linuxkit's guests know as `/dev/sda`, and not a virtio one.
        #[serde(default)]
        sata: bool,
    },
}

/// UEFI (or other) firmware for the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Firmware {
    /// Two flash chips: read-only code, writable variables.
    Flash {
        /// The firmware's code.
        #[serde(with = "super::fields::path")]
        code: PathBuf,
        /// Format of `code`.
        code_format: ImageFormat,
        /// The VM's own copy of the variables, in the state directory; none = the firmware has no variables.
        #[serde(with = "super::fields::optional_path", default)]
        vars: Option<PathBuf>,
        /// Format of `vars`.
        vars_format: ImageFormat,
        /// The code needs System Management Mode (`-machine smm=on`), as secure-boot builds do.
        #[serde(default)]
        needs_smm: bool,
    },
    /// One image for `-bios`.
    Bios {
        /// The image.
        #[serde(with = "super::fields::path")]
        path: PathBuf,
    },
}

/// What happens when the guest's kernel panics (`--on-panic`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnPanic {
    /// The VM ends, with its own exit code.
    #[default]
    Poweroff,
    /// The VM is kept as it is, for inspection.
    Pause,
    /// The machine is reset.
    Reset,
}

word_type!(OnPanic, "action on panic", { Poweroff = "poweroff", Pause = "pause", Reset = "reset" });

/// Arguments after `--`, given to QEMU unchanged.
pub type ExtraArguments = Vec<OsString>;
