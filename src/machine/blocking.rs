//! The same [`Machine`] for programs without a runtime: each method waits for its result.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! # fn test() -> Result<(), vmrun::Error> {
//! let vm = vmrun::Machine::builder("disk.qcow2").ephemeral().launch_blocking()?;
//! vm.wait("agent", Duration::from_secs(60))?;
//! assert_eq!(vm.exec(["uname", "-s"])?.stdout_text(), "Linux\n");
//! vm.shutdown(Duration::from_secs(30))?;
//! # Ok(())
//! # }
//! ```
//!
//! Not to be used inside of an asynchronous function, where [`crate::Machine`] is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::control::verbs::{self, Method};
use crate::control::wire;
use crate::spec::{Request, Size};
use crate::vm::{Exec, Executed, Outcome, Screenshot, StartError};

use super::{Copied, Error, Heard};

/// A running VM, as [`crate::Machine`].
#[derive(Debug)]
pub struct Machine {
    machine: super::Machine,
    runtime: Arc<Runtime>,
}

/// The events of a VM, as [`crate::Events`].
#[derive(Debug)]
pub struct Events {
    events: super::Events,
    runtime: Arc<Runtime>,
}

/// What a VM's console prints, as [`crate::Console`].
#[derive(Debug)]
pub struct Console {
    console: super::Console,
    runtime: Arc<Runtime>,
}

