//! The Linux guest of `tests/guest`, running: its console, and a shell inside it.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::http::{self, Sent};
use super::sandbox::{Done, Ended, Foreground, PATIENCE, Sandbox, linux_guest};

/// Between two looks at something that sends no event.
const LOOK_AGAIN: Duration = Duration::from_millis(30);

/// A running guest in a sandbox; QEMU is gone when this is dropped.
pub(crate) struct Linux {
    // dropped in this order: the supervisor takes QEMU with it before the folder goes
    vm: Foreground,
    pub(crate) sandbox: Sandbox,
    /// Lines of the console that no test has read yet.
    unread: RefCell<Vec<String>>,
    port: u16,
}

impl Linux {
    /// Boots the guest in a new sandbox, and waits until its web server and its agent answer.
    #[track_caller]
    pub(crate) fn boot<S: AsRef<OsStr>>(options: impl IntoIterator<Item = S>) -> Self {
        Self::boot_in(Sandbox::new(), &linux_guest(), options)
    }

    /// The same in a given sandbox, with a given prefix; the state directory is `state` in the sandbox.
    #[track_caller]
    pub(crate) fn boot_in<S: AsRef<OsStr>>(
        sandbox: Sandbox,
        prefix: &Path,
        options: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::boot_beside(sandbox, prefix, options, [])
    }

    /// The same with QEMU's own arguments.
    #[track_caller]
    pub(crate) fn boot_beside<S: AsRef<OsStr>, const N: usize>(
        sandbox: Sandbox,
        prefix: &Path,
        options: impl IntoIterator<Item = S>,
        extra: [&str; N],
    ) -> Self {
        let mut arguments: Vec<OsString> =
            ["--mem", "256", "--state", "state", "--publish", "0:80"].map(OsString::from).to_vec();
        arguments.extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        let raw = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
        arguments.insert(raw, prefix.into());
        if N > 0 {
            arguments.push("--".into());
        }
        arguments.extend(extra.map(OsString::from));
        let vm = sandbox.foreground(&arguments);
        let mut linux = Self { vm, sandbox, unread: RefCell::default(), port: 0 };
        linux.sees("vmrun-guest: ready");
        linux.ctl(["wait", "agent", "--timeout", "2m"]);
        linux.port = port(&linux.list("port-list")[0]);
        linux
    }

    /// Waits for a line of the console; those that came before it can still be asked for.
    #[track_caller]
    pub(crate) fn sees(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut unread = self.unread.borrow_mut();
        if let Some(position) = unread.iter().position(|line| line.contains(text)) {
            return unread.remove(position);
        }
        while let Some(line) = self.vm.next_line(deadline) {
            if line.contains(text) {
                return line;
            }
            unread.push(line);
        }
        panic!("no '{text}' on the console: {unread:#?}, stderr {:#?}", self.vm.errors_so_far());
    }

    /// Waits for a disk with this serial number; its name and size.
    #[track_caller]
    pub(crate) fn sees_disk(&self, serial: &str) -> (String, u64) {
        let line = self.sees(&format!(" serial={serial} "));
        let name = line.split("add block ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        let size = line.rsplit("size=").next().unwrap().parse().unwrap();
        (name.to_owned(), size)
    }

    /// Runs a script in the guest: its exit code and output.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> (i32, String) {
        // just after the boot the card may still be without its address, and QEMU resets the connection
        let deadline = Instant::now() + PATIENCE;
        let body = loop {
            match self.ask(script).and_then(|sent| sent.answer(PATIENCE)) {
                Ok(body) => break body,
                Err(error) if Instant::now() > deadline => panic!("{error}"),
                Err(_) => std::thread::sleep(LOOK_AGAIN),
            }
        };
        let (output, code) = body.trim_end().rsplit_once("exit=").unwrap();
        (code.parse().unwrap(), output.trim_end().to_owned())
    }

    /// The output of a script that must succeed.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> String {
        let (code, output) = self.sh(script);
        assert_eq!(code, 0, "{script}: {output}");
        output
    }

    /// Sends a script and does not wait for its answer.
    pub(crate) fn ask(&self, script: &str) -> std::io::Result<Sent> {
        http::send(self.port, "POST", "/cgi-bin/sh", script)
    }

    /// `vmrun ctl`, which must succeed; what it printed.
    #[track_caller]
    pub(crate) fn ctl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        self.sandbox.ctl(arguments).line()
    }

    /// `vmrun ctl`, which may fail.
    pub(crate) fn try_ctl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Done {
        self.sandbox.ctl(arguments)
    }

    /// `vmrun ctl --json status`.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.sandbox.ctl_json(["status"])
    }

    /// What one of the `…-list` commands prints with `--json`.
    #[track_caller]
    pub(crate) fn list(&self, command: &str) -> Vec<Value> {
        serde_json::from_value(self.sandbox.ctl_json([command])).unwrap()
    }

    /// The ids of what one of the `…-list` commands prints.
    #[track_caller]
    pub(crate) fn ids(&self, command: &str) -> Vec<String> {
        self.list(command).iter().map(|item| text(&item["id"])).collect()
    }

    /// Waits for something that sends no event.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "still not so: {what}");
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// A file in the sandbox.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.sandbox.file(name)
    }

    /// Waits for the VM to end by itself.
    #[track_caller]
    pub(crate) fn end(self) -> (Ended, Sandbox) {
        (self.vm.end(), self.sandbox)
    }

    /// Ends it the quick way.
    #[track_caller]
    pub(crate) fn quit(self) -> Sandbox {
        self.try_ctl(["shutdown", "--force"]).ok();
        self.end().1
    }
}

/// The host port of a forward.
#[track_caller]
pub(crate) fn port(forward: &Value) -> u16 {
    forward["host_port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port")
}

/// A JSON string.
#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
