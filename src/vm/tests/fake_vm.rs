//! An owner with a fake QEMU: the monitor is a model, the process a shell that ends on command.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::host::dirs::{RunDir, StateDir, StoreEnvironment};
use crate::host::raw_images::RawImages;
use crate::qemu::slots::Slots;
use crate::qemu::{HostFacts, Machine, ids};
use crate::qmp::{Agent, Connected, Options, Session};
use crate::spec::{
    Accel, Arch, DiskBus, DiskOptions, DiskSpec, Forward, ImageFormat, Limits, Protocol, Rates, Size,
    SnapshotName, VmSpec,
};
use crate::vm::bus::{Bus, WatchedState};
use crate::vm::change::Progress;
use crate::vm::change::SnapshotChange;
use crate::vm::console::Console;
use crate::vm::guest::agent::AgentLink;
use crate::vm::guest::inputs::Inputs;
use crate::vm::guest::waiting_shell::WaitingShells;
use crate::vm::handle::{INBOX_LENGTH, Queued, RawTurns};
use crate::vm::owner::{Owner, OwnerParts};
use crate::vm::parts::{Devices, Qemu};
use crate::vm::process::qemu::Process;
use crate::vm::signals::{EndSignal, Signals};
use crate::vm::state::facts::Facts;
use crate::vm::state::images::Images;
use crate::vm::state::inventory::{DiskFacts, Entry, Inventory, Kind};
use crate::vm::state::journal::{Journal, Pending};
use crate::vm::state::nics;
use crate::vm::state::opened::Files;
use crate::vm::state::origin::{Description, Origin};
use crate::vm::state::plugged::{Plugged, Record};
use crate::vm::state::status::CachedStatus;
use crate::vm::{Change, ChangeError, Done, Handle, Outcome, Phase, RunState, Status};

use super::fake_qemu::FakeQemu;

/// A process in place of QEMU: it ends with a given code, or by SIGKILL.
pub(super) struct FakeProcess {
    tell: std::io::PipeWriter,
}

impl FakeProcess {
    fn start() -> (Self, Process) {
        let (exit_code, tell) = std::io::pipe().unwrap();
        let exit_code = OwnedFd::from(exit_code);
        let script = format!("read code < /dev/fd/{}; exit $code", exit_code.as_raw_fd());
        let process = Process::start(
            Path::new("/bin/sh"),
            &["-c".into(), script.into()],
            (Stdio::null(), Stdio::null()),
            vec![exit_code],
            None,
            false,
        )
        .unwrap();
        (Self { tell }, process)
    }

    /// Ends it. The shell lives in real time, so from here on the test does too.
    pub(super) fn exit(&mut self, code: i32) {
        tokio::time::resume();
        let _ = writeln!(self.tell, "{code}");
    }
}

/// A VM that runs.
pub(super) struct FakeVm {
    pub(super) qemu: FakeQemu,
    pub(super) handle: Handle,
    pub(super) signals: mpsc::Sender<EndSignal>,
    pub(super) process: FakeProcess,
    /// The guest's end of the agent's port.
    pub(super) agent: UnixStream,
    owner: JoinHandle<Outcome>,
    dir: Arc<TempDir>,
}

pub(super) fn spec() -> VmSpec {
    VmSpec { disks: Vec::new(), hotplug_slots: 3, ..crate::qemu::testing::spec() }
}

fn facts(process: &Process, dir: &Path) -> Facts {
    Facts {
        host: HostFacts { arch: Arch::X86_64, accel: Accel::Tcg },
        accel_reason: "a test".to_owned(),
        qemu: "/bin/sh".into(),
        qemu_version: "7.2.22".to_owned(),
        qemu_package: String::new(),
        qemu_pid: process.pid(),
        qemu_start_time: 0,
        run_directory: dir.join("run"),
        state_directory: dir.join("state"),
        detached: false,
        template: None,
        ephemeral: false,
        max_resets: None,
        max_lifetime_ms: None,
        log_bytes: 1 << 20,
        keep_logs: None,
        stop_timeout_ms: 30_000,
        started_unix_ms: 0,
        run: None,
        state_home: None,
    }
}

