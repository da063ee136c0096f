//! Copies files into and out of the guest: through the streams of a command of its own, or with the agent's `guest-file-open`,
//! `-read`, `-write`, `-flush` and `-close`.
//!
//! A file is written under a temporary name beside its destination and renamed when it is complete. The rename, the mode and the
//! checksum need the guest's shell; without one (`guest-exec` may be forbidden, the guest may not be a Unix) a file is written to
//! its destination directly, and only its size is compared.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::host::log_context;
use crate::qemu::refusals::Refusal;

use super::agent_file::Open;
use super::exec::{Exec, Executed};
use super::file_streams::{Sink, Source};
use super::shell_words::reason;
use super::shortened;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::handle::Handle;

/// The size from which on a file is read through the streams of a command; below that the agent's few calls are as fast.
const LARGE: u64 = 1 << 20;
/// The longest path in an answer of the guest, in bytes: Linux's `PATH_MAX`.
const LONGEST_PATH: usize = 4096;

/// During a copy there is no wait for an agent that was lost.
const NOW: Option<Duration> = Some(Duration::ZERO);

/// Resolves the destination and makes an empty file beside it. Prints `P` and the destination: write to the temporary file; `D`:
/// the destination must not be replaced, such as a device.
const PREPARE: &str = r#"
p=$1
if [ -d "$p" ]; then
    [ -n "$2" ] || { echo "it is a directory" >&2; exit 1; }
    p=${p%/}/$2
fi
[ ! -d "$p" ] || { echo "$p is a directory" >&2; exit 1; }
d=${p%/*}
[ "$d" != "$p" ] || d=.
[ -d "${d:-/}" ] || { echo "there is no directory $d" >&2; exit 1; }
case $p in */) echo "there is no directory $p" >&2; exit 1 ;; esac
if [ -e "$p" ] && [ ! -f "$p" ]; then printf 'D%s' "$p"; exit; fi
umask 077
: > "$p.$3.part" && printf 'P%s' "$p"
"#;

/// Checks the complete file and renames it to its destination.
const COMMIT: &str = r#"
set -e
if [ -n "$4" ] && command -v sha256sum > /dev/null; then
    sum=$(sha256sum < "$1")
    [ "${sum%% *}" = "$4" ] || { echo "what has arrived has the checksum ${sum%% *} instead of $4" >&2; exit 1; }
    echo sha256
else
    size=$(wc -c < "$1")
    [ "$size" -eq "$5" ] || { echo "only $size of $5 bytes have arrived" >&2; exit 1; }
    echo size
fi
[ -z "$2" ] || chmod "$2" "$1"
mv -f "$1" "$3"
"#;

/// Prints mode (octal) and size of the file to read.
const LOOK: &str =
    r#"[ ! -d "$1" ] || { echo "it is a directory" >&2; exit 1; }; stat -L -c '%a %s' -- "$1""#;

/// How the copy was checked at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// By SHA-256.
    Sha256,
    /// By size.
    Size,
}

/// A file that is being written to the guest. Dropped before [`Upload::finish`] has succeeded, it leaves nothing behind.
pub struct Upload {
    vm: Handle,
    target: Target,
    /// The temporary file, if it is not written to the destination directly.
    part: Part,
    /// The destination is not a regular file, and does not report its size.
    is_device: bool,
    path: String,
    size: u64,
}

/// What writes a file.
enum Target {
    /// A command.
    Command(Sink),
    /// The agent, with its handle; closed when this is dropped.
    Agent(Open),
}

/// A file that is being read from the guest.
pub struct Download {
    vm: Handle,
    path: String,
    source: Origin,
    /// Bytes read so far.
    read: u64,
    /// Its size in bytes, if the guest knows it; files of `/proc` report 0.
    pub size: Option<u64>,
    /// Its mode, if the guest reports it.
    pub mode: Option<u32>,
}

/// What reads a file.
enum Origin {
    /// A command.
    Command(Source),
    /// The agent, with its handle; closed when this is dropped.
    Agent(Open),
}

impl Handle {
    /// Starts to write a file; `name` is its name if `path` is a directory.
    ///
    /// # Errors
    /// `RefusedByGuest` with the guest's error.
    pub async fn upload(
        &self,
        path: &str,
        name: Option<&str>,
        agent_timeout: Option<Duration>,
    ) -> Result<Upload, ChangeError> {
        let (vm, name, asked) = (self.clone(), name.unwrap_or_default().to_owned(), path.to_owned());
        let prepare = async move { vm.place(&asked, &name, agent_timeout).await };
        let Place { path, part, is_device } = undone_if_unwanted(prepare).await?;
        let file = part.file.as_ref().unwrap_or(&path).clone();
        let has_shell = part.file.is_some() || is_device;
        let target = self.target(&file, has_shell).await.map_err(|error| about(error, &path))?;
        Ok(Upload { vm: self.clone(), target, part, is_device, path, size: 0 })
    }

