//! Copies files into and out of the guest, through the guest agent. Files on the host are read and written in this process, with
//! its permissions.

mod target;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;

use std::fs::{File, Metadata};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use sha2::{Digest, Sha256};

use crate::control::client::{Client, ClientError};
use crate::control::verbs;
use crate::host::files;

use super::{Error, milliseconds};
use target::{PERMISSIONS, Target, place};
pub use tree::{copy_in, copy_out};

/// Bytes of one message into the guest.
const PIECE: usize = 48 << 10;
/// The most bytes that are read of a file whose size the guest does not know, such as those in `/proc`. Far more than they have,
/// and too little to fill a disk.
const MOST_WITHOUT_SIZE: u64 = 64 << 20;

/// A file that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its path now.
    pub path: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// How it was compared with the original: `sha256`, or only `size` where the guest has no `sha256sum`; `tar` for a folder, of which
    /// the end of the stream and the exit code of the guest's `tar` count.
    pub checked: String,
}

/// Called with the number of copied bytes, and the total if it is known.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

/// Copies a file of the host into the guest: to a path, or into an existing directory.
pub fn copy_to(
    client: &mut Client,
    source: &Path,
    destination: &str,
    agent_timeout: Option<Duration>,
    progress: Progress<'_>,
) -> Result<Copied, Error> {
    let (file, facts) = files::open_input(source).map_err(Error::file(source))?;
    if is_endless(&file, &facts) {
        let why = "it is a device whose bytes may have no end: `head -c SIZE FILE | vmrun ctl copy-to - …` copies so many of them";
        return Err(Error::file(source)(io::Error::other(why)));
    }
    let leaving = Leaving {
        path: source,
        name: source.file_name().and_then(|name| name.to_str()).map(str::to_owned),
        mode: Some((facts.permissions().mode() & PERMISSIONS).into()),
        size: facts.is_file().then_some(facts.len()),
        agent_timeout,
    };
    leaving.all_of(client, file, destination, progress)
}

/// A character device that would fill the guest's disk (`/dev/zero`, `/dev/urandom`). A terminal ends when its user ends it, and
/// `/dev/null` at once.
fn is_endless(file: &File, facts: &Metadata) -> bool {
    facts.file_type().is_char_device() && !files::is_null(file).unwrap_or(false) && !file.is_terminal()
}

/// Copies a stream into the guest, to a path; `name` is its name in errors.
pub fn copy_to_from_stream(
    client: &mut Client,
    (stream, name): (impl Read, &Path),
    destination: &str,
    agent_timeout: Option<Duration>,
    progress: Progress<'_>,
) -> Result<Copied, Error> {
    Leaving { path: name, name: None, mode: None, size: None, agent_timeout }.all_of(
        client,
        stream,
        destination,
        progress,
    )
}

/// A file that is being copied into the guest.
struct Leaving<'a> {
    path: &'a Path,
    /// Its name in a directory.
    name: Option<String>,
    mode: Option<i64>,
    size: Option<u64>,
    agent_timeout: Option<Duration>,
}

impl Leaving<'_> {
    fn all_of(
        self,
        client: &mut Client,
        mut file: impl Read,
        destination: &str,
        progress: Progress<'_>,
    ) -> Result<Copied, Error> {
        let start = verbs::StartGuestFile {
            path: destination.to_owned(),
            name: self.name,
            agent_timeout_ms: self.agent_timeout.map(milliseconds),
        };
        let verbs::GuestFileReply { handle, path } = client.call(start)?;
        let mut size_bytes = 0;
        let mut sum = Sha256::new();
        let mut piece = vec![0; PIECE];
        loop {
            let count = fill(&mut file, &mut piece).map_err(Error::file(self.path))?;
            if count == 0 {
                break;
            }
            sum.update(&piece[..count]);
            let call = verbs::WriteGuestFile { handle, data: BASE64.encode(&piece[..count]) };
            client.call(call)?;
            size_bytes += count as u64;
            progress(size_bytes, self.size);
        }
        let finish = verbs::FinishGuestFile { handle, mode: self.mode, sha256: Some(hexadecimal(sum)) };
        let verbs::FinishedReply { checked } = client.call(finish)?;
        Ok(Copied { path, size_bytes, checked })
    }
}

/// Copies a file of the guest to the host: to a path, or into an existing directory.
pub fn copy_from(
    client: &mut Client,
    source: &str,
    destination: &Path,
    agent_timeout: Option<Duration>,
    progress: Progress<'_>,
) -> Result<Copied, Error> {
    let path = place(source, destination);
    Arriving::new(source, &path, Box::new(|size| Target::open(&path, size))).all_of(
        client,
        agent_timeout,
        progress,
    )
}

