//! The Debian guest of `tests/guest-debian`: systemd, sshd, cloud-init.

use std::path::{Path, PathBuf};

/// Its folder; `make test-debian` builds it and says where it is.
#[track_caller]
fn folder() -> PathBuf {
    let told = std::env::var_os("VMRUN_TEST_GUEST_DEBIAN");
    told.expect("VMRUN_TEST_GUEST_DEBIAN is not set: use `make test-debian`").into()
}

/// The arguments of `vmrun qemu` or `vmrun run` that boot it; its disk is not written to.
#[track_caller]
pub(crate) fn arguments() -> Vec<String> {
    let folder = folder();
    let file = |name: &str| folder.join(name).display().to_string();
    let command_line = std::fs::read_to_string(Path::new(&file("cmdline"))).unwrap();
    vec![
        format!("--kernel={}", file("kernel")),
        "--initrd".to_owned(),
        file("initrd"),
        "--append".to_owned(),
        command_line.trim().to_owned(),
        "--mem".to_owned(),
        "512".to_owned(),
        "--ephemeral".to_owned(),
        file("disk.raw"),
    ]
}
