//! Firmware made ready for a VM: with variables of its own.

use std::fs;
use std::io;
use std::path::Path;

use super::{FirmwareError, FoundFirmware};
use crate::host::dirs::StateDir;
use crate::host::files;
use crate::spec::{Firmware, ImageFormat};

/// The VM's variables in the state directory.
pub const VARS_FILE: &str = "uefi-vars.fd";

/// Gives the VM its own copy of the variables: made once, kept for good, since the guest's boot entries are in it.
///
/// # Errors
/// The copy cannot be made, or the one there is of other firmware.
pub fn prepare(found: FoundFirmware, state: &StateDir) -> Result<Firmware, FirmwareError> {
    match found {
        FoundFirmware::Bios(path) => Ok(Firmware::Bios { path }),
        FoundFirmware::Flash { code, code_format, template: None, needs_smm } => {
            Ok(Firmware::Flash { code, code_format, vars: None, vars_format: ImageFormat::Raw, needs_smm })
        }
        FoundFirmware::Flash { code, code_format, template: Some((template, vars_format)), needs_smm } => {
            let vars = state.path().join(VARS_FILE);
            match fs::symlink_metadata(&vars) {
                Ok(there) if there.is_symlink() => return Err(FirmwareError::Link(vars)),
                Ok(there) => check_size(&vars, there.len(), &template, vars_format)?,
                Err(_) => copy(&template, state)?,
            }
            Ok(Firmware::Flash { code, code_format, vars: Some(vars), vars_format, needs_smm })
        }
    }
}

fn copy(template: &Path, state: &StateDir) -> Result<(), FirmwareError> {
    let copied = files::open(template)
        .and_then(|(mut from, _)| state.replace(VARS_FILE, |to| io::copy(&mut from, to).map(drop)));
    copied.map_err(|source| FirmwareError::Copy { template: template.to_owned(), source })
}

/// Flash chips of another size would be another machine: QEMU or the firmware would stop without a word on the console.
fn check_size(vars: &Path, found: u64, template: &Path, format: ImageFormat) -> Result<(), FirmwareError> {
    let expected = fs::metadata(template)
        .map_err(|source| FirmwareError::Copy { template: template.to_owned(), source })?
        .len();
    // qcow2 files grow
    if format == ImageFormat::Raw && found != expected {
        return Err(FirmwareError::OtherVariables { vars: vars.to_owned(), found, expected });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn flash(template: Option<PathBuf>) -> FoundFirmware {
        let template = template.map(|template| (template, ImageFormat::Raw));
        FoundFirmware::Flash {
            code: "/code".into(),
            code_format: ImageFormat::Raw,
            template,
            needs_smm: false,
        }
    }

    #[test]
    fn variables_are_copied_once_and_kept() {
        let root = tempfile::tempdir().unwrap();
        let template = root.path().join("template");
        fs::write(&template, "empty").unwrap();
        let state = StateDir::open(&root.path().join("state")).unwrap();
        let Firmware::Flash { vars: Some(vars), .. } =
            prepare(flash(Some(template.clone())), &state).unwrap()
        else {
            panic!("no variables");
        };
        assert_eq!(fs::read(&vars).unwrap(), b"empty");
        fs::write(&vars, "BOOT1").unwrap();
        prepare(flash(Some(template.clone())), &state).unwrap();
        assert_eq!(fs::read(&vars).unwrap(), b"BOOT1");
        fs::write(&template, "of another size").unwrap();
        let error = prepare(flash(Some(template)), &state).unwrap_err();
        assert!(matches!(error, FirmwareError::OtherVariables { found: 5, expected: 15, .. }));
        assert!(error.hint().unwrap().contains("uefi-vars.fd"));
    }

    #[test]
    fn a_template_that_cannot_be_read_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(&root.path().join("state")).unwrap();
        let error = prepare(flash(Some(root.path().join("none"))), &state).unwrap_err();
        assert!(matches!(error, FirmwareError::Copy { .. }));
        assert!(!state.path().join(VARS_FILE).exists());
        assert!(matches!(prepare(flash(None), &state).unwrap(), Firmware::Flash { vars: None, .. }));
    }
}
