//! The command line that `linuxkit run qemu` makes, flag for flag and in its order (`buildQemuCmdline` in its
//! `src/cmd/linuxkit/run_qemu.go`), with the accelerator that we use. linuxkit itself need not be installed.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The name in the table.
pub(crate) const LINUXKIT: &str = "linuxkit's command line";

/// What of it differs from run to run.
pub(crate) struct Options<'a> {
    pub(crate) prefix: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) disk: Option<&'a Path>,
    /// A host port that leads to the guest's port 80.
    pub(crate) port: Option<u16>,
}

/// A VM started by it; killed when this is dropped.
pub(crate) struct Vm(pub(crate) Child);

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start(options: &Options<'_>) -> Vm {
    let file = |end: &str| format!("{}{end}", options.prefix.display());
    let cmdline = std::fs::read_to_string(file("-cmdline")).unwrap();
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-smp", "1", "-m", "1024", "-uuid", "6f1d32a8-1a5f-4c52-9ad2-1f6d3c1c4e0b", "-pidfile"]);
    command.arg(options.folder.join("qemu.pid")).args(["-machine", "q35,accel=tcg"]);
    command.args([
        "-object",
        "rng-random,id=rng0,filename=/dev/urandom",
        "-device",
        "virtio-rng-pci,rng=rng0",
    ]);
    if let Some(disk) = options.disk {
        command.args(["-drive", &format!("file={},format=raw,index=0,media=disk", disk.display())]);
    }
    command.args(["-kernel", &file("-kernel"), "-initrd", &file("-initrd.img"), "-append", &cmdline]);
    command.args(["-device", "virtio-net-pci,netdev=t0,mac=5a:94:ef:e4:0c:ee", "-netdev"]);
    let forward = options.port.map(|port| format!(",hostfwd=tcp::{port}-:80")).unwrap_or_default();
    command.arg(format!("user,id=t0{forward}")).arg("-nographic");
    Vm(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
}

/// The same kernel in a QEMU that has nothing but a serial port: no launcher can boot it sooner.
pub(crate) fn start_kernel(prefix: &Path, machine: &str) -> Vm {
    let file = |end: &str| format!("{}{end}", prefix.display());
    let cmdline = std::fs::read_to_string(file("-cmdline")).unwrap();
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-machine", machine]);
    command.args([
        "-accel",
        "tcg",
        "-m",
        "1024",
        "-kernel",
        &file("-kernel"),
        "-initrd",
        &file("-initrd.img"),
    ]);
    command.args(["-append", &cmdline]);
    Vm(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
}
