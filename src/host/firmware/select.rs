//! Choosing firmware for a machine.

use std::io;
use std::path::Path;

use super::super::files;
use super::descriptor::{self, Descriptor, FlashFile, Mapping, Mode};
use super::{FirmwareError, FirmwareSources, FoundFirmware, well_known};
use crate::spec::{Arch, ImageFormat};

/// Firmware for a machine (its default type if none is given): what QEMU's descriptors offer, else what lies at well-known paths.
///
/// # Errors
/// There is none; the hint names the package.
pub fn find(
    arch: Arch,
    machine: Option<&str>,
    sources: &FirmwareSources,
) -> Result<FoundFirmware, FirmwareError> {
    let machine = machine.unwrap_or(arch.facts().machine);
    let described = from_descriptors(arch.qemu_name(), &versioned(machine), &sources.descriptors);
    // the well-known ones have PCI drivers for the usual machines only
    let usual = !machine.starts_with("microvm");
    let well_known = || usual.then(|| well_known::find(arch, &sources.root)).flatten();
    described.or_else(well_known).ok_or_else(|| FirmwareError::NotFound { arch, machine: machine.to_owned() })
}

/// Firmware by path (`--fw`): a folder that has some under a known name, or the code file itself.
///
/// # Errors
/// It is not there, or the folder has none.
pub fn given(arch: Arch, path: &Path) -> Result<FoundFirmware, FirmwareError> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if path.is_dir() {
        return well_known::in_folder(arch, &path).ok_or(FirmwareError::NoneInFolder { folder: path, arch });
    }
    match files::open(&path) {
        Ok(_) => Ok(well_known::beside(&path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FirmwareError::Missing(path)),
        Err(source) => Err(FirmwareError::Unreadable { path, source }),
    }
}

/// Descriptors name versioned machine types; which version does not matter to them.
fn versioned(machine: &str) -> String {
    // `q35,smm=on`: options are not part of the type
    let kind = machine.split(',').next().unwrap_or(machine);
    match kind {
        "q35" => "pc-q35-7.2".to_owned(),
        "pc" => "pc-i440fx-7.2".to_owned(),
        "virt" => "virt-7.2".to_owned(),
        other => other.to_owned(),
    }
}

fn from_descriptors(
    architecture: &str,
    machine: &str,
    folders: &[std::path::PathBuf],
) -> Option<FoundFirmware> {
    let usable = descriptor::read_all(folders)
        .into_iter()
        .filter(|descriptor| descriptor.is_for(architecture, machine))
        .filter_map(|descriptor| Some((burden(&descriptor), firmware(&descriptor)?)));
    // among equals this is the first, as the descriptors' own order wants it
    usable.min_by_key(|(burden, _)| *burden).map(|(_, firmware)| firmware)
}

/// What speaks against a firmware for a guest that nothing is known of. Distributions list secure boot with enrolled keys
/// first, which refuses unsigned systems, and SMM, which is slow without KVM.
fn burden(descriptor: &Descriptor) -> [bool; 3] {
    ["enrolled-keys", "requires-smm", "secure-boot"].map(|feature| descriptor.has(feature))
}

/// None if its files are not there (Debian 12's descriptor of aarch64 with secure boot names one that does not exist),
/// or it is of a kind that vmrun has no use for.
fn firmware(descriptor: &Descriptor) -> Option<FoundFirmware> {
    match &descriptor.mapping {
        Mapping::Memory { filename } => filename.is_file().then(|| FoundFirmware::Bios(filename.clone())),
        Mapping::Flash { mode, executable, nvram_template } => {
            let template = match (mode, nvram_template) {
                (Mode::Split, Some(template)) => Some((template.filename.clone(), usable(template)?)),
                (Mode::Stateless, _) => None,
                _ => return None,
            };
            let code_format = usable(executable)?;
            let needs_smm = descriptor.has("requires-smm");
            Some(FoundFirmware::Flash { code: executable.filename.clone(), code_format, template, needs_smm })
        }
        Mapping::Other => None,
    }
}

