//! Firmware: flash chips or a BIOS image.

use std::ffi::OsString;
use std::path::Path;

use super::ids::Ids;
use super::{BlockNode, block};
use crate::spec::{DiskOptions, Firmware, Image, ImageFormat, VmSpec};

/// The nodes behind the flash chips.
pub(super) fn nodes(spec: &VmSpec) -> Vec<BlockNode> {
    let Some(Firmware::Flash { code, code_format, vars, vars_format, .. }) = &spec.firmware else {
        return Vec::new();
    };
    let ids = Ids::of(spec.layout);
    let chip = |name, path: &Path, format: ImageFormat, readonly| {
        block::image(name, &Image::alone(path, format), readonly, &DiskOptions::default())
    };
    let mut nodes = chip(ids.flash_code, code, *code_format, true).to_vec();
    nodes.extend(vars.iter().flat_map(|vars| chip(ids.flash_variables, vars, *vars_format, false)));
    nodes
}

/// The chips, as options of `-machine`.
pub(super) fn machine_options(spec: &VmSpec) -> Vec<String> {
    let Some(Firmware::Flash { vars, needs_smm, .. }) = &spec.firmware else { return Vec::new() };
    let ids = Ids::of(spec.layout);
    let mut options = vec![format!("pflash0={}", ids.flash_code)];
    options.extend(vars.iter().map(|_| format!("pflash1={}", ids.flash_variables)));
    options.extend(needs_smm.then(|| "smm=on".to_owned()));
    options
}

/// `-bios`.
pub(super) fn bios(spec: &VmSpec) -> Option<[OsString; 2]> {
    match &spec.firmware {
        Some(Firmware::Bios { path }) => Some(["-bios".into(), path.into()]),
        _ => None,
    }
}
