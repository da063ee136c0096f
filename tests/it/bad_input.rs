//! Bad input: each is refused with the right exit code and a message that names the part at fault, and leaves
//! everything as it was.

mod arguments;
mod control;
mod disks;
mod harness;
mod host;
mod names;
mod nics;
mod start;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::boot_sector::{self, Guest};
use crate::support::sandbox::{Done, Sandbox};

/// Neither root nor an existing user.
const NOBODY: u32 = 65534;

/// Everything under a folder: path, type and permissions, size, and when it was last changed. The folder with the
/// (empty) run directories may come into being, the times of folders do not count, an image's format is written
/// down once it was found, whatever comes of it, and a guest that runs says what it wants.
fn listing(folder: &Path) -> BTreeMap<PathBuf, (u32, u64, (i64, i64))> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let facts = std::fs::symlink_metadata(&path).unwrap();
            if facts.is_dir() {
                folders.push(path.clone());
            }
            // a USB controller that came for a device that QEMU then refused stays, and is written down as plugged
            if path.ends_with("run/vmrun")
                || ["formats.json", "console.log", "plugged.json"].iter().any(|name| path.ends_with(name))
            {
                continue;
            }
            // what goes through a pipe changes its time, and the journal says what it said before once a change is refused
            let passes = facts.is_dir() || facts.file_type().is_fifo() || path.ends_with("pending.json");
            let changed = if passes { (0, 0) } else { (facts.mtime(), facts.mtime_nsec()) };
            let size = if facts.is_dir() { 0 } else { facts.len() };
            all.insert(path, (facts.mode(), size, changed));
        }
    }
    all
}

/// A sandbox with an image `guest.img`, and a way to check that nothing of it changed.
struct Bad {
    sandbox: Sandbox,
}

impl Bad {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.boot_sector(Guest::IgnoresButton);
        Self { sandbox }
    }

    /// With a VM `vm` that runs.
    fn running() -> Self {
        let bad = Self::new();
        assert_eq!(bad.sandbox.detached(["--name", "vm", "guest.img"]), "vm");
        // a QEMU 7.2 with TCG that refuses a device may stand still until the processor is interrupted (`drain_call_rcu`): for
        // ever if the guest spins with interrupts off, as a firmware may that finds a new controller on its way
        bad.sandbox.ctl(["wait", &format!("console={}", Guest::IgnoresButton.greeting())]).ok();
        bad
    }

    /// Another boot disk.
    fn image(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.sandbox.file(name);
        boot_sector::write(Guest::IgnoresButton, &path);
        path
    }

    /// A file with this text.
    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.sandbox.file(name), text).unwrap();
    }

    fn qcow2(&self, name: &str, size: &str) {
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", name, size])
            .current_dir(self.sandbox.path())
            .status();
        assert!(made.unwrap().success());
    }

    /// Runs `vmrun`, which must fail with this code and these words, and change nothing on disk.
    #[track_caller]
    fn refused<S: AsRef<OsStr>>(&self, arguments: &[S], code: i32, words: &[&str]) -> Done {
        self.refused_as(&mut self.sandbox.vmrun(), arguments, code, words)
    }

    #[track_caller]
    fn refused_as<S: AsRef<OsStr>>(
        &self,
        command: &mut Command,
        arguments: &[S],
        code: i32,
        words: &[&str],
    ) -> Done {
        let before = listing(self.sandbox.path());
        let done = Done::of(command.args(arguments).output().unwrap()).fails(code, words);
        assert_eq!(listing(self.sandbox.path()), before, "{done:#?}");
        assert!(done.stdout.is_empty(), "{done:#?}");
        assert!(done.stderr.starts_with("vmrun: ") || done.stderr.starts_with('{'), "{done:#?}");
        for debug in ["Some(", "None", "Error {", "Os {", "RUST_BACKTRACE", "Err("] {
            assert!(!done.stderr.contains(debug), "{done:#?}");
        }
        done
    }

    /// `vmrun qemu … guest.img`
    #[track_caller]
    fn start(&self, flags: &[&str], code: i32, words: &[&str]) -> Done {
        self.refused(&[&["qemu"], flags, &["guest.img"]].concat(), code, words)
    }

    /// `vmrun ctl …`
    #[track_caller]
    fn ctl(&self, arguments: &[&str], code: i32, words: &[&str]) -> Done {
        self.refused(&[&["ctl"], arguments].concat(), code, words)
    }

    /// The same as a user without any rights; the binary is a copy that every user can reach.
    #[track_caller]
    fn start_as_nobody(&self, flags: &[&str], code: i32, words: &[&str]) -> Done {
        let mut command = self.as_nobody();
        self.refused_as(&mut command, &[&["qemu"], flags, &["guest.img"]].concat(), code, words)
    }

    /// `vmrun` as another user, with this sandbox and a runtime directory of their own.
    fn as_nobody(&self) -> Command {
        let copy = self.sandbox.file("vmrun");
        if !copy.exists() {
            std::fs::hard_link(env!("CARGO_BIN_EXE_vmrun"), &copy)
                .or_else(|_| std::fs::copy(env!("CARGO_BIN_EXE_vmrun"), &copy).map(drop))
                .unwrap();
            std::fs::set_permissions(self.sandbox.path(), PermissionsExt::from_mode(0o755)).unwrap();
            let own = self.sandbox.file("nobody");
            std::fs::create_dir(&own).unwrap();
            std::fs::set_permissions(&own, PermissionsExt::from_mode(0o700)).unwrap();
            // its folder for VMs is there already, so that a listing does not change
            std::fs::create_dir(own.join("vmrun")).unwrap();
            std::fs::set_permissions(own.join("vmrun"), PermissionsExt::from_mode(0o700)).unwrap();
            for path in [own.join("vmrun"), own] {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let ours = self.sandbox.vmrun();
        let mut command = Command::new(copy);
        command.current_dir(self.sandbox.path()).stdin(std::process::Stdio::null());
        for (name, value) in ours.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("VMRUN_RUNTIME_DIR", self.sandbox.file("nobody")).uid(NOBODY).gid(NOBODY);
        command
    }
}
