//! `copy-to` and `copy-from`. Files of this machine are read and written here, with the permissions of whoever typed this.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use clap::Args;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::control::client::ClientError;
use crate::control::wire;

use super::super::failure::Failure;
use super::super::output;
use super::Context;

/// What one message carries into the guest.
const PIECE: usize = crate::vm::WRITE_PIECE;
/// Who may read, write and execute; set-user-ID and the like do not travel.
const PERMISSIONS: u32 = 0o777;

/// `copy-to`.
#[derive(Debug, Args)]
pub(super) struct CopyTo {
    /// A file of this machine
    source: PathBuf,
    /// Where it is to be in the guest: an absolute path, or that of a directory
    destination: String,
}

impl CopyTo {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let shown = self.source.display().to_string();
        let (mut file, facts) = open(&self.source).map_err(|error| about(&shown, &error))?;
        let name = self.source.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let start = wire::StartGuestFile { path: self.destination, name };
        let wire::GuestFileReply { handle, path } = context.client.call("StartGuestFile", start)?;

        let mut progress = Progress::new(Some(facts.len()));
        let mut sum = Sha256::new();
        let mut piece = vec![0; PIECE];
        loop {
            let count = fill(&mut file, &mut piece).map_err(|error| about(&shown, &error))?;
            if count == 0 {
                break;
            }
            sum.update(&piece[..count]);
            let call = wire::WriteGuestFile { handle, data: BASE64.encode(&piece[..count]) };
            let _: wire::Empty = context.client.call("WriteGuestFile", call)?;
            progress.add(count);
        }
        let finish = wire::FinishGuestFile {
            handle,
            mode: Some((facts.permissions().mode() & PERMISSIONS).into()),
            sha256: Some(hexadecimal(sum)),
        };
        let wire::FinishedReply { checked } = context.client.call("FinishGuestFile", finish)?;
        progress.report(context, &path, &checked)
    }
}

/// `copy-from`.
#[derive(Debug, Args)]
pub(super) struct CopyFrom {
    /// A file of the guest, as an absolute path
    source: String,
    /// Where it is to be on this machine, or a directory
    destination: PathBuf,
}

impl CopyFrom {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let mut target = Target::new(self.place());
        let shown = target.path.display().to_string();
        let mut progress = Progress::new(None);
        let mut mine = Sha256::new();
        let mut guests = None;
        let mut mode = None;
        let mut ended = false;
        let mut failure = None;
        let call = wire::ReadGuestFile { path: self.source.clone() };
        context.client.stream("ReadGuestFile", call, |reply: wire::ReadGuestFileReply| {
            let Some(data) = reply.data else {
                // the first reply has the facts, the last the checksum
                ended = target.file.is_some();
                guests = guests.take().or(reply.sha256);
                mode = mode.or(reply.mode);
                progress.total = progress.total.or(reply.size_bytes.filter(|size| *size > 0));
                return ended || target.open().map_err(|error| failure = Some(about(&shown, &error))).is_ok();
            };
            let bytes = BASE64.decode(data).unwrap_or_default();
            mine.update(&bytes);
            progress.add(bytes.len());
            target.write(&bytes).map_err(|error| failure = Some(about(&shown, &error))).is_ok()
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        // the stream also ends, without a word, when the VM does
        if !ended {
            return Err(ClientError::Gone.into());
        }
        let mine = hexadecimal(mine);
        // a file of /proc tells no size, and something else each time
        let stable = progress.total.is_some();
        if stable && guests.as_ref().is_some_and(|guests| *guests != mine) {
            let message = format!("{} has changed while it was copied: the checksums differ", self.source);
            return Err(Failure::other(message));
        }
        if guests.is_none() && progress.total.is_some_and(|total| total != progress.done) {
            let message = format!("{}: not all of it has arrived", self.source);
            return Err(Failure::other(message));
        }
        target.commit(mode).map_err(|error| about(&shown, &error))?;
        let checked = if stable && guests.is_some() { "sha256" } else { "size" };
        progress.report(context, &shown, checked)
    }

    /// The file itself, should a directory have been given.
    fn place(&self) -> PathBuf {
        match (self.destination.is_dir(), self.source.rsplit('/').next()) {
            (true, Some(name)) if !name.is_empty() => self.destination.join(name),
            _ => self.destination.clone(),
        }
    }
}

/// The file that is written: beside its place until it is whole, unless there is something that must not be replaced.
struct Target {
    path: PathBuf,
    part: Option<PathBuf>,
    file: Option<File>,
}

impl Target {
    fn new(path: PathBuf) -> Self {
        let replaceable = fs::symlink_metadata(&path).map_or(true, |facts| facts.is_file());
        let part = replaceable.then(|| {
            let mut part = path.clone().into_os_string();
            part.push(format!(".{}.part", std::process::id()));
            PathBuf::from(part)
        });
        Self { path, part, file: None }
    }

    fn open(&mut self) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let file = match &self.part {
            Some(part) => options.write(true).create_new(true).mode(0o600).open(part)?,
            None => options.write(true).open(&self.path)?,
        };
        self.file = Some(file);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes))
    }

    fn commit(mut self, mode: Option<u32>) -> io::Result<()> {
        let Some(part) = self.part.as_ref() else { return Ok(()) };
        if let (Some(mode), Some(file)) = (mode, &self.file) {
            file.set_permissions(Permissions::from_mode(mode & PERMISSIONS))?;
        }
        fs::rename(part, &self.path)?;
        self.part = None;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let (Some(part), Some(_)) = (&self.part, &self.file) {
            let _ = fs::remove_file(part);
        }
    }
}

fn open(path: &Path) -> io::Result<(File, fs::Metadata)> {
    let file = File::open(path)?;
    let facts = file.metadata()?;
    match facts.is_dir() {
        true => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        false => Ok((file, facts)),
    }
}

fn about(path: &str, error: &io::Error) -> Failure {
    let hint = (error.kind() == io::ErrorKind::IsADirectory)
        .then(|| "one file at a time: make an archive of a directory with `tar`".to_owned());
    Failure::other(format!("{path}: {error}")).hint(hint)
}

/// Reads until the piece is full or the file ends.
fn fill(file: &mut File, piece: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < piece.len() {
        match file.read(&mut piece[count..]) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn hexadecimal(sum: Sha256) -> String {
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How far it has got, as one line on the terminal that is written over and over.
struct Progress {
    total: Option<u64>,
    done: u64,
    started: Instant,
    shown: output::Line,
}

impl Progress {
    fn new(total: Option<u64>) -> Self {
        Self { total, done: 0, started: Instant::now(), shown: output::Line::new() }
    }

    fn add(&mut self, count: usize) {
        self.done += u64::try_from(count).unwrap_or_default();
        let line = self.line();
        self.shown.show(&line);
    }

    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let speed = output::bytes((self.done as f64 / seconds) as u64);
        match self.total.filter(|total| *total > 0) {
            Some(total) => {
                let percent = (self.done * 100 / total).min(100);
                format!("{percent:3} %  {} of {}  {speed}/s", output::bytes(self.done), output::bytes(total))
            }
            None => format!("{}  {speed}/s", output::bytes(self.done)),
        }
    }

    fn report(&self, context: &Context, path: &str, checked: &str) -> Result<u8, Failure> {
        let took_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let facts = json!({ "path": path, "size_bytes": self.done, "took_ms": took_ms, "checked": checked });
        context.output.print(&facts, || path.to_owned())
    }
}