/// The format of a file that is there.
fn usable(file: &FlashFile) -> Option<ImageFormat> {
    let format = match file.format.as_deref() {
        None | Some("raw") => ImageFormat::Raw,
        Some("qcow2") => ImageFormat::Qcow2,
        Some(_) => return None,
    };
    file.filename.is_file().then_some(format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::fs;
    use std::path::PathBuf;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            for folder in ["home", "etc", "share", "fw", "usr/share/OVMF"] {
                fs::create_dir_all(host.at(folder)).unwrap();
            }
            host
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn describe(&self, name: &str, code: &str, features: &[&str]) {
            let [code, vars] = [code.to_owned(), format!("{code}.vars")].map(|name| self.at("fw").join(name));
            fs::write(&code, "code").unwrap();
            fs::write(&vars, "vars").unwrap();
            let mapping = json!({ "device": "flash", "executable": { "filename": code, "format": "raw" },
                "nvram-template": { "filename": vars, "format": "raw" } });
            self.write(name, &mapping, features);
        }

        fn write(&self, name: &str, mapping: &Value, features: &[&str]) {
            let json = json!({ "description": "d", "interface-types": ["uefi"], "mapping": mapping, "features": features, "tags": [],
                "targets": [{ "architecture": "x86_64", "machines": ["pc-q35-*"] }] });
            fs::write(self.at(name), json.to_string()).unwrap();
        }

        fn sources(&self) -> FirmwareSources {
            let descriptors = ["home", "etc", "share"].map(|folder| self.at(folder)).to_vec();
            FirmwareSources { descriptors, root: self.0.path().to_owned() }
        }

        /// The name of the code file that is found.
        fn found(&self, machine: Option<&str>) -> Option<String> {
            let (FoundFirmware::Flash { code, .. } | FoundFirmware::Bios(code)) =
                find(Arch::X86_64, machine, &self.sources()).ok()?;
            Some(code.file_name().unwrap().to_str().unwrap().to_owned())
        }
    }

    #[test]
    fn the_first_without_burdens_is_taken() {
        let host = Host::new();
        host.describe("share/40.json", "enrolled", &["enrolled-keys", "secure-boot", "requires-smm"]);
        assert_eq!(host.found(None).unwrap(), "enrolled");
        host.describe("share/50.json", "smm", &["secure-boot", "requires-smm"]);
        assert_eq!(host.found(None).unwrap(), "smm");
        host.describe("share/60.json", "plain", &["acpi-s3"]);
        host.describe("share/70.json", "later", &[]);
        assert_eq!(host.found(Some("pc-q35-9.0")).unwrap(), "plain");
        assert_eq!(host.found(Some("pc")), None);
    }

    #[test]
    fn a_more_important_folder_masks_and_an_empty_file_removes() {
        let host = Host::new();
        host.describe("share/60.json", "distribution", &[]);
        host.describe("etc/60.json", "administrator", &[]);
        assert_eq!(host.found(None).unwrap(), "administrator");
        fs::write(host.at("home/60.json"), "").unwrap();
        assert_eq!(host.found(None), None);
        host.describe("share/61.json", "other", &[]);
        host.describe("home/99.json", "by-name", &[]);
        assert_eq!(host.found(None).unwrap(), "other");
    }

    #[test]
    fn descriptors_of_no_use_are_passed_over() {
        let host = Host::new();
        let plain = json!({ "filename": host.at("fw/plain"), "format": "raw" });
        fs::write(host.at("fw/plain"), "x").unwrap();
        let missing = json!({ "filename": "/nonexistent", "format": "raw" });
        host.write(
            "share/1.json",
            &json!({ "device": "flash", "executable": missing, "nvram-template": plain }),
            &[],
        );
        host.write(
            "share/2.json",
            &json!({ "device": "flash", "mode": "combined", "executable": plain }),
            &[],
        );
        host.write("share/3.json", &json!({ "device": "kernel", "filename": host.at("fw/plain") }), &[]);
        fs::write(host.at("share/4.json"), "{ damaged").unwrap();
        assert_eq!(host.found(None), None);
        host.write(
            "share/5.json",
            &json!({ "device": "flash", "mode": "stateless", "executable": plain }),
            &[],
        );
        let found = find(Arch::X86_64, None, &host.sources()).unwrap();
        assert!(matches!(found, FoundFirmware::Flash { template: None, .. }));
        host.write("share/0.json", &json!({ "device": "memory", "filename": host.at("fw/plain") }), &[]);
        assert_eq!(
            find(Arch::X86_64, None, &host.sources()).unwrap(),
            FoundFirmware::Bios(host.at("fw/plain"))
        );
    }

    #[test]
    fn well_known_places_come_last() {
        let host = Host::new();
        assert!(matches!(find(Arch::X86_64, None, &host.sources()), Err(FirmwareError::NotFound { .. })));
        fs::write(host.at("usr/share/OVMF/OVMF_CODE_4M.fd"), "x").unwrap();
        assert_eq!(host.found(None), None);
        fs::write(host.at("usr/share/OVMF/OVMF_VARS_4M.fd"), "x").unwrap();
        assert_eq!(host.found(None).unwrap(), "OVMF_CODE_4M.fd");
        assert_eq!(host.found(Some("microvm")), None);
        host.describe("share/60.json", "described", &[]);
        assert_eq!(host.found(None).unwrap(), "described");
    }

    #[test]
    fn a_path_given_is_taken_with_the_variables_beside_it() {
        let host = Host::new();
        let (code, folder) = (host.at("fw/OVMF_CODE_4M.secboot.fd"), host.at("fw"));
        fs::write(&code, "x").unwrap();
        assert_eq!(given(Arch::X86_64, &code).unwrap(), FoundFirmware::Bios(code.clone()));
        fs::write(host.at("fw/OVMF_VARS_4M.fd"), "x").unwrap();
        let found = given(Arch::X86_64, &code).unwrap();
        let template = Some((host.at("fw/OVMF_VARS_4M.fd"), ImageFormat::Raw));
        assert_eq!(
            found,
            FoundFirmware::Flash { code, code_format: ImageFormat::Raw, template, needs_smm: true }
        );
        assert!(matches!(given(Arch::X86_64, &folder), Err(FirmwareError::NoneInFolder { .. })));
        fs::write(host.at("fw/bios.bin"), "x").unwrap();
        assert_eq!(given(Arch::X86_64, &folder).unwrap(), FoundFirmware::Bios(host.at("fw/bios.bin")));
        assert!(matches!(given(Arch::X86_64, Path::new("/no/such")), Err(FirmwareError::Missing(_))));
    }

    #[test]
    fn what_is_installed_here_is_found() {
        let sources = FirmwareSources::standard(None);
        if Path::new("/usr/share/qemu/firmware/60-edk2-x86_64.json").exists() {
            let found = find(Arch::X86_64, None, &sources).unwrap();
            assert!(
                matches!(found, FoundFirmware::Flash { template: Some(_), needs_smm: false, .. }),
                "{found:?}"
            );
        }
    }
}
