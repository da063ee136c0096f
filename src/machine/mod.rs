//! A VM as a value: what the `vmrun` commands do, for programs.
//!
//! ```no_run
//! use std::time::Duration;
//! use vmrun::Machine;
//!
//! # async fn test() -> Result<(), vmrun::Error> {
//! let vm = Machine::builder("disk.qcow2").ephemeral().mem("2G").launch().await?;
//! vm.wait("agent", Duration::from_secs(60)).await?;
//! let stick = vm.add_usb("file=stick.img").await?;
//! let listed = vm.exec(["lsblk", "--noheadings"]).await?;
//! assert!(listed.success(), "{listed}");
//! vm.remove_usb(&stick.id).await?;
//! let outcome = vm.shutdown(Duration::from_secs(30)).await?;
//! assert_eq!(outcome.exit_code, 0);
//! # Ok(())
//! # }
//! ```
//!
//! A VM that was launched here has its supervisor in this process, on a thread of its own: no daemon, no other program
//! but QEMU. It is a VM like any other, which `vmrun ls` shows and `vmrun ctl` changes. It ends with its [`Machine`],
//! and with this process, however that ends.
//!
//! Each method is one call of the control protocol, over a connection of its own, so they can run side by side, and
//! one that is given up harms no other. What text means is what it means to the `vmrun` commands.

pub mod blocking;
mod builder;
mod console;
mod copy;
mod devices;
mod error;
mod events;
mod exec;
mod fork;
mod guest_files;
mod last_words;
mod removals;
mod requests;
mod snapshots;
mod streamed;
mod supervisor;
mod warm;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::control::after::{self, Fate};
use crate::control::client::{AsyncClient, Client, ClientError, Replies};
use crate::control::find;
use crate::control::verbs::{self, Method, Stream};
use crate::control::wire;
use crate::host::dirs::{RunClient, RuntimeEnvironment, StoreEnvironment, runtime_root};
use crate::spec::{Condition, Request, VmName};
use crate::vm::{Exec, Executed, Outcome, Screenshot};

pub use builder::Builder;
pub use console::Console;
pub use copy::Copied;
#[doc(hidden)]
pub use copy::{copy_from, copy_from_to_stream, copy_in, copy_out, copy_to, copy_to_from_stream};
pub use error::Error;
pub use events::{Events, Heard};
#[doc(hidden)]
pub use exec::Output;
#[doc(hidden)]
pub use fork::{ForkPlace, ForkTemplate};
#[doc(hidden)]
pub use requests::{
    absolute_text, add_device, add_disk, add_forward, add_nic, add_usb, allowed, exec as exec_call,
    milliseconds, size_bytes,
};
#[doc(hidden)]
pub use streamed::{Happened, Input, exec_streamed};
use supervisor::Supervisor;
#[doc(hidden)]
pub use warm::{Warm, warm};

/// A running VM.
///
/// If it is dropped while its thread panics, as in a test that fails, it says on standard error how the VM is and what its console
/// printed last.
#[derive(Debug)]
pub struct Machine {
    name: VmName,
    directory: Arc<RunClient>,
    /// Instead of `$XDG_STATE_HOME`.
    state_home: Option<PathBuf>,
    supervisor: Option<Supervisor>,
}

impl Machine {
    /// Starts a VM in this process; returns when its guest runs. It is killed when the [`Machine`] is dropped, and then only its
    /// state directory is left (not even that, with [`Request::ephemeral`]).
    ///
    /// Signals to this process are not handled, and its standard input and output are not used.
    ///
    /// # Errors
    /// [`Error::Start`]; nothing is left behind then.
    pub async fn launch(request: Request) -> Result<Self, Error> {
        // it launches a VM itself
        let Warm { request, in_use } = Box::pin(warm(request)).await?;
        let root = root(request.runtime.as_deref())?;
        let state_home = request.state_home.clone();
        let (supervisor, name) = Supervisor::start(request).await?;
        // the fork itself uses its template now
        drop(in_use);
        let directory = RunClient::open(&root, &name).map_err(find::FindError::from)?;
        Ok(Self { name, directory: Arc::new(directory), state_home, supervisor: Some(supervisor) })
    }

    /// Connects to a VM that runs already, wherever it was started. It keeps running when the [`Machine`] is dropped.
    ///
    /// # Errors
    /// [`Error::Find`] if there is no such VM.
    pub fn attach(name: &str) -> Result<Self, Error> {
        Self::find(&root(None)?, name)
    }

