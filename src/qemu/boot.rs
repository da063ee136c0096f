//! What QEMU itself loads: kernel, initial RAM disk, command line.

use std::ffi::OsString;

use crate::spec::{Boot, VmSpec};

/// The squashfs image is the first disk of its kind.
const VIRTIO_ROOT: &str = "root=/dev/vda";
const SATA_ROOT: &str = "root=/dev/sda";

/// `-kernel`, `-initrd`, `-append`.
pub(super) fn arguments(spec: &VmSpec) -> Vec<OsString> {
    let (kernel, initrd) = match &spec.boot {
        Boot::Disk | Boot::Firmware | Boot::Iso { .. } => return Vec::new(),
        Boot::Kernel { kernel, initrd, .. } => (kernel, initrd.as_ref()),
        Boot::Squashfs { kernel, .. } => (kernel, None),
    };
    let mut arguments: Vec<OsString> = vec!["-kernel".into(), kernel.into()];
    arguments.extend(initrd.into_iter().flat_map(|initrd| ["-initrd".into(), initrd.into()]));
    let cmdline = command_line(&spec.boot);
    if !cmdline.is_empty() {
        arguments.extend(["-append".into(), cmdline.into()]);
    }
    arguments
}

/// The command line that the kernel gets.
pub(super) fn command_line(boot: &Boot) -> String {
    match boot {
        Boot::Disk | Boot::Firmware | Boot::Iso { .. } => String::new(),
        Boot::Kernel { cmdline, .. } => cmdline.clone(),
        Boot::Squashfs { cmdline, append, sata, .. } => {
            let root = if *sata { SATA_ROOT } else { VIRTIO_ROOT };
            // of two equal parameters Linux takes the last
            let words = [cmdline.as_str(), root, append.as_str()];
            words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        }
    }
}
