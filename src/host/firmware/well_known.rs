//! Where firmware lies that has no descriptor, and how a code file's variables are called.

use std::path::{Path, PathBuf};

use super::FoundFirmware;
use crate::spec::{Arch, ImageFormat};

/// Code, and the variables beside it; none = one image for `-bios`.
type Known = (&'static str, Option<&'static str>);

const X86_64: [Known; 12] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", Some("OVMF_VARS_4M.fd")),
    ("/usr/share/OVMF/OVMF_CODE.fd", Some("OVMF_VARS.fd")),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", Some("OVMF_VARS.4m.fd")),
    ("/usr/share/edk2/x64/OVMF_CODE.fd", Some("OVMF_VARS.fd")),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", Some("OVMF_VARS.fd")),
    ("/usr/share/edk2-ovmf/OVMF_CODE.fd", Some("OVMF_VARS.fd")),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", Some("ovmf-x86_64-vars.bin")),
    ("/usr/share/qemu/edk2-x86_64-code.fd", Some("edk2-i386-vars.fd")),
    ("/usr/local/share/qemu/edk2-x86_64-code.fd", Some("edk2-i386-vars.fd")),
    ("/usr/share/ovmf/OVMF.fd", None),
    ("/usr/share/qemu/OVMF.fd", None),
    ("/usr/share/ovmf/bios.bin", None),
];
const AARCH64: [Known; 7] = [
    ("/usr/share/AAVMF/AAVMF_CODE.fd", Some("AAVMF_VARS.fd")),
    ("/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", Some("AAVMF_VARS.fd")),
    ("/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", Some("vars-template-pflash.raw")),
    ("/usr/share/edk2/aarch64/QEMU_CODE.fd", Some("QEMU_VARS.fd")),
    ("/usr/share/qemu/edk2-aarch64-code.fd", Some("edk2-arm-vars.fd")),
    ("/usr/local/share/qemu/edk2-aarch64-code.fd", Some("edk2-arm-vars.fd")),
    ("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd", None),
];
const RISCV64: [Known; 3] = [
    ("/usr/share/qemu-efi-riscv64/RISCV_VIRT_CODE.fd", Some("RISCV_VIRT_VARS.fd")),
    ("/usr/share/edk2/riscv/RISCV_VIRT_CODE.fd", Some("RISCV_VIRT_VARS.fd")),
    ("/usr/share/qemu/edk2-riscv-code.fd", Some("edk2-riscv-vars.fd")),
];

fn known(arch: Arch) -> &'static [Known] {
    match arch {
        Arch::X86_64 => &X86_64,
        Arch::Aarch64 => &AARCH64,
        Arch::Riscv64 => &RISCV64,
        Arch::S390x => &[],
    }
}

/// The first well-known path with firmware.
pub(super) fn find(arch: Arch, root: &Path) -> Option<FoundFirmware> {
    let under_root = |(code, vars): &Known| (root.join(code.trim_start_matches('/')), *vars);
    known(arch).iter().map(under_root).find_map(|(code, vars)| firmware(code, vars))
}

/// Firmware in a folder, under one of the names that it has at well-known paths.
pub(super) fn in_folder(arch: Arch, folder: &Path) -> Option<FoundFirmware> {
    let in_folder =
        |(code, vars): &Known| (folder.join(Path::new(code).file_name().unwrap_or_default()), *vars);
    known(arch).iter().map(in_folder).find_map(|(code, vars)| firmware(code, vars))
}

fn firmware(code: PathBuf, vars: Option<&str>) -> Option<FoundFirmware> {
    if !code.is_file() {
        return None;
    }
    let Some(vars) = vars else { return Some(FoundFirmware::Bios(code)) };
    let vars = code.with_file_name(vars);
    vars.is_file().then(|| flash(code, vars))
}

fn flash(code: PathBuf, vars: PathBuf) -> FoundFirmware {
    let needs_smm = is_secure_boot_build(&code);
    let format = |path: &Path| match path.extension() {
        Some(extension) if extension == "qcow2" => ImageFormat::Qcow2,
        _ => ImageFormat::Raw,
    };
    let code_format = format(&code);
    let vars_format = format(&vars);
    FoundFirmware::Flash { code, code_format, template: Some((vars, vars_format)), needs_smm }
}

/// x86 builds with secure boot are named `OVMF_CODE….secboot.fd`, or link to such a file (`….ms.fd`), and do not start without SMM.
fn is_secure_boot_build(code: &Path) -> bool {
    let real = code.canonicalize().unwrap_or_else(|_| code.to_owned());
    let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.contains("OVMF") && name.contains("secboot") || name.contains("x86_64-secure")
}

/// A code file that was given: with the variables that lie beside it if there are, else as one image.
pub(super) fn beside(code: &Path) -> FoundFirmware {
    let name = code.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let known = [X86_64.as_slice(), &AARCH64, &RISCV64].concat().into_iter().find_map(|(known, vars)| {
        vars.filter(|_| Path::new(known).file_name().is_some_and(|known| known == name.as_str()))
    });
    // OVMF_CODE_4M.secboot.fd goes with OVMF_VARS_4M.fd
    let renamed = [name.replace("CODE", "VARS"), name.replace("code", "vars")];
    let without_secboot = renamed.clone().map(|name| name.replace(".secboot", ""));
    let candidates = known.map(str::to_owned).into_iter().chain(renamed).chain(without_secboot);
    let vars = candidates
        .filter(|vars| *vars != name)
        .map(|vars| code.with_file_name(vars))
        .find(|vars| vars.is_file());
    match vars {
        Some(vars) => flash(code.to_owned(), vars),
        None => FoundFirmware::Bios(code.to_owned()),
    }
}
