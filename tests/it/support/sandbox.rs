//! A folder of its own for each test: runtime directory, working directory, images. The real binary runs in it,
//! and whatever is still running at the end of the test is ended.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::boot_sector::{self, Guest};

/// How long anything in a test may take; far more than it does, since the machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A test's own folder.
pub(crate) struct Sandbox {
    dir: TempDir,
    /// Of the desktop that windows open on.
    display: Option<String>,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The same, after checking that it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// Its standard output without the end of the line.
    #[track_caller]
    pub(crate) fn line(self) -> String {
        self.ok().stdout.trim_end().to_owned()
    }

    /// Its standard output as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let done = self.ok();
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:#?}"))
    }

    /// Checks that it failed with this code and a message that has these words.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "no '{word}' in {self:#?}");
        }
        assert!(!self.stderr.contains("panicked at"), "{self:#?}");
        self
    }
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["run", "tmp"] {
            let folder = dir.path().join(folder);
            std::fs::create_dir(&folder).unwrap();
            std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        }
        Self { dir, display: None }
    }

    /// The same, on this X server.
    pub(crate) fn on(display: &str) -> Self {
        let mut sandbox = Self::new();
        sandbox.display = Some(display.to_owned());
        sandbox
    }

    /// The folder that commands run in.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file in it.
    pub(crate) fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder with the run directories.
    pub(crate) fn runtime(&self) -> PathBuf {
        self.dir.path().join("run/vmrun")
    }

    /// The folder for temporary files, in which ephemeral VMs have their state.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    /// The state directories of ephemeral VMs.
    pub(crate) fn ephemeral_states(&self) -> Vec<PathBuf> {
        let base = self.temporary().join(format!("vmrun-{}", nix::unistd::geteuid()));
        std::fs::read_dir(base).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }

    /// The folder in the place of `$XDG_STATE_HOME`, in which the user's store is: no test touches the real one.
    pub(crate) fn state_home(&self) -> PathBuf {
        self.dir.path().join("state-home")
    }

    /// The folder in the place of `$XDG_CONFIG_HOME`: no test reads the user's own configuration.
    pub(crate) fn config_home(&self) -> PathBuf {
        self.dir.path().join("config-home")
    }

    /// The folder in the place of `$XDG_CACHE_HOME`.
    pub(crate) fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// `vmrun` with this sandbox's runtime directory, TCG, and a closed standard input.
    pub(crate) fn vmrun(&self) -> Command {
        self.program(env!("CARGO_BIN_EXE_vmrun"))
    }

    /// Any program, in the same surroundings.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // defaults of flags that whoever runs the tests has set
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("VMRUN_") && !name.starts_with("VMRUN_TEST_") {
                command.env_remove(&*name);
            }
        }
        command
            .current_dir(self.path())
            .env("VMRUN_RUNTIME_DIR", self.dir.path().join("run"))
            .env("TMPDIR", self.temporary())
            .env("XDG_STATE_HOME", self.state_home())
            .env("XDG_CACHE_HOME", self.cache())
            .env("XDG_CONFIG_HOME", self.config_home())
            .env("VMRUN_ACCEL", "tcg")
            .env_remove("RUNTIME_DIRECTORY")
            .env_remove("STATE_DIRECTORY")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        match &self.display {
            Some(display) => {
                command.env("DISPLAY", display).env_remove("WAYLAND_DISPLAY").env_remove("GDK_BACKEND")
            }
            None => command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY"),
        };
        command
    }

    /// Runs `vmrun` to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Done {
        Done::of(self.vmrun().args(arguments).output().unwrap())
    }

    /// Runs `vmrun ctl`.
    pub(crate) fn ctl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Done {
        Done::of(self.vmrun().arg("ctl").args(arguments).output().unwrap())
    }

    /// Runs `vmrun ctl --json` and reads what it prints.
    #[track_caller]
    pub(crate) fn ctl_json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Value {
        Done::of(self.vmrun().args(["ctl", "--json"]).args(arguments).output().unwrap()).json()
    }

    /// The outcome that was written down for the guest of [`Self::boot_sector`].
    #[track_caller]
    pub(crate) fn outcome(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.file("guest-state/outcome.json")).unwrap()).unwrap()
    }

    /// Checks that no process and no run directory is left.
    #[track_caller]
    pub(crate) fn is_clean(&self) {
        // a client that waits for the end gets it before the supervisor's very last step
        super::processes::eventually("no process is left", || super::processes::of(self.path()).is_empty());
        let left: Vec<_> = std::fs::read_dir(self.runtime()).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "run directories are left: {left:#?}");
        let left: Vec<_> = std::fs::read_dir(self.temporary()).unwrap().flatten().collect();
        assert!(left.is_empty(), "temporary files are left: {left:#?}");
    }

    /// Waits until the boot sector has been loaded, which is a moment before the guest's greeting.
    #[track_caller]
    pub(crate) fn booted(&self, name: &str) {
        super::processes::eventually("the guest boots", || {
            self.ctl(["--vm", name, "hmp", "xp /2bx 0x7dfe"]).ok().stdout.contains("0x55 0xaa")
        });
    }

    /// The counter of the guests that count.
    #[track_caller]
    pub(crate) fn counter(&self) -> u64 {
        let text = self.ctl(["hmp", &format!("xp /1wx {}", boot_sector::COUNTER)]).line();
        let number = text.rsplit("0x").next().unwrap();
        u64::from_str_radix(number, 16).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// A disk with a boot-sector guest.
    pub(crate) fn boot_sector(&self, guest: Guest) -> PathBuf {
        let path = self.file("guest.img");
        boot_sector::write(guest, &path);
        path
    }

    /// Starts `vmrun qemu` in the foreground, its console on a pipe.
    pub(crate) fn foreground<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Foreground {
        let mut command = self.vmrun();
        command.arg("qemu").args(arguments);
        Foreground::start(command)
    }

    /// Starts `vmrun qemu --detached`; the VM runs when this returns.
    #[track_caller]
    pub(crate) fn detached<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        Done::of(self.vmrun().args(["qemu", "--detached"]).args(arguments).output().unwrap()).line()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // a test that failed half-way must not leave its VMs behind
        let Ok(output) = self.vmrun().args(["ls", "--json"]).output() else { return };
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        for vm in list.as_array().into_iter().flatten() {
            if let Some(name) = vm["name"].as_str() {
                let _ = self.vmrun().args(["ctl", "--vm", name, "shutdown", "--force"]).output();
            }
        }
    }
}