    /// The same with another runtime directory than the default; see [`Request::runtime`].
    pub fn attach_in(runtime: &Path, name: &str) -> Result<Self, Error> {
        Self::find(&root(Some(runtime))?, name)
    }

    /// The names of the VMs that [`Self::attach`] connects to: those of this user that run and have a supervisor.
    ///
    /// # Errors
    /// [`Error::Find`] if the folder of running VMs cannot be read.
    pub fn list() -> Result<Vec<String>, Error> {
        Self::listed(&root(None)?)
    }

    /// The same with another runtime directory than the default; see [`Request::runtime`].
    ///
    /// # Errors
    /// As of [`Self::list`].
    pub fn list_in(runtime: &Path) -> Result<Vec<String>, Error> {
        Self::listed(&root(Some(runtime))?)
    }

    fn listed(root: &Path) -> Result<Vec<String>, Error> {
        let all = find::all(root)?.into_iter();
        let supervised = all.filter(|(_, standing)| *standing == find::Standing::Supervised);
        Ok(supervised.map(|(name, _)| name.to_string()).collect())
    }

    fn find(root: &Path, name: &str) -> Result<Self, Error> {
        let name = name.parse().map_err(Error::invalid)?;
        let directory = find::open_supervised(root, &name)?;
        Ok(Self { name, directory: Arc::new(directory), state_home: None, supervisor: None })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Keeps the VM running when this is dropped: until its guest or a client ends it, or this process ends.
    pub fn keep(mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.keep();
        }
    }

    /// Calls any method of the protocol, including those of [`verbs`] without a function here.
    pub async fn call<M: Method>(&self, method: M) -> Result<M::Reply, Error> {
        Ok(self.connect()?.call(method).await?)
    }

    /// Calls any method that returns many replies.
    pub async fn stream<M: Stream>(&self, method: M) -> Result<Replies<M>, Error> {
        Ok(self.connect()?.start(method).await?)
    }

    fn connect(&self) -> Result<AsyncClient, ClientError> {
        AsyncClient::new(self.client()?)
    }

    /// If the socket of a VM is gone, its record answers.
    fn client(&self) -> Result<Client, ClientError> {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        let client = match Client::connect(Arc::clone(&self.directory)) {
            Err(ClientError::Connect(why)) if matches!(why.kind(), NotFound | ConnectionRefused) => {
                self.ended()?
            }
            other => other?,
        };
        Ok(client.with_store(self.state_home.clone()))
    }

    fn ended(&self) -> Result<Client, ClientError> {
        let root = self.directory.path().parent().unwrap_or(Path::new("/"));
        let environment = StoreEnvironment::from_env_or(self.state_home.as_deref());
        match after::fate(root, &self.name, self.directory.run(), &environment) {
            Fate::Ended(record) => after::client(*record).map_err(ClientError::Connect),
            Fate::Unknown => Err(ClientError::Gone),
            Fate::Supervised | Fate::Orphan => Err(ClientError::SupervisorDied(self.name.clone())),
        }
    }
}

/// Its status.
impl Machine {
    /// The VM's status.
    pub async fn status(&self) -> Result<wire::Status, Error> {
        Ok(self.call(verbs::GetStatus {}).await?.status)
    }

    /// Waits for `running`, `paused`, `exit`, `console=REGEX`, `agent`, `port=GUEST` or `event=NAME`, at most for the given time.
    /// `console=` also matches earlier output.
    ///
    /// # Errors
    /// At once, with separate errors, if the VM ends or its guest panics; [`Error::is_timeout`] after the time.
    pub async fn wait(&self, condition: &str, timeout: Duration) -> Result<verbs::CameTrue, Error> {
        let condition: Condition = condition.parse().map_err(Error::invalid)?;
        let call = verbs::Wait {
            conditions: vec![condition.to_string()],
            all: None,
            timeout_ms: Some(milliseconds(timeout)),
            from_now: None,
        };
        let mut came_true = self.call(call).await?.came_true;
        came_true.pop().ok_or_else(|| Error::unclear("no condition was met"))
    }

    /// QEMU's events and vmrun's own from now on: the events of later calls are among them.
    pub async fn events(&self) -> Result<Events, Error> {
        let call = verbs::Events { names: None, since: None };
        let mut replies = self.stream(call).await?;
        // the first reply confirms the subscription
        replies.next().await?;
        Ok(Events { replies })
    }

