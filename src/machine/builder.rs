//! A request that is built step by step, in the words of the command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::spec::Request;

use super::{Error, Machine, blocking as twin};

/// A VM that is to be launched, by [`Machine::builder`]. Text means what it means to the flag of `vmrun qemu` of the same name; what
/// is wrong with it is told by [`Builder::launch`].
#[derive(Debug)]
#[must_use = "nothing is started before `launch`"]
pub struct Builder {
    request: Request,
    /// The first thing that was wrong.
    wrong: Option<String>,
}

impl Machine {
    /// The VM of a disk image, an ISO, or a kernel by its prefix, with everything else as usual.
    ///
    /// ```no_run
    /// # async fn test() -> Result<(), vmrun::Error> {
    /// let vm = vmrun::Machine::builder("debian.qcow2")
    ///     .ephemeral()
    ///     .mem("2G")
    ///     .cpus(2)
    ///     .disk("data.qcow2,size=1G")
    ///     .publish("8080:80")
    ///     .launch()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(image: impl Into<PathBuf>) -> Builder {
        Builder { request: Request::of(image), wrong: None }
    }
}

/// A step whose text is parsed.
macro_rules! parsed {
    ($($(#[$doc:meta])* $name:ident($request:ident, $value:ident) $set:expr;)*) => {
        $($(#[$doc])*
        pub fn $name(self, text: &str) -> Self {
            self.parsed(stringify!($name), text, |$request, $value| $set)
        })*
    };
}

impl Builder {
    parsed! {
        /// Memory, such as `2G`.
        mem(request, size) request.memory = size;
        /// One more disk: `[file=]PATH[,size=1G][,format=F][,bus=B]…`.
        disk(request, disk) request.disks.push(disk);
        /// One more network card: `user`, `tap,NAME` or `bridge,NAME`, then its options.
        nic(request, nic) request.nics.push(nic);
        /// The networking of the first card: `user`, `tap,NAME`, `bridge,NAME` or `none`.
        networking(request, networking) request.networking = Some(networking);
        /// A host port that leads to a guest port: `[ADDR:]HOST:GUEST[/tcp|udp]`.
        publish(request, forward) request.publish.push(forward);
        /// One more device: `DRIVER[,PROP=VALUE…]`.
        device(request, device) request.devices.push(device);
        /// A folder of the host that the guest can mount: `DIR[,tag=TAG]`.
        virtiofs(request, share) request.shares.push(share);
        /// Its name.
        name(request, name) request.name = Some(name);
        /// Accelerators, such as `tcg` or `kvm:tcg`.
        accel(request, accel) request.accel = Some(accel);
        /// The guest's architecture, such as `aarch64`.
        arch(request, arch) request.arch = Some(arch);
        /// What to show: `none`, `gui`, `vnc`…
        display(request, display) request.display = display;
        /// What happens when the guest's kernel panics: `exit`, `pause` or `reset`.
        on_panic(request, what) request.on_panic = what;
        /// Starts are forks of a template, which is made of the VM when it meets this condition for the first time, such as `agent`.
        warm(request, condition) request.warm = Some(condition);
    }

    /// The number of its processors.
    pub fn cpus(self, count: u32) -> Self {
        self.with(|request| request.cpus = count)
    }

    /// Writes go to overlays that are thrown away, and so does everything else of the state directory.
    pub fn ephemeral(self) -> Self {
        self.with(|request| request.ephemeral = true)
    }

    /// It can be forked, and frozen into a template.
    pub fn forkable(self) -> Self {
        self.with(|request| request.forkable = true)
    }

    /// Boots with UEFI firmware.
    pub fn uefi(self) -> Self {
        self.with(|request| request.uefi = true)
    }

    /// The guest does not run until [`Machine::resume`].
    pub fn paused(self) -> Self {
        self.with(|request| request.paused = true)
    }

    /// A reset by the guest ends the VM.
    pub fn no_reboot(self) -> Self {
        self.with(|request| request.no_reboot = true)
    }

    /// A kernel that QEMU loads.
    pub fn kernel(self, file: impl Into<PathBuf>) -> Self {
        let file = file.into();
        self.with(|request| request.kernel = Some(file))
    }

    /// The initial RAM disk of that kernel.
    pub fn initrd(self, file: impl Into<PathBuf>) -> Self {
        let file = file.into();
        self.with(|request| request.initrd = Some(file))
    }

    /// What is added to the kernel's command line.
    pub fn append(self, text: &str) -> Self {
        self.with(|request| request.append = Some(text.to_owned()))
    }

    /// Metadata for the guest, such as cloud-init's user-data.
    pub fn data(self, data: impl Into<Vec<u8>>) -> Self {
        let data = data.into();
        self.with(|request| request.data = Some(data))
    }

    /// The VM is shut down when it has run for this time.
    pub fn max_lifetime(self, time: Duration) -> Self {
        self.with(|request| request.max_lifetime = Some(time))
    }

    /// The state directory.
    pub fn state(self, folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        self.with(|request| request.state = Some(folder))
    }

    /// Keeps the console's log and the outcome in a new folder in this one when the VM ends.
    pub fn keep_logs(self, folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        self.with(|request| request.keep_logs = Some(folder))
    }

    /// The runtime directory, instead of `$VMRUN_RUNTIME_DIR`.
    pub fn runtime(self, folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        self.with(|request| request.runtime = Some(folder))
    }

    /// Further arguments for QEMU, unchanged.
    pub fn qemu_args<S: Into<std::ffi::OsString>>(self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.with(|request| request.extra.extend(arguments.into_iter().map(Into::into)))
    }

    /// Any other change of the request.
    pub fn with(mut self, change: impl FnOnce(&mut Request)) -> Self {
        change(&mut self.request);
        self
    }

    /// The request.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the first text that is wrong.
    pub fn request(self) -> Result<Request, Error> {
        match self.wrong {
            Some(why) => Err(Error::Invalid(why)),
            None => Ok(self.request),
        }
    }

    /// Starts it; see [`Machine::launch`].
    ///
    /// # Errors
    /// Those of [`Builder::request`] and of [`Machine::launch`].
    pub async fn launch(self) -> Result<Machine, Error> {
        Machine::launch(self.request()?).await
    }

    /// Starts it, for a program without a runtime; see [`crate::blocking`].
    ///
    /// # Errors
    /// Those of [`Builder::launch`].
    pub fn launch_blocking(self) -> Result<twin::Machine, Error> {
        twin::Machine::launch(self.request()?)
    }

    fn parsed<T: FromStr<Err: std::error::Error>>(
        mut self,
        what: &str,
        text: &str,
        set: impl FnOnce(&mut Request, T),
    ) -> Self {
        match text.parse() {
            Ok(value) => set(&mut self.request, value),
            Err(why) => {
                let Error::Invalid(why) = Error::invalid(why) else { return self };
                self.wrong.get_or_insert(format!("{what} '{text}': {why}"));
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_the_flags_of_the_command_line() {
        let request =
            Machine::builder("a.qcow2").mem("2G").cpus(2).disk("b.qcow2,size=1G").publish("8080:80");
        let request =
            request.nic("user,model=e1000").ephemeral().name("box").warm("agent").request().unwrap();
        assert_eq!(request.image, Some("a.qcow2".into()));
        assert_eq!((request.memory.bytes(), request.cpus, request.ephemeral), (2 << 30, 2, true));
        assert_eq!((request.disks.len(), request.nics.len(), request.publish[0].guest), (1, 1, 80));
        assert_eq!(request.name.unwrap().as_str(), "box");
        assert_eq!(request.warm.unwrap().to_string(), "agent");
    }

    #[test]
    fn the_first_wrong_text_is_told_when_it_is_launched() {
        let error = Machine::builder("a.qcow2").mem("much").disk("b,colour=red").request().unwrap_err();
        assert!(error.to_string().starts_with("mem 'much': "), "{error}");
    }
}