/// A `vmrun` whose output is read line by line.
pub(crate) struct Foreground {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    errors: mpsc::Receiver<String>,
}

impl Foreground {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let lines = read_lines(child.stdout.take().unwrap());
        let errors = read_lines(child.stderr.take().unwrap());
        Self { child, stdin, lines, errors }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Waits for a line of output that has this text.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        let errors: Vec<String> = self.errors.try_iter().collect();
        panic!("no '{text}' in the output {seen:#?}, stderr {errors:#?}");
    }

    /// The next line of output; none at the deadline or at the end.
    pub(crate) fn next_line(&self, deadline: Instant) -> Option<String> {
        self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// What it has written to stderr since this was last asked.
    pub(crate) fn errors_so_far(&self) -> Vec<String> {
        self.errors.try_iter().collect()
    }

    /// Types into its console.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits for a line on stderr that has this text.
    #[track_caller]
    pub(crate) fn wait_for_error(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self.errors.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("no '{text}' in stderr {seen:#?}");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for its end; the rest of what it printed and its exit status.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        drop(self.stdin.take());
        let status = wait_with_patience(&mut self.child);
        let stdout: Vec<String> = self.lines.iter().collect();
        let stderr: Vec<String> = self.errors.iter().collect();
        Ended { status, stdout: stdout.join("\n"), stderr: stderr.join("\n") }
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a foreground `vmrun` ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Its exit code; -1 for a signal.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

/// Waits for a child without polling it: a thread waits, this one has the deadline.
#[track_caller]
pub(crate) fn wait_with_patience(child: &mut Child) -> ExitStatus {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (tell, told) = mpsc::channel();
    let watcher = std::thread::spawn(move || {
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        // it stays a zombie for `Child::wait` below
        let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let _ = tell.send(());
    });
    let ended = told.recv_timeout(PATIENCE).is_ok();
    if !ended {
        let _ = child.kill();
    }
    let status = child.wait().unwrap();
    watcher.join().unwrap();
    assert!(ended, "process {pid} did not end within {PATIENCE:?}");
    status
}

fn read_lines(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if send.send(text).is_err() {
                return;
            }
        }
    });
    lines
}

/// The Linux guest of `tests/guest`, as a prefix for `vmrun qemu`; `make test` builds it and says where it is.
pub(crate) fn linux_guest() -> PathBuf {
    let told = std::env::var_os("VMRUN_TEST_GUEST");
    let built = || {
        let built =
            Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guest/build.sh")).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        PathBuf::from(String::from_utf8(built.stdout).unwrap().trim()).join("guest")
    };
    told.map_or_else(built, PathBuf::from)
}

/// A Python with the PyPI clients `varlink` and `qemu.qmp`; as for [`linux_guest`].
pub(crate) fn python() -> PathBuf {
    let told = std::env::var_os("VMRUN_TEST_PYTHON");
    let made = || {
        let made =
            Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/setup/python.sh")).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
    };
    told.map_or_else(made, PathBuf::from)
}
