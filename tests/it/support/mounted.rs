//! File systems that tests mount.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own; taken away at the end.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn tmpfs(at: &Path, options: &str) -> Self {
        std::fs::create_dir(at).unwrap();
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(at).output();
        let output = output.unwrap();
        assert!(output.status.success(), "no file system can be mounted here: {output:?}");
        Self(at.to_owned())
    }

    pub(crate) fn read_only(&self) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
