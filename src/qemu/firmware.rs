//! Firmware: flash chips or a BIOS image.

use std::ffi::OsString;

use super::{BlockNode, block};
use crate::spec::{Firmware, Image, VmSpec};

/// Read-only code.
const CODE: &str = "pflash0";
/// The VM's own variables.
pub(super) const VARS: &str = "pflash1";

/// The nodes behind the flash chips.
pub(super) fn nodes(spec: &VmSpec) -> Vec<BlockNode> {
    let Some(Firmware::Flash { code, code_format, vars, vars_format, .. }) = &spec.firmware else {
        return Vec::new();
    };
    let mut nodes = block::image(CODE, &Image::alone(code, *code_format), true).to_vec();
    let image = |vars| block::image(VARS, &Image::alone(vars, *vars_format), false);
    nodes.extend(vars.iter().flat_map(image));
    nodes
}

/// The chips, as options of `-machine`.
pub(super) fn machine_options(spec: &VmSpec) -> Vec<String> {
    let Some(Firmware::Flash { vars, needs_smm, .. }) = &spec.firmware else { return Vec::new() };
    let mut options = vec![format!("pflash0={CODE}")];
    options.extend(vars.iter().map(|_| format!("pflash1={VARS}")));
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