/// Methods that wait for those of the same name.
macro_rules! waits {
    ($(fn $name:ident(self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        $(#[doc = concat!("Waits for [`crate::Machine::", stringify!($name), "`].")]
        ///
        /// # Errors
        /// The same.
        pub fn $name(self $(, $argument: $type)*) -> Result<$result, Error> {
            let Self { machine, runtime } = self;
            runtime.block_on(machine.$name($($argument),*))
        })*
    };
    ($(fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        $(#[doc = concat!("Waits for [`crate::Machine::", stringify!($name), "`].")]
        ///
        /// # Errors
        /// The same.
        pub fn $name(&self $(, $argument: $type)*) -> Result<$result, Error> {
            self.runtime.block_on(self.machine.$name($($argument),*))
        })*
    };
}

impl Machine {
    waits! {
        fn shutdown(self, budget: Duration) -> Outcome;
        fn kill(self) -> Outcome;
        fn save(self, file: impl AsRef<Path>) -> Outcome;
        fn freeze(self, folder: impl AsRef<Path>) -> Outcome;
    }

    waits! {
        fn status(&self) -> wire::Status;
        fn stats(&self) -> wire::Stats;
        fn wait(&self, condition: &str, timeout: Duration) -> verbs::CameTrue;
        fn pause(&self) -> ();
        fn resume(&self) -> ();
        fn reset(&self) -> ();
        fn add_usb(&self, selector: &str) -> wire::Usb;
        fn remove_usb(&self, id: &str) -> ();
        fn add_forward(&self, forward: &str) -> wire::Forward;
        fn remove_forward(&self, forward: &wire::Forward) -> ();
        fn add_disk(&self, disk: &str) -> wire::Disk;
        fn remove_disk(&self, id: &str, timeout: Duration) -> ();
        fn force_remove_disk(&self, id: &str, timeout: Duration) -> ();
        fn resize_disk(&self, id: &str, size: Size) -> wire::Disk;
        fn add_nic(&self, nic: &str) -> wire::Nic;
        fn remove_nic(&self, id: &str, timeout: Duration) -> ();
        fn set_link(&self, nic: Option<&str>, up: bool) -> wire::Nic;
        fn add_device(&self, device: &str) -> wire::Device;
        fn remove_device(&self, id: &str, timeout: Duration) -> ();
        fn save_snapshot(&self, name: &str) -> wire::Snapshot;
        fn load_snapshot(&self, name: &str) -> wire::Snapshot;
        fn snapshots(&self) -> Vec<wire::Snapshot>;
        fn delete_snapshot(&self, name: &str) -> ();
        fn freeze_and_go_on(&self, folder: impl AsRef<Path>) -> Duration;
        fn exec(&self, command: impl IntoIterator<Item = impl Into<String>>) -> Executed;
        fn exec_with(&self, exec: Exec) -> Executed;
        fn read_file(&self, path: &str) -> Vec<u8>;
        fn read_text(&self, path: &str) -> String;
        fn write_file(&self, path: &str, content: impl AsRef<[u8]>) -> Copied;
        fn copy_to(&self, source: impl AsRef<Path>, destination: &str) -> Copied;
        fn copy_from(&self, source: &str, destination: impl AsRef<Path>) -> Copied;
        fn screenshot(&self) -> Screenshot;
        fn send_keys(&self, keys: impl IntoIterator<Item = impl Into<String>>) -> ();
        fn type_text(&self, text: &str) -> ();
        fn console_so_far(&self) -> String;
        fn qmp(&self, command: Value) -> Value;
    }

    /// The names of the VMs that can be attached to; see [`crate::Machine::list`].
    ///
    /// # Errors
    /// The same.
    pub fn list() -> Result<Vec<String>, Error> {
        super::Machine::list()
    }

    /// Starts a VM; see [`crate::Machine::launch`].
    ///
    /// # Errors
    /// The same.
    pub fn launch(request: Request) -> Result<Self, Error> {
        let runtime = runtime()?;
        let machine = runtime.block_on(super::Machine::launch(request))?;
        Ok(Self { machine, runtime })
    }

    /// Connects to a VM that runs already; see [`crate::Machine::attach`].
    ///
    /// # Errors
    /// The same.
    pub fn attach(name: &str) -> Result<Self, Error> {
        Ok(Self { machine: super::Machine::attach(name)?, runtime: runtime()? })
    }

    /// The same with another runtime directory than the default.
    ///
    /// # Errors
    /// The same.
    pub fn attach_in(folder: &Path, name: &str) -> Result<Self, Error> {
        Ok(Self { machine: super::Machine::attach_in(folder, name)?, runtime: runtime()? })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.machine.name()
    }

    /// Keeps the VM running when this is dropped; see [`crate::Machine::keep`].
    pub fn keep(self) {
        self.machine.keep();
    }

    /// Starts forks of it; see [`crate::Machine::fork`].
    ///
    /// # Errors
    /// The same.
    pub fn fork(&self, count: usize) -> Result<Vec<Self>, Error> {
        let forks = self.runtime.block_on(self.machine.fork(count))?;
        Ok(forks.into_iter().map(|machine| Self { machine, runtime: Arc::clone(&self.runtime) }).collect())
    }

    /// Calls any method of the protocol; see [`crate::Machine::call`].
    ///
    /// # Errors
    /// The same.
    pub fn call<M: Method>(&self, method: M) -> Result<M::Reply, Error> {
        self.runtime.block_on(self.machine.call(method))
    }

    /// Its events from now on: an iterator that ends with the VM.
    ///
    /// # Errors
    /// As of [`crate::Machine::events`].
    pub fn events(&self) -> Result<Events, Error> {
        let events = self.runtime.block_on(self.machine.events())?;
        Ok(Events { events, runtime: Arc::clone(&self.runtime) })
    }

    /// What its console prints, from the start of this run: an iterator over pieces of text that ends with the VM.
    ///
    /// # Errors
    /// As of [`crate::Machine::console`].
    pub fn console(&self) -> Result<Console, Error> {
        let console = self.runtime.block_on(self.machine.console())?;
        Ok(Console { console, runtime: Arc::clone(&self.runtime) })
    }
}

impl Iterator for Events {
    type Item = Result<Heard, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.events.next()).transpose()
    }
}

impl Iterator for Console {
    type Item = Result<String, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.console.next()).transpose()
    }
}

fn runtime() -> Result<Arc<Runtime>, Error> {
    let runtime = Builder::new_current_thread().enable_all().build();
    Ok(Arc::new(runtime.map_err(|error| StartError::System { what: "the runtime", error })?))
}