    async fn target(&self, file: &str, has_shell: bool) -> Result<Target, ChangeError> {
        let sink = if has_shell { Sink::open(self, file).await? } else { None };
        match sink {
            Some(sink) => Ok(Target::Command(sink)),
            None => Open::file(self, file, "w").await.map(Target::Agent),
        }
    }

    /// Resolves where to write a file, and creates it, empty and readable by its owner only.
    async fn place(
        &self,
        path: &str,
        name: &str,
        agent_timeout: Option<Duration>,
    ) -> Result<Place, ChangeError> {
        let suffix = format!("{:08x}", rand::random::<u32>());
        let arguments = [path, name, &suffix];
        let Some(done) = self.shell(PREPARE, &arguments, path, agent_timeout).await? else {
            return Ok(Place {
                path: path.to_owned(),
                part: Part { vm: self.clone(), file: None },
                is_device: false,
            });
        };
        let answer = String::from_utf8_lossy(&done.stdout).into_owned();
        if answer.len() > LONGEST_PATH {
            let kind = ErrorKind::RefusedByGuest { id: path.to_owned() };
            return Err(about(ChangeError::new(kind, "the guest's answer is no path"), path));
        }
        let path = answer.get(1..).unwrap_or(path).to_owned();
        let file = answer.starts_with('P').then(|| format!("{path}.{suffix}.part"));
        Ok(Place { path, part: Part { vm: self.clone(), file }, is_device: answer.starts_with('D') })
    }

    /// Starts to read a file.
    ///
    /// # Errors
    /// `NoSuchThing`, or `RefusedByGuest` with the guest's error.
    pub async fn download(
        &self,
        path: &str,
        agent_timeout: Option<Duration>,
    ) -> Result<Download, ChangeError> {
        let facts = self.shell(LOOK, &[path], path, agent_timeout).await?;
        let facts = facts.map(|done| String::from_utf8_lossy(&done.stdout).into_owned()).unwrap_or_default();
        let (mode, size) = facts.trim().split_once(' ').unwrap_or_default();
        let (size, mode) = (size.parse().ok(), u32::from_str_radix(mode, 8).ok());
        let source = match size {
            Some(LARGE..) => Source::open(self, path).await.map_err(|error| about(error, path))?,
            _ => None,
        };
        let source = match source {
            Some(source) => Origin::Command(source),
            None => Origin::Agent(Open::file(self, path, "r").await.map_err(|error| about(error, path))?),
        };
        let mut download = Download { vm: self.clone(), path: path.to_owned(), source, read: 0, size, mode };
        if download.size.unwrap_or(0) == 0 {
            download.size = download.end().await?.or(download.size);
        }
        Ok(download)
    }

