//! From the flags of `vmrun qemu` to the request.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::{ForkArgs, QemuArgs, VmArgs};
use crate::cli::failure::Failure;
use crate::host::files;
use crate::host::iso::MAX_DATA_BYTES;
use crate::spec::{BootMode, DiskSpec, Display, Request};

impl QemuArgs {
    /// The request of these flags.
    pub(in crate::cli) fn request(self) -> Result<Request, Failure> {
        let (extra, max_lifetime) = (self.extra, self.run.max_lifetime);
        Ok(Request { extra, max_lifetime, ..self.vm.request()? })
    }
}

impl VmArgs {
    /// The request of these flags.
    pub(in crate::cli) fn request(self) -> Result<Request, Failure> {
        let linuxkit = self.boot.linuxkit;
        let kernel = self.boot.kernel.as_ref().filter(|file| !file.is_empty()).map(PathBuf::from);
        let boot = match (self.boot.kernel.is_some() && kernel.is_none(), self.boot.iso, self.boot.squashfs) {
            (true, _, _) => BootMode::Kernel,
            (_, true, _) => BootMode::Iso,
            (_, _, true) => BootMode::Squashfs,
            _ => BootMode::Auto,
        };
        let display = match (self.devices.gui, self.devices.display) {
            (true, _) => Display::Gui,
            (false, display) => display.unwrap_or_default(),
        };
        let (image, image_options) = image(self.image)?;
        Ok(Request {
            image,
            image_options,
            unpack: self.storage.unpack,
            restore: self.restore,
            from: self.from,
            forkable: self.own.forkable,
            warm: self.own.warm,
            boot,
            kernel,
            initrd: self.boot.initrd,
            append: self.boot.append,
            linuxkit,
            uefi: self.boot.uefi,
            firmware: self.boot.fw,
            display,
            disks: self.storage.disk.into_iter().map(|disk| disk.meant(linuxkit)).collect(),
            allow_backing: self.storage.allow_backing,
            data: metadata(self.storage.data, self.storage.data_file)?,
            accel: self.machine.accel,
            arch: self.machine.arch,
            cpus: self.machine.cpus,
            memory: self.machine.mem,
            cpu: self.machine.cpu,
            machine: self.machine.machine,
            qemu: self.machine.qemu,
            networking: self.network.networking,
            nics: self.network.nic,
            boot_order: self.boot.boot.unwrap_or_default(),
            publish: self.network.publish.into_iter().map(|forward| forward.meant(linuxkit)).collect(),
            usb: self.devices.usb,
            devices: self.devices.device,
            shares: self.devices.virtiofs,
            virtiofsd: self.devices.virtiofsd,
            state: self.storage.state,
            // the value comes from the environment
            runtime: None,
            state_home: None,
            name: self.own.name,
            uuid: self.machine.uuid,
            hotplug_slots: self.devices.hotplug_slots,
            stop_timeout: self.own.stop_timeout,
            ephemeral: self.storage.ephemeral,
            on_panic: self.machine.life.on_panic,
            no_reboot: self.machine.life.no_reboot,
            paused: self.machine.life.paused,
            max_resets: self.machine.life.max_resets,
            max_lifetime: None,
            log_size: self.own.log_size,
            keep_logs: self.own.keep_logs,
            qmp: self.own.qmp,
            sandbox: !self.machine.life.no_sandbox,
            extra: Vec::new(),
        })
    }
}

impl ForkArgs {
    /// The request for a fork of the template in this folder.
    pub(in crate::cli) fn request(self, template: &Path) -> Request {
        let Self { network, life } = self;
        Request {
            from: Some(template.to_owned()),
            networking: network.networking,
            nics: network.nic,
            publish: network.publish.into_iter().map(|forward| forward.meant(false)).collect(),
            on_panic: life.on_panic,
            no_reboot: life.no_reboot,
            paused: life.paused,
            max_resets: life.max_resets,
            sandbox: !life.no_sandbox,
            ..Request::default()
        }
    }
}

/// IMAGE with options after a comma; an existing file of that whole name takes precedence.
fn image(typed: Option<PathBuf>) -> Result<(Option<PathBuf>, DiskSpec), Failure> {
    let exists = |suffix: &str| {
        let mut name = typed.clone().unwrap_or_default().into_os_string();
        name.push(suffix);
        std::fs::metadata(name).is_ok()
    };
    match &typed {
        Some(text) if has_options(text) && !exists("") && !exists("-kernel") => {
            let disk = DiskSpec::parse(text.as_os_str())
                .map_err(|error| Failure::usage(format!("IMAGE {}: {error}", text.display())))?;
            Ok((disk.file.clone(), disk))
        }
        _ => Ok((typed, DiskSpec::default())),
    }
}

/// Whether it looks like a value of `--disk`, and not only like a name.
fn has_options(text: &Path) -> bool {
    let bytes = text.as_os_str().as_encoded_bytes();
    bytes.contains(&b',') || bytes.starts_with(b"file=")
}

fn metadata(text: Option<OsString>, file: Option<PathBuf>) -> Result<Option<Vec<u8>>, Failure> {
    match (text, file) {
        (Some(text), _) => Ok(Some(text.into_vec())),
        (None, Some(path)) => {
            let mut bytes = Vec::new();
            files::open_input(&path)
                .and_then(|(file, _)| file.take(MAX_DATA_BYTES as u64 + 1).read_to_end(&mut bytes))
                .map_err(|error| Failure::other(format!("metadata file {}: {error}", path.display())))?;
            Ok(Some(bytes))
        }
        (None, None) => Ok(None),
    }
}
