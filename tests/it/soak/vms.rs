//! The VMs of the soak, started in each way there is.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::runtime::Runtime;
use vmrun::{Machine, Request};

use crate::support::boot_sector::{self, Guest};
use crate::support::processes::{eventually, has_ended, send};
use crate::support::sandbox::{Foreground, Sandbox};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Detached,
    Foreground,
    Wrapped,
    Library,
}

/// What this process has of a VM.
enum Held {
    Nothing,
    Process(Foreground),
    Machine(Machine),
}

pub(super) struct Vm {
    pub(super) name: String,
    pub(super) kind: Kind,
    held: Held,
}

impl Vm {
    /// It runs when this returns.
    pub(super) fn start(sandbox: &Sandbox, runtime: &Runtime, name: &str, kind: Kind) -> Self {
        let image = image(sandbox, name);
        let image = image.to_str().unwrap();
        let mut options = vec!["--name", name, "--mem", "32M", "--publish", "0:22", "--usb", image];
        // with a CD-ROM drive, whose medium can be changed
        if kind == Kind::Detached {
            options.extend(["--data", "soak"]);
        }
        // with disks that can hold a snapshot
        if name.ends_with(['1', '3', '5']) {
            options.push("--ephemeral");
        }
        let held = match kind {
            Kind::Detached => {
                assert_eq!(sandbox.detached(options), name);
                Held::Nothing
            }
            Kind::Foreground => Held::Process(sandbox.foreground(options)),
            Kind::Wrapped => {
                let mut command = sandbox.vmrun();
                command.args(["wrap", "--name", name, "--", "qemu-system-x86_64", "-M", "q35", "-m", "32"]);
                command.args(["-accel", "tcg", "-display", "none", "-device", "qemu-xhci,id=xhci"]);
                command.args(["-device", "pcie-root-port,id=rp1,chassis=1", "-nic", "user"]);
                command.arg("-drive").arg(format!("file={image},format=raw,if=virtio"));
                Held::Process(Foreground::start(command))
            }
            Kind::Library => {
                let request = Request {
                    name: Some(name.parse().unwrap()),
                    runtime: Some(sandbox.path().join("run")),
                    state_home: Some(sandbox.state_home()),
                    accel: Some("tcg".parse().unwrap()),
                    memory: "32M".parse().unwrap(),
                    usb: true,
                    ..Request::of(image)
                };
                Held::Machine(runtime.block_on(Machine::launch(request)).unwrap())
            }
        };
        eventually("the VM is there", || {
            sandbox.ctl(["--vm", name, "wait", "running", "--timeout", "30s"]).code == 0
        });
        Self { name: name.to_owned(), kind, held }
    }

    /// That it has ended, of itself or by force.
    pub(super) fn ended(self, sandbox: &Sandbox) {
        let folder = sandbox.runtime().join(&self.name);
        match self.held {
            Held::Process(process) => drop(process.end()),
            // a look at it clears what a killed supervisor has left
            Held::Machine(machine) => drop(machine),
            Held::Nothing => {}
        }
        eventually("its run directory is gone", || {
            sandbox.run(["ls"]);
            !folder.exists()
        });
    }
}

fn image(sandbox: &Sandbox, name: &str) -> PathBuf {
    std::fs::write(sandbox.file("soak.iso"), [0; 1 << 16]).unwrap();
    let path = sandbox.file(format!("{name}.img"));
    if !path.exists() {
        boot_sector::write(Guest::ReactsToButton, &path);
    }
    path
}

/// Kills a process, and waits until all of its threads have gone.
/// Whether QEMU's main loop has come to a halt elsewhere than where it waits for something to do. QEMU 7.2 does so for good when it
/// refuses a device while its guest spins without interrupts (TCG): that is no fault of whoever asked.
pub(super) fn hangs(pid: i64) -> bool {
    const POLL: [&str; 2] = ["7", "271"];
    let waits = |_| {
        std::thread::sleep(Duration::from_millis(10));
        let call = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/syscall")).unwrap();
        POLL.contains(&call.split(' ').next().unwrap())
    };
    cfg!(target_arch = "x86_64") && !(0..100).any(waits)
}

pub(super) fn kill(pid: i64) {
    let pid = i32::try_from(pid).unwrap();
    send(pid, Signal::SIGKILL);
    eventually("the killed process is gone", || has_ended(pid));
}