    /// Runs a script in the guest's shell, which must succeed; `None` if there is no shell.
    async fn shell(
        &self,
        script: &str,
        arguments: &[&str],
        path: &str,
        agent_timeout: Option<Duration>,
    ) -> Result<Option<Executed>, ChangeError> {
        let command = [&["/bin/sh", "-c", script, "vmrun"], arguments].concat();
        let command = command.into_iter().map(str::to_owned).collect();
        let exec = Exec { command, agent_timeout, ..Exec::default() };
        match self.exec(exec).await {
            Ok(done) if done.exit_code == Some(0) => Ok(Some(done)),
            Ok(done) => {
                let words = String::from_utf8_lossy(&done.stderr);
                let words = words.trim();
                let words = shortened(words.strip_prefix("vmrun: ").unwrap_or(words));
                let kind = ErrorKind::RefusedByGuest { id: path.to_owned() };
                Err(about(ChangeError::new(kind, words), path))
            }
            Err(error) if matches!(error.kind, ErrorKind::NotSupported | ErrorKind::NoSuchThing { .. }) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Upload {
    /// Its destination.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Writes the next piece.
    ///
    /// # Errors
    /// `RefusedByGuest`, for example when the guest's disk is full.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), ChangeError> {
        let written = match &mut self.target {
            Target::Command(sink) => sink.write(bytes).await,
            Target::Agent(file) => file.write(bytes).await,
        };
        written.map_err(|error| about(error, &self.path))?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Checks the complete file, sets its mode and renames it to its destination.
    ///
    /// # Errors
    /// `RefusedByGuest`: it is incomplete, or cannot be put there.
    pub async fn finish(mut self, mode: Option<u32>, sha256: Option<&str>) -> Result<Checked, ChangeError> {
        let seeks = self.part.file.is_none() && !self.is_device;
        let finished = match &mut self.target {
            Target::Command(sink) => sink.finish().await,
            Target::Agent(file) => file.finish(seeks.then_some(self.size)).await,
        };
        finished.map_err(|error| about(error, &self.path))?;
        let Some(part) = self.part.file.clone() else { return Ok(Checked::Size) };
        let mode = mode.map(|mode| format!("{mode:o}")).unwrap_or_default();
        let size = self.size.to_string();
        let arguments = [&part, &mode, &self.path, sha256.unwrap_or_default(), &size];
        let done = self.vm.shell(COMMIT, &arguments, &self.path, NOW).await?;
        self.part.file = None;
        let with_sum = done.is_some_and(|done| done.stdout.starts_with(b"sha256"));
        Ok(if with_sum { Checked::Sha256 } else { Checked::Size })
    }
}

/// Which file it is, is added with [`about`].
pub(super) fn refused(message: &str) -> ChangeError {
    ChangeError::new(ErrorKind::RefusedByGuest { id: String::new() }, message)
}

/// Where a file is written.
struct Place {
    /// Its destination.
    path: String,
    part: Part,
    is_device: bool,
}

/// An incomplete file in the guest. Removed on drop.
pub(super) struct Part {
    vm: Handle,
    file: Option<String>,
}

impl Part {
    /// From now on, this file.
    pub(super) fn of(vm: &Handle, file: String) -> Self {
        Self { vm: vm.clone(), file: Some(file) }
    }

    /// Keeps it, or leaves the removal to another.
    pub(super) fn keep(mut self) {
        self.file = None;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let Some(part) = self.file.take().filter(|_| self.vm.agent.is_alive()) else { return };
        let vm = self.vm.clone();
        log_context::spawn(async move {
            if let Err(error) = vm.shell("rm -f -- \"$1\"", &[&part], &part, NOW).await {
                log::warn!("{part} stays in the guest: {error}");
            }
        });
    }
}

/// Runs something to its end even if the client goes: its result is then dropped, and so undone.
async fn undone_if_unwanted<T: Send + 'static>(
    made: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
) -> Result<T, ChangeError> {
    let (tell, told) = oneshot::channel();
    log_context::spawn(async move { drop(tell.send(made.await)) });
    told.await.unwrap_or_else(|_| Err(ChangeError::not_running()))
}

impl Download {
    /// The offset of the file's end, which a block device has, too, and a guest without a shell.
    async fn end(&self) -> Result<Option<u64>, ChangeError> {
        let Origin::Agent(file) = &self.source else { return Ok(None) };
        file.end().await.map_err(|error| about(error, &self.path))
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// `RefusedByGuest` with the guest's error, or because it sends more than the file had when it was opened.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ChangeError> {
        let piece = match &mut self.source {
            Origin::Command(source) => source.next().await,
            Origin::Agent(file) => file.read().await,
        };
        let piece = piece.map_err(|error| about(error, &self.path))?;
        self.read += piece.as_ref().map_or(0, Vec::len) as u64;
        if self.size.is_some_and(|size| size > 0 && self.read > size) {
            return Err(about(refused("it has grown since the copy began"), &self.path)
                .hint("let the guest make a copy of it first, and fetch that"));
        }
        Ok(piece)
    }

    /// The SHA-256 sum of the file as the guest computes it, if it can.
    ///
    /// # Errors
    /// `RefusedByGuest` if the file is gone.
    pub async fn sum(mut self) -> Result<Option<String>, ChangeError> {
        if let Origin::Agent(file) = &mut self.source {
            file.close().await?;
        }
        let script = "command -v sha256sum > /dev/null || exit 0; sha256sum < \"$1\"";
        let done = self.vm.shell(script, &[&self.path], &self.path, NOW).await?;
        let text = done.map(|done| String::from_utf8_lossy(&done.stdout).into_owned()).unwrap_or_default();
        Ok(text.split(' ').next().filter(|sum| sum.len() == 64).map(str::to_owned))
    }
}

/// Adds the file's name to an error of the guest.
fn about(error: ChangeError, path: &str) -> ChangeError {
    let ErrorKind::RefusedByGuest { .. } = error.kind else { return error };
    let id = path.to_owned();
    let missing = Refusal::NoSuchFile.is_in(&error.message);
    let kind = if missing { ErrorKind::NoSuchThing { id } } else { ErrorKind::RefusedByGuest { id } };
    let words = reason(error.message.trim());
    ChangeError { kind, message: format!("{path} in the guest: {words}"), hint: error.hint }
}
