//! What QEMU itself loads: kernel, initial RAM disk, command line.

use std::ffi::OsString;

use crate::spec::{Boot, VmSpec};

/// The squashfs image is the first disk, and always a virtio one.
const SQUASHFS_ROOT: &str = "root=/dev/vda";

/// `-kernel`, `-initrd`, `-append`.
pub(super) fn arguments(spec: &VmSpec) -> Vec<OsString> {
    match &spec.boot {
        Boot::Disk | Boot::Iso { .. } => Vec::new(),
        Boot::Kernel { kernel, initrd, cmdline } => {
            let mut arguments: Vec<OsString> = vec!["-kernel".into(), kernel.into()];
            arguments.extend(initrd.iter().flat_map(|initrd| ["-initrd".into(), initrd.into()]));
            if !cmdline.is_empty() {
                arguments.extend(["-append".into(), cmdline.into()]);
            }
            arguments
        }
        Boot::Squashfs { kernel, cmdline, .. } => {
            let cmdline = format!("{SQUASHFS_ROOT} {cmdline}");
            vec!["-kernel".into(), kernel.into(), "-append".into(), cmdline.trim_end().into()]
        }
    }
}