    /// Stops the guest's processors.
    pub async fn pause(&self) -> Result<(), Error> {
        self.call(verbs::Pause {}).await.map(|_| ())
    }

    /// Resumes them.
    pub async fn resume(&self) -> Result<(), Error> {
        self.call(verbs::Resume {}).await.map(|_| ())
    }

    /// Resets the machine.
    pub async fn reset(&self) -> Result<(), Error> {
        self.call(verbs::Reset {}).await.map(|_| ())
    }

    /// Asks the guest to shut down, for at most this time, then ends QEMU; returns when QEMU has ended.
    pub async fn shutdown(self, budget: Duration) -> Result<Outcome, Error> {
        let call = verbs::Shutdown { timeout_ms: Some(milliseconds(budget)), force: None, no_repeat: None };
        Ok(self.call(call).await?.outcome)
    }

    /// Ends it without asking the guest; returns when it has ended.
    pub async fn kill(self) -> Result<Outcome, Error> {
        let call = verbs::Shutdown { timeout_ms: None, force: Some(true), no_repeat: None };
        Ok(self.call(call).await?.outcome)
    }
}

/// The guest, through its agent; its screen and keyboard.
impl Machine {
    /// Runs a command in the guest, without a shell. Needs the guest agent.
    pub async fn exec<S: Into<String>>(
        &self,
        command: impl IntoIterator<Item = S>,
    ) -> Result<Executed, Error> {
        let command = command.into_iter().map(Into::into).collect();
        self.exec_with(Exec { command, ..Exec::default() }).await
    }

    /// The same with an environment, standard input and a deadline.
    pub async fn exec_with(&self, exec: Exec) -> Result<Executed, Error> {
        let mut replies = self.stream(exec_call(exec)).await?;
        let mut output = Output::default();
        while let Some(reply) = replies.next().await? {
            output.take(reply);
        }
        output.ended().ok_or_else(|| ClientError::Gone.into())
    }

    /// Copies a file of the host into the guest, with its mode; the checksum is compared. Or a folder, with all that is in it.
    pub async fn copy_to(&self, source: impl AsRef<Path>, destination: &str) -> Result<Copied, Error> {
        let (mut client, source) = (self.client()?, source.as_ref().to_owned());
        let destination = destination.to_owned();
        on_a_thread(move || copy_in(&mut client, &source, &destination, None, &mut |_, _| {})).await
    }

    /// Copies a file of the guest to the host, with its mode; the checksum is compared. Or a folder, with all that is in it.
    pub async fn copy_from(&self, source: &str, destination: impl AsRef<Path>) -> Result<Copied, Error> {
        let (mut client, source) = (self.client()?, source.to_owned());
        let destination = destination.as_ref().to_owned();
        on_a_thread(move || copy_out(&mut client, &source, &destination, None, &mut |_, _| {})).await
    }

    /// A screenshot, as a PNG.
    pub async fn screenshot(&self) -> Result<Screenshot, Error> {
        let shot = self.call(verbs::Screenshot {}).await?;
        let png = requests::bytes(&shot.png)?;
        Ok(Screenshot { png, width: shot.width, height: shot.height })
    }

    /// Presses keys, one after the other; keys joined by hyphens are pressed together, such as `ctrl-alt-delete`.
    pub async fn send_keys<S: Into<String>>(&self, keys: impl IntoIterator<Item = S>) -> Result<(), Error> {
        let keys = keys.into_iter().map(Into::into).collect();
        self.call(verbs::SendKeys { keys, delay_ms: None }).await.map(|_| ())
    }

    /// Types a text on a US keyboard.
    pub async fn type_text(&self, text: &str) -> Result<(), Error> {
        let call = verbs::TypeText { text: text.to_owned(), delay_ms: None };
        self.call(call).await.map(|_| ())
    }

    /// Any command of QEMU's monitor: `{"execute": …, "arguments": …}`.
    pub async fn qmp(&self, command: Value) -> Result<Value, Error> {
        Ok(self.call(verbs::Qmp { command }).await?.value)
    }
}

async fn on_a_thread<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(job).await {
        Ok(result) => result,
        Err(error) => Err(Error::unclear(&error.to_string())),
    }
}

fn root(given: Option<&Path>) -> Result<PathBuf, Error> {
    runtime_root(&RuntimeEnvironment::from_env_or(given)).map_err(|error| find::FindError::from(error).into())
}
