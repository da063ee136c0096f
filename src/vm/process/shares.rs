//! Shared folders: a virtiofsd for each, on a socket that is bound before either program starts.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::host::dirs::RunDir;
use crate::host::programs::{self, SearchPath};
use crate::host::{environment, sys};
use crate::spec::{Request, Share, VmSpec};

use crate::vm::process::qemu::{StderrTail, drain};
use crate::vm::start_error::{StartError, system};

/// The helpers of a VM's shared folders.
#[derive(Debug, Default)]
pub(in crate::vm) struct Shares {
    program: PathBuf,
    /// Whether it is the Rust virtiofsd, whose options differ from those of QEMU's old C one.
    modern: bool,
    shares: Vec<(Share, OwnedFd, UnixStream)>,
    running: Vec<Helper>,
}

/// How long to wait for the end of a helper and its stderr: QEMU sees the closed connection before the helper has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// A helper that ends this shortly before the VM ended because QEMU hung up.
const WITH_THE_VM: Duration = Duration::from_secs(2);

/// A running virtiofsd.
#[derive(Debug, Clone)]
struct Helper {
    directory: PathBuf,
    child: Arc<Mutex<Child>>,
    words: StderrTail,
    /// Its stderr has been read to its end.
    silent: Arc<Notify>,
    /// The VM is ending.
    over: Arc<Notify>,
}

