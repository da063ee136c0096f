//! libvirt beside us: its daemons, started by hand in a folder of their own and ended again.
//!
//! It is asked for `qemu:///session`, its mode without root, which is also the one that keeps all its files below `$HOME` and
//! `$XDG_RUNTIME_DIR`. Its daemon has that mode only for others than root, so root becomes `nobody` for it.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::idle::switches;
use super::support::processes;

/// The name in the table.
pub(crate) const VIRSH: &str = "virsh";

const NOBODY: u32 = 65534;
const STARTING: Duration = Duration::from_secs(30);
/// Daemons that were not woken for so long have nothing to do.
const IDLE: Duration = Duration::from_millis(50);

/// libvirtd and virtlogd with one domain, `peer`.
pub(crate) struct Libvirt {
    folder: TempDir,
    daemons: Vec<Child>,
}

impl Libvirt {
    /// Starts them; none if they are not installed.
    pub(crate) fn start(image: &Path) -> Option<Self> {
        for program in ["virsh", "libvirtd", "virtlogd"] {
            if which::which_in(program, Some(PATH), "/").is_err() {
                return None;
            }
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("run")).unwrap();
        std::fs::copy(image, folder.path().join("disk.img")).unwrap();
        for (name, text) in [("domain.xml", domain(folder.path())), ("keyboard.xml", KEYBOARD.to_owned())] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        for path in ["", "run", "disk.img", "domain.xml", "keyboard.xml"] {
            let path = folder.path().join(path);
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
            if nix::unistd::geteuid().is_root() {
                chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let mut libvirt = Self { folder, daemons: Vec::new() };
        for (daemon, socket) in [("virtlogd", "virtlogd-sock"), ("libvirtd", "libvirt-sock")] {
            let child = libvirt.command(daemon).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            libvirt.daemons.push(child);
            let socket = libvirt.folder.path().join("run/libvirt").join(socket);
            assert!(processes::within(STARTING, || socket.exists()), "{daemon} does not start");
        }
        libvirt.run(&["define", "domain.xml"]);
        Some(libvirt)
    }

    /// A `virsh` command.
    pub(crate) fn virsh(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("virsh");
        command.args(["-q", "-c", "qemu:///session"]).args(arguments);
        command
    }

    /// Runs one, which must succeed.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) {
        let output = self.virsh(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Waits until its daemons have nothing to do.
    pub(crate) fn settles(&self) {
        let daemons = self.daemons();
        let is_idle = || {
            let before = switches(&daemons);
            std::thread::sleep(IDLE);
            switches(&daemons) == before
        };
        assert!(processes::within(STARTING, is_idle), "libvirt does not come to rest");
    }

    /// The process ids of its daemons.
    pub(crate) fn daemons(&self) -> Vec<i32> {
        self.daemons.iter().map(|child| i32::try_from(child.id()).unwrap()).collect()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(which::which_in(program, Some(PATH), "/").unwrap());
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path().join("run"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let _ = self.virsh(&["destroy", "peer"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        for daemon in self.daemons.iter_mut().rev() {
            processes::send(i32::try_from(daemon.id()).unwrap(), nix::sys::signal::Signal::SIGTERM);
            let _ = daemon.wait();
        }
    }
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What `vmrun qemu --usb` makes: the same machine, memory, disk, network card and console.
fn domain(folder: &Path) -> String {
    format!(
        "<domain type='qemu'><name>peer</name><memory unit='MiB'>1024</memory><vcpu>1</vcpu>
        <os><type arch='x86_64' machine='q35'>hvm</type></os><devices>
        <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}/disk.img'/>
        <target dev='vda' bus='virtio'/></disk>
        <interface type='user'><model type='virtio'/></interface><serial type='pty'/>
        <controller type='usb' model='qemu-xhci'/><memballoon model='none'/><video><model type='none'/></video>
        </devices></domain>",
        folder.display()
    )
}

const KEYBOARD: &str = "<input type='keyboard' bus='usb'/>";