/// The drive with the metadata.
fn cd(file: &Path) -> Entry {
    Entry {
        id: ids::METADATA_CD.parse().unwrap(),
        driver: "ide-cd".to_owned(),
        slot: None,
        phase: Phase::Present,
        taken: None,
        kind: Kind::Disk(DiskFacts {
            file: Some(file.display().to_string()),
            format: Some(ImageFormat::Raw),
            bus: DiskBus::Sata,
            size_bytes: None,
            readonly: true,
            removable: true,
            serial: None,
            node: Some(ids::METADATA_CD.to_owned()),
            identity: None,
            foreign: false,
            limits: Limits::default(),
            options: DiskOptions::default(),
        }),
    }
}

impl FakeVm {
    pub(super) async fn start() -> Self {
        Self::start_with(spec()).await
    }

    pub(super) async fn start_with(spec: VmSpec) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let state = Arc::new(StateDir::open(&dir.path().join("state")).unwrap());
        let (qemu, stream) = FakeQemu::start();
        let Connected { session, events, .. } = Session::connect(stream, Options::default()).await.unwrap();
        let (stand, process) = FakeProcess::start();
        let (agent, ours) = UnixStream::pair().unwrap();
        let (signals, signalled) = Signals::of_test();
        let (inbox, asks) = mpsc::channel::<Queued>(INBOX_LENGTH);
        let (outcome, ended) = watch::channel(None);
        let machine = Machine::of(&spec);
        let mut inventory = Inventory::new(&machine, Slots::of(&machine, &spec));
        inventory.run_state = RunState::Running;
        for card in nics::cold(&machine, &spec) {
            qemu.model().cold_card(&spec);
            inventory.insert(card);
        }
        if let Some(file) = &spec.metadata {
            qemu.model().cold_cd(ids::METADATA_CD);
            inventory.insert(cd(file));
        }
        let run = Arc::new(RunDir::create(dir.path(), &spec.name).unwrap());
        let bus = Bus::default();
        let watched = WatchedState {
            run_state: RunState::Running,
            panicked: false,
            stopping: false,
            nothing_to_boot: None,
            console_panic: false,
            guest_resets: 0,
        };
        let (watched, watched_receiver) = watch::channel(watched);
        let link = AgentLink::new(Agent::new(ours));
        let cached_status = CachedStatus::default();
        let store = RawImages::new(StoreEnvironment::from_env_or(Some(&dir.path().join("state-home"))));
        let facts = facts(&process, dir.path());
        let agent_link = link.clone();
        let owner = Owner::new(OwnerParts {
            bus: bus.clone(),
            watched,
            cached_status: cached_status.clone(),
            description: Description { origin: Origin::Ours(Box::new(spec)), facts },
            devices: Devices {
                journal: Journal::new(Arc::clone(&run), Pending::default()),
                plugged: Plugged::new(run, Record::cold(&inventory)),
                images: Images::new(Arc::clone(&state), true, &dir.path().join("run"), store),
                machine,
                inventory,
            },
            qemu: Qemu {
                session,
                events,
                process,
                agent: agent_link,
                agent_open: false,
                started: Instant::now(),
            },
            state,
            // the fake opens images in this process
            files: Files::of(i32::try_from(std::process::id()).unwrap()),
            inbox: asks,
            signals: signalled,
        });
        let owner = tokio::spawn(async move {
            let end = owner.run().await;
            outcome.send_replace(Some(end.clone()));
            end
        });
        let (console, _) = Console::remote();
        let handle = Handle {
            inbox,
            raw_turns: RawTurns::new(),
            outcome: ended,
            watched: watched_receiver,
            cached_status,
            agent: link,
            waiting_shells: WaitingShells::default(),
            inputs: Inputs::default(),
            console,
            bus,
        };
        Self { qemu, handle, signals, process: stand, agent, owner, dir }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its folder, which otherwise goes with it.
    pub(super) fn folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.dir)
    }

    pub(super) async fn change(&self, change: Change) -> Result<Done, ChangeError> {
        self.handle.change(change).await
    }

    /// A change that goes on while the test does something else.
    pub(super) fn begin(&self, change: Change) -> JoinHandle<Result<Done, ChangeError>> {
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.change(change).await })
    }

    pub(super) async fn status(&self) -> Status {
        Arc::unwrap_or_clone(self.handle.status().await.unwrap())
    }

    /// Ids with their phase, but for the card that every VM has, and the number of slots in use.
    pub(super) async fn inventory(&self) -> (Vec<String>, usize) {
        let status = self.status().await;
        let devices = status.devices.iter().filter(|entry| entry.id.as_str() != ids::NIC);
        let devices = devices.map(|entry| format!("{} {:?}", entry.id, entry.phase));
        (devices.collect(), status.slots_used)
    }

    /// Waits until QEMU has seen a command of this name.
    pub(super) async fn sees(&self, command: &str) {
        let wait = async {
            while !self.qemu.seen().iter().any(|seen| seen == command) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        wait.await;
    }

    /// The same while a thread is at work, for whose sake time stands still.
    pub(super) async fn sees_now(&self, command: &str) {
        while !self.qemu.seen().iter().any(|seen| seen == command) {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until QEMU stands still, as planned by `later`; time may pass meanwhile or not.
    pub(super) async fn stands_still(&self) {
        while !self.qemu.is_frozen() {
            tokio::task::yield_now().await;
        }
    }

    /// How it ended, once it has.
    pub(super) async fn ended(self) -> Outcome {
        self.owner.await.unwrap()
    }

    /// QEMU has ended: its process too.
    pub(super) async fn exits(mut self, code: i32) -> Outcome {
        self.qemu.hang_up();
        self.process.exit(code);
        let outcome = self.ended().await;
        tokio::time::pause();
        outcome
    }
}

/// `disk-add`, made with 1 MiB if it is not there.
pub(super) fn disk(file: PathBuf, bus: DiskBus, id: Option<&str>) -> Change {
    let disk = DiskSpec {
        grow: false,
        file: Some(file),
        size: Size::from_bytes(1 << 20),
        format: None,
        bus,
        readonly: false,
        serial: None,
        id: id.map(|id| id.parse().unwrap()),
        options: DiskOptions::default(),
    };
    Change::AddDisk { disk, allow_backing: Vec::new() }
}

/// `usb-add usb-kbd`.
pub(super) fn keyboard(id: Option<&str>) -> Change {
    Change::AddUsb { selector: "usb-kbd".parse().unwrap(), id: id.map(|id| id.parse().unwrap()) }
}

/// `device-add DRIVER`.
pub(super) fn device(driver: &str, id: &str) -> Change {
    Change::AddDevice(format!("{driver},id={id}").parse().unwrap())
}

/// `nic-add user`.
pub(super) fn card(id: &str) -> Change {
    Change::AddNic(format!("user,id={id}").parse().unwrap())
}

/// `link up` or `link down`.
pub(super) fn link(nic: Option<&str>, up: bool) -> Change {
    Change::SetLink { nic: nic.map(str::to_owned), up }
}

/// `disk-throttle --iops`.
pub(super) fn throttle(id: &str, operations: u64) -> Change {
    let operations = Rates { total: Some(operations), ..Rates::default() };
    let limits = Some(Limits { operations, ..Limits::default() });
    Change::ThrottleDisk { id: id.to_owned(), limits }
}

/// `port-add`.
pub(super) fn forward(host: u16, guest: u16) -> Change {
    let address = std::net::Ipv4Addr::LOCALHOST;
    let forward = Forward { address, host, guest, protocol: Protocol::Tcp };
    Change::AddForward { forward, nic: None }
}

/// `device-remove`, waiting 30 s.
pub(super) fn remove(id: &str) -> Change {
    use crate::vm::DeviceKind;
    Change::Remove { kind: DeviceKind::Any, id: id.to_owned(), wait: Duration::from_secs(30) }
}

/// `snapshot-save`.
pub(super) fn snapshot_save(name: &str, overwrite: bool) -> Change {
    let (progress, _) = watch::channel(Progress::default());
    Change::Snapshot(SnapshotChange::Save { name: name.parse().unwrap(), overwrite, progress })
}

/// `snapshot-load` and `snapshot-delete`.
pub(super) fn snapshot(which: fn(SnapshotName) -> SnapshotChange, name: &str) -> Change {
    Change::Snapshot(which(name.parse().unwrap()))
}

/// `save`.
pub(super) fn save(file: PathBuf) -> Change {
    let (progress, _) = watch::channel(Progress::default());
    Change::Save { file, progress }
}

/// The beginning of an empty image of 1 MiB, as far as vmrun looks at it.
pub(super) fn qcow2() -> Vec<u8> {
    let mut image = b"QFI\xfb\0\0\0\x02".to_vec();
    image.resize(1 << 16, 0);
    image[24..32].copy_from_slice(&(1u64 << 20).to_be_bytes());
    image
}