impl Helper {
    /// Waits for a child: it is reaped when it has ended, and an end before the VM's is logged.
    fn watch(directory: PathBuf, mut child: Child) -> std::io::Result<Self> {
        let words = StderrTail::default();
        let (silent, over) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        if let Some(stderr) = child.stderr.take() {
            let reader = drain(OwnedFd::from(stderr), words.clone(), "virtiofsd")?;
            let silent = Arc::clone(&silent);
            tokio::spawn(async move {
                let _ = reader.await;
                silent.notify_one();
            });
        }
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?);
        let process = sys::watch(sys::pidfd_open(pid)?, Interest::READABLE)?;
        let helper = Self { directory, child: Arc::new(Mutex::new(child)), words, silent, over };
        tokio::spawn(reap(process, helper.clone()));
        Ok(helper)
    }

    /// Its stderr tail, if it has failed.
    fn failed(&self) -> Option<String> {
        let status = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
        let status = status.ok().flatten().filter(|status| !status.success())?;
        let words = self.words.text();
        Some(if words.trim().is_empty() { status.to_string() } else { words.trim().to_owned() })
    }

    fn end(&self) {
        self.over.notify_one();
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

async fn reap(process: AsyncFd<OwnedFd>, helper: Helper) {
    let _ = process.readable().await;
    // the helper has ended: this does not wait
    let _ = helper.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
    let _ = timeout(LAST_WORDS, helper.silent.notified()).await;
    tokio::select! {
        () = helper.over.notified() => {}
        () = sleep(WITH_THE_VM) => {
            let why = helper.failed().map(|why| format!(": {why}")).unwrap_or_default();
            log::warn!(
                "virtiofsd has ended, and with it the shared folder {}{why}",
                helper.directory.display()
            );
        }
    }
}

/// Refuses folders that cannot be shared.
pub(in crate::vm) fn check(request: &Request) -> Result<(), StartError> {
    resolve(request)?;
    if !request.shares.is_empty() {
        programs::virtiofsd(request.virtiofsd.as_deref(), &SearchPath::from_env())?;
    }
    Ok(())
}

/// Shares with absolute folders and tags.
pub(in crate::vm) fn resolve(request: &Request) -> Result<Vec<Share>, StartError> {
    let mut shares: Vec<Share> = Vec::new();
    for (number, share) in request.shares.iter().enumerate() {
        let directory = std::path::absolute(&share.directory).map_err(system("the working directory"))?;
        if !directory.is_dir() {
            return Err(StartError::File {
                what: "shared folder",
                why: if directory.exists() { "it is not a folder" } else { "there is no such folder" }
                    .to_owned(),
                path: directory,
                hint: None,
            });
        }
        let tag = share.tag.clone().unwrap_or_else(|| format!("virtiofs{number}"));
        if shares.iter().any(|other| other.tag == tag) {
            return Err(StartError::usage(format!("--virtiofs: the tag '{tag}' is given twice")));
        }
        shares.push(Share { directory, tag });
    }
    Ok(shares)
}

impl Shares {
    /// Binds and connects a socket for each share: the helper accepts on one end, QEMU inherits the other.
    pub(in crate::vm) fn bind(
        spec: &VmSpec,
        virtiofsd: Option<&Path>,
        run: &RunDir,
    ) -> Result<Self, StartError> {
        if spec.shares.is_empty() {
            return Ok(Self::default());
        }
        let program = programs::virtiofsd(virtiofsd, &SearchPath::from_env())?;
        let mut help = Command::new(&program);
        environment::apply(help.arg("--help").stdin(Stdio::null()));
        let help = help.output();
        let help =
            help.map_err(|error| StartError::Helper { program: program.display().to_string(), error })?;
        let modern = String::from_utf8_lossy(&help.stdout).contains("--shared-dir");
        let bind = |(number, share): (usize, &Share)| {
            let name = format!("share{number}");
            let listener = run.bind(&name)?;
            let connected = run.connect(&name)?;
            // both ends are open: the name is not needed any more
            run.unlink(&name)?;
            Ok((share.clone(), OwnedFd::from(listener), connected))
        };
        let shares: std::io::Result<Vec<_>> = spec.shares.iter().enumerate().map(bind).collect();
        Ok(Self {
            program,
            modern,
            shares: shares.map_err(system("a shared folder's socket"))?,
            running: Vec::new(),
        })
    }

    /// Starts the helpers and returns QEMU's ends. The helpers end when QEMU hangs up.
    pub(in crate::vm) fn start(&mut self, tied: bool) -> Result<Vec<OwnedFd>, StartError> {
        let mut ends = Vec::new();
        for (share, listener, connected) in std::mem::take(&mut self.shares) {
            let helper = self
                .helper(&share, listener, tied)
                .and_then(|child| Helper::watch(share.directory.clone(), child))
                .map_err(|error| StartError::Helper { program: self.program.display().to_string(), error })?;
            self.running.push(helper);
            ends.push(OwnedFd::from(connected));
        }
        Ok(ends)
    }

    fn helper(&self, share: &Share, listener: OwnedFd, tied: bool) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg(format!("--fd={}", listener.as_raw_fd()));
        // an absolute path, not `.`: the old one mounts the folder over itself, which a working directory does not follow
        // ("pivot_root(., .): Device or resource busy")
        if self.modern {
            command.arg("--shared-dir").arg(&share.directory);
        } else {
            command.arg("-o").arg(source_option(&share.directory));
        }
        environment::apply(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        sys::prepare_child(&mut command, vec![listener], true, tied);
        command.spawn()
    }

    /// The first helper that has failed, with its stderr tail: QEMU only reports that its vhost device was closed.
    pub(in crate::vm) async fn failure(&self) -> Option<(PathBuf, String)> {
        let failed =
            || self.running.iter().find_map(|helper| Some((helper.directory.clone(), helper.failed()?)));
        let until = async {
            while failed().is_none() {
                sleep(LAST_WORDS / 20).await;
            }
            // its stderr is complete only after its end
            sleep(LAST_WORDS / 10).await;
        };
        if !self.running.is_empty() {
            let _ = timeout(LAST_WORDS, until).await;
        }
        failed()
    }

    /// Ends the helpers that have not ended with QEMU.
    pub(in crate::vm) fn end(&mut self) {
        self.running.drain(..).for_each(|helper| helper.end());
    }
}

/// An option of the old virtiofsd, in which commas separate and backslashes escape (libfuse's `fuse_opt_parse`).
fn source_option(directory: &Path) -> OsString {
    let mut option = b"source=".to_vec();
    for byte in directory.as_os_str().as_bytes() {
        if matches!(byte, b',' | b'\\') {
            option.push(b'\\');
        }
        option.push(*byte);
    }
    OsString::from_vec(option)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_ends_the_option() {
        let option = |name: &str| source_option(Path::new(name)).into_string().unwrap();
        assert_eq!(option("/srv/files"), "source=/srv/files");
        assert_eq!(option(r"/a,sandbox=none\b"), r"source=/a\,sandbox=none\\b");
    }
}