/// Copies a file of the guest to a stream, which gets the data before its checksum is compared.
pub fn copy_from_to_stream(
    client: &mut Client,
    source: &str,
    (stream, name): (&mut dyn Write, &Path),
    agent_timeout: Option<Duration>,
    progress: Progress<'_>,
) -> Result<Copied, Error> {
    Arriving::new(source, name, Box::new(|_| Ok(Target::Stream(stream)))).all_of(
        client,
        agent_timeout,
        progress,
    )
}

/// Opens the target and reserves space for so many bytes.
type Open<'a> = Box<dyn FnOnce(Option<u64>) -> io::Result<Target<'a>> + 'a>;

/// A file that is being copied from the guest, whose agent is not trusted: it may send at most the size that it announced.
struct Arriving<'a> {
    source: &'a str,
    /// The target's name in errors and the result.
    path: &'a Path,
    /// Called once, when the guest has announced the file's size.
    open: Option<Open<'a>>,
    target: Option<Target<'a>>,
    mine: Sha256,
    guests: Option<String>,
    mode: Option<u32>,
    /// `None` for a file of `/proc`, which reports no size, and whose content changes.
    total: Option<u64>,
    done: u64,
    ended: bool,
}

impl<'a> Arriving<'a> {
    fn new(source: &'a str, path: &'a Path, open: Open<'a>) -> Self {
        Self {
            source,
            path,
            open: Some(open),
            target: None,
            mine: Sha256::new(),
            guests: None,
            mode: None,
            total: None,
            done: 0,
            ended: false,
        }
    }

    fn all_of(
        mut self,
        client: &mut Client,
        agent_timeout: Option<Duration>,
        progress: Progress<'_>,
    ) -> Result<Copied, Error> {
        let agent_timeout_ms = agent_timeout.map(milliseconds);
        let call = verbs::ReadGuestFile { path: self.source.to_owned(), agent_timeout_ms };
        let mut failure = None;
        client.stream(call, |reply| match self.take(reply) {
            Ok(()) => {
                progress(self.done, self.total);
                true
            }
            Err(error) => {
                failure = Some(error);
                false
            }
        })?;
        match failure {
            Some(error) => Err(error),
            None => self.finish(),
        }
    }

    /// Processes one reply: the first has the facts, the last the checksum, those between them data.
    fn take(&mut self, reply: verbs::ReadGuestFileReply) -> Result<(), Error> {
        let unreadable = Error::file(self.path);
        let Some(data) = reply.data else {
            self.guests = self.guests.take().or(reply.sha256);
            let Some(open) = self.open.take() else {
                self.ended = true;
                return Ok(());
            };
            self.mode = reply.mode;
            self.total = reply.size_bytes.filter(|size| *size > 0);
            self.target = Some(open(self.total).map_err(unreadable)?);
            return Ok(());
        };
        let bytes = BASE64.decode(data).map_err(|error| Error::unclear(&error.to_string()))?;
        self.done += bytes.len() as u64;
        if self.done > self.total.unwrap_or(MOST_WITHOUT_SIZE) {
            return Err(self.too_much());
        }
        self.mine.update(&bytes);
        self.target.as_mut().map_or(Ok(()), |target| target.write(&bytes)).map_err(unreadable)
    }

    fn too_much(&self) -> Error {
        self.damaged(match self.total {
            Some(_) => {
                "more of it has come than it had when the copy began: it grows, or the guest agent is broken"
            }
            None => "it has no size that the guest could tell, and does not end after 64 MiB",
        })
    }

    fn damaged(&self, why: &'static str) -> Error {
        Error::Damaged { path: self.source.to_owned(), why }
    }

    fn finish(self) -> Result<Copied, Error> {
        // the stream also ends, without a reply, when the VM does
        let (true, Some(target)) = (self.ended, self.target) else { return Err(ClientError::Gone.into()) };
        let damaged = |why| Err(Error::Damaged { path: self.source.to_owned(), why });
        let mine = hexadecimal(self.mine);
        let checked = self.total.is_some() && self.guests.is_some();
        if checked && self.guests.is_some_and(|guests| guests != mine) {
            return damaged("it has changed while it was copied, for the checksums differ");
        }
        if self.total.is_some_and(|total| total != self.done) {
            return damaged("not all of it has arrived");
        }
        target.commit(self.mode).map_err(Error::file(self.path))?;
        let checked = if checked { "sha256" } else { "size" }.to_owned();
        Ok(Copied { path: self.path.display().to_string(), size_bytes: self.done, checked })
    }
}

/// Reads until the piece is full or the file ends.
fn fill(file: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
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
