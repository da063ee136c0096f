//! Files into the guest and out of it, through the guest agent. Files of this machine are read and written here, with the
//! permissions of whoever asked.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use sha2::{Digest, Sha256};

use crate::control::client::{Client, ClientError};
use crate::control::{methods, wire};

use super::Error;

/// What one message carries into the guest.
const PIECE: usize = crate::vm::WRITE_PIECE;
/// Who may read, write and execute; set-user-ID and the like do not travel.
const PERMISSIONS: u32 = 0o777;

/// A file that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Where it is now.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// How it was compared with the original: `sha256`, or only `size` where the guest has no `sha256sum`.
    pub checked: String,
}

/// Is told how many bytes have been copied, and of how many if that is known.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

/// Copies a file of this machine into the guest: to a path, or into a directory that is there.
pub fn copy_to(
    client: &mut Client,
    source: &Path,
    destination: &str,
    progress: Progress<'_>,
) -> Result<Copied, Error> {
    let (mut file, facts) = open(source).map_err(Error::file(source))?;
    let name = source.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let start = wire::StartGuestFile { path: destination.to_owned(), name };
    let wire::GuestFileReply { handle, path } = client.call(methods::StartGuestFile, start)?;

    let mut size_bytes = 0;
    let mut sum = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        let count = fill(&mut file, &mut piece).map_err(Error::file(source))?;
        if count == 0 {
            break;
        }
        sum.update(&piece[..count]);
        let call = wire::WriteGuestFile { handle, data: BASE64.encode(&piece[..count]) };
        client.call(methods::WriteGuestFile, call)?;
        size_bytes += count as u64;
        progress(size_bytes, Some(facts.len()));
    }
    let finish = wire::FinishGuestFile {
        handle,
        mode: Some((facts.permissions().mode() & PERMISSIONS).into()),
        sha256: Some(hexadecimal(sum)),
    };
    let wire::FinishedReply { checked } = client.call(methods::FinishGuestFile, finish)?;
    Ok(Copied { path, size_bytes, checked })
}

/// Copies a file of the guest to this machine: to a path, or into a directory that is there.
pub fn copy_from(
    client: &mut Client,
    source: &str,
    destination: &Path,
    progress: Progress<'_>,
) -> Result<Copied, Error> {
    let mut arriving = Arriving::new(place(source, destination));
    let call = wire::ReadGuestFile { path: source.to_owned() };
    let mut failure = None;
    client.stream(methods::ReadGuestFile, call, |reply| match arriving.take(reply) {
        Ok(more) => {
            progress(arriving.done, arriving.total);
            more
        }
        Err(error) => {
            failure = Some(error);
            false
        }
    })?;
    match failure {
        Some(error) => Err(Error::File { path: arriving.target.path.clone(), error }),
        None => arriving.finish(source),
    }
}

/// The file itself, should a directory have been given.
fn place(source: &str, destination: &Path) -> PathBuf {
    match (destination.is_dir(), source.rsplit('/').next()) {
        (true, Some(name)) if !name.is_empty() => destination.join(name),
        _ => destination.to_owned(),
    }
}

/// A file on its way from the guest.
struct Arriving {
    target: Target,
    mine: Sha256,
    guests: Option<String>,
    mode: Option<u32>,
    /// None for a file of `/proc`, which tells no size, and something else each time.
    total: Option<u64>,
    done: u64,
    ended: bool,
}

impl Arriving {
    fn new(path: PathBuf) -> Self {
        Self {
            target: Target::new(path),
            mine: Sha256::new(),
            guests: None,
            mode: None,
            total: None,
            done: 0,
            ended: false,
        }
    }

    /// Takes one reply; whether there are more.
    fn take(&mut self, reply: wire::ReadGuestFileReply) -> io::Result<bool> {
        let Some(data) = reply.data else {
            // the first reply has the facts, the last the checksum
            self.ended = self.target.file.is_some();
            self.guests = self.guests.take().or(reply.sha256);
            self.mode = self.mode.or(reply.mode);
            self.total = self.total.or(reply.size_bytes.filter(|size| *size > 0));
            return if self.ended { Ok(true) } else { self.target.open().map(|()| true) };
        };
        let bytes = BASE64.decode(data).map_err(io::Error::other)?;
        self.mine.update(&bytes);
        self.done += bytes.len() as u64;
        self.target.write(&bytes).map(|()| true)
    }

    fn finish(self, source: &str) -> Result<Copied, Error> {
        let damaged = |why| Err(Error::Damaged { path: source.to_owned(), why });
        // the stream also ends, without a word, when the VM does
        if !self.ended {
            return Err(ClientError::Gone.into());
        }
        let mine = hexadecimal(self.mine);
        let checked = self.total.is_some() && self.guests.is_some();
        if checked && self.guests.is_some_and(|guests| guests != mine) {
            return damaged("it has changed while it was copied, for the checksums differ");
        }
        if !checked && self.total.is_some_and(|total| total != self.done) {
            return damaged("not all of it has arrived");
        }
        let path = self.target.path.clone();
        self.target.commit(self.mode).map_err(Error::file(&path))?;
        let checked = if checked { "sha256" } else { "size" }.to_owned();
        Ok(Copied { path: path.display().to_string(), size_bytes: self.done, checked })
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
