//! Unpacks a compressed image, or the image in an archive, by the host's own programs.
//!
//! These are there wherever images are made, kept up to date by the distribution, and faster than anything of ours (`xz` with several
//! threads); a damaged file crashes one of them and not a supervisor, and vmrun stays as small as it is.

mod archive;
mod packing;
mod sparse;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};

use nix::sys::resource::Resource;
use nix::sys::statvfs::fstatvfs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::image::{self, ImageError};
use super::made::NewFile;
use super::programs::{self, ProgramError, SearchPath};
use super::{environment, files, sys};
use crate::spec::ImageFormat;

pub use packing::Packing;

/// An appliance in an archive that is compressed, with compressed images in it: nothing that is meant has more.
const MAX_LAYERS: usize = 4;
/// What is left free on the disk for everybody else.
const RESERVE_BYTES: u64 = 64 << 20;
/// A sector: no disk has less.
const SMALLEST_BYTES: u64 = 512;
/// What qemu-img writes at a time at most.
const CLUSTER_BYTES: u64 = 2 << 20;
/// Of what a program says, for a message.
const MAX_SAID: u64 = 4 << 10;

/// Why an image was not unpacked. Nothing is left of it.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// What unpacks it is not installed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The program refused, or was ended.
    #[error("{program} has failed: {said}")]
    Refused {
        /// Which.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// An archive without an image.
    #[error("there is no disk image in the archive, but {0}")]
    NoImage(String),
    /// What came out is no disk.
    #[error("what is packed in it is {0}")]
    NoDisk(String),
    /// It is packed more often than anything is.
    #[error("it is packed more than {MAX_LAYERS} times")]
    TooDeep,
    /// It was written to meanwhile.
    #[error("it was changed while it was unpacked")]
    Changed,
    /// Of the system; the disk is full, perhaps.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl UnpackError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Program(error) => error.hint(),
            Self::Refused { .. } => Some("is it whole? fetch it again, or compare its checksum".to_owned()),
            Self::NoImage(_) | Self::NoDisk(_) => {
                Some("unpack it by hand, and look at what is in it".to_owned())
            }
            Self::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                Some("make room, or choose another place with `--state DIR`".to_owned())
            }
            Self::TooDeep | Self::Changed | Self::Io(_) => None,
        }
    }
}

/// How far it has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// So much of the source was read, in bytes.
    pub read_bytes: u64,
    /// Of so many.
    pub of_bytes: u64,
    /// So much of the image was made.
    pub made_bytes: u64,
}

/// A packed image, opened once.
#[derive(Debug)]
pub struct Source {
    file: File,
    state: SourceState,
}

/// Which file it is, and whether it was written to since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl SourceState {
    fn of(file: &File) -> io::Result<Self> {
        let facts = file.metadata()?;
        Ok(Self {
            device: facts.dev(),
            inode: facts.ino(),
            size_bytes: facts.len(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
        })
    }
}

impl Source {
    /// Opens it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (file, _) = files::open(path)?;
        let state = SourceState::of(&file)?;
        Ok(Self { file, state })
    }

    /// Which file it is.
    pub fn state(&self) -> &SourceState {
        &self.state
    }

    /// The SHA-256 of all of it, in hexadecimal.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn checksum(&self) -> io::Result<String> {
        checksum(&self.file)
    }
}

/// By position, so that others may read meanwhile.
fn checksum(file: &File) -> io::Result<String> {
    let (mut hash, mut buffer, mut at) = (Sha256::new(), vec![0; 256 << 10], 0);
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => break,
            Ok(count) => {
                hash.update(&buffer[..count]);
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// An image that came out of its packing; it is removed unless it gets its name.
#[derive(Debug)]
pub struct Unpacked {
    /// The image.
    pub file: NewFile,
    /// Its format.
    pub format: ImageFormat,
    /// The checksum of what it was in.
    pub checksum: String,
}

/// Unpacks an image into a new file, whose name `at` will be: all layers of packing, until there is a disk image.
///
/// # Errors
/// Why not; nothing is left.
pub fn unpack(
    source: &Source,
    packing: Packing,
    at: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Unpacked, UnpackError> {
    let whole = source.file.try_clone()?;
    let summing = std::thread::spawn(move || checksum(&whole));
    let unpacked = layers(source, packing, at, progress);
    let checksum = summing.join().map_err(|_| io::Error::other("the checksum"))??;
    let (file, format) = unpacked?;
    if SourceState::of(&source.file)? != source.state {
        return Err(UnpackError::Changed);
    }
    file.file().sync_all()?;
    Ok(Unpacked { file, format, checksum })
}

fn layers(
    source: &Source,
    mut packing: Packing,
    at: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(NewFile, ImageFormat), UnpackError> {
    let mut input = source.file.try_clone()?;
    // the layer before is read until the next is complete
    let mut before: Option<NewFile> = None;
    for layer in 0..MAX_LAYERS {
        let name = if layer % 2 == 0 { at.to_owned() } else { at.with_extension("part2") };
        let output = NewFile::create(&name)?;
        one_layer(&mut input, packing, &output, progress)?;
        drop(before.take());
        match image::inspect(&of_descriptor(output.file())) {
            Ok(facts) if facts.format == ImageFormat::Vmdk => {
                let name = at.with_extension("qcow2.part");
                let room = room(output.file())?;
                return Ok((converted(&output, &facts, &name, room)?, ImageFormat::Qcow2));
            }
            // a link in a zip comes out as the name that it leads to
            Ok(_) if output.file().metadata()?.len() < SMALLEST_BYTES => {
                return Err(UnpackError::NoDisk("a file of less than a sector".to_owned()));
            }
            Ok(facts) => return Ok((output, facts.format)),
            Err(ImageError::Foreign { foreign, .. }) => match foreign.packing() {
                Some(inner) => packing = inner,
                None => return Err(UnpackError::NoDisk(foreign.what.to_owned())),
            },
            Err(ImageError::Empty(_)) => return Err(UnpackError::NoDisk("an empty file".to_owned())),
            Err(ImageError::Luks(_)) => return Err(UnpackError::NoDisk("encrypted with LUKS".to_owned())),
            Err(ImageError::Damaged { source, .. }) => {
                return Err(UnpackError::NoDisk(format!("a damaged image: {source}")));
            }
            Err(error) => return Err(io::Error::other(error).into()),
        }
        input = output.file().try_clone()?;
        before = Some(output);
    }
    Err(UnpackError::TooDeep)
}

/// Takes off one layer of packing.
fn one_layer(
    input: &mut File,
    packing: Packing,
    output: &NewFile,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), UnpackError> {
    let search = SearchPath::from_env();
    let program = programs::unpacker(packing.program(), packing.package(), &search)?;
    let mut command = Command::new(program);
    command.args(packing.arguments());
    if let Some(listing) = packing.listing() {
        let mut list = Command::new(command.get_program());
        list.args(listing);
        let mut names = String::new();
        run(list, packing, input, |stdout| {
            stdout.take(archive::MAX_LIST_BYTES).read_to_string(&mut names).map(drop)
        })?;
        command.arg(archive::image(&names, packing)?);
    }
    let of_bytes = input.metadata()?.len();
    let room = room(output.file())?;
    // the program moves the same position
    let mut position = input.try_clone()?;
    run(command, packing, input, |stdout| {
        sparse::copy(stdout, output.file(), room, &mut |made_bytes| {
            let read_bytes = position.stream_position().unwrap_or(0);
            progress(Progress { read_bytes, of_bytes, made_bytes });
        })
    })
}

/// How much may be written beside a file, in bytes.
fn room(file: &File) -> io::Result<u64> {
    let disk = fstatvfs(file)?;
    Ok((disk.blocks_available() * disk.fragment_size()).saturating_sub(RESERVE_BYTES))
}

/// Runs a program that reads the input from its start; what it writes goes to `take`.
fn run(
    mut command: Command,
    packing: Packing,
    input: &mut File,
    take: impl FnOnce(&mut ChildStdout) -> io::Result<()>,
) -> Result<(), UnpackError> {
    input.rewind()?;
    command.stdin(input.try_clone()?).stdout(Stdio::piped()).stderr(Stdio::piped());
    environment::apply(&mut command);
    sys::prepare_child(&mut command, Vec::new(), false, true);
    let mut child = command.spawn()?;
    drop(command);
    let stderr = child.stderr.take();
    let saying = std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr.by_ref().take(MAX_SAID).read_to_end(&mut said);
            // it must not wait for us
            let _ = io::copy(&mut stderr, &mut io::sink());
        }
        String::from_utf8_lossy(&said).trim().to_owned()
    });
    let taken = child.stdout.as_mut().map_or(Ok(()), take);
    if taken.is_err() {
        let _ = child.kill();
    }
    // what was not wanted any more is no error of ours
    drop(child.stdout.take());
    let status = child.wait()?;
    let said = saying.join().unwrap_or_default();
    taken?;
    if status.success() { Ok(()) } else { Err(refused(packing.program(), said, status)) }
}

fn refused(program: &'static str, said: String, status: ExitStatus) -> UnpackError {
    let said = if said.is_empty() { format!("it ended with {status}") } else { said };
    UnpackError::Refused { program, said }
}

/// Appliances have compressed vmdk images, which cannot be written to. `room`: as many bytes may be written.
fn converted(
    vmdk: &NewFile,
    facts: &image::ImageFacts,
    name: &Path,
    room: u64,
) -> Result<NewFile, UnpackError> {
    if facts.backing.is_some() || !facts.data_files.is_empty() {
        return Err(UnpackError::NoDisk("a vmdk with its data in other files".to_owned()));
    }
    let program = programs::qemu_img(&SearchPath::from_env())?;
    let qcow2 = NewFile::create(name)?;
    let keep: Vec<OwnedFd> = vec![vmdk.file().try_clone()?.into(), qcow2.file().try_clone()?.into()];
    let mut command = Command::new(program);
    command.args(["convert", "-q", "-f", "vmdk", "-O", "qcow2", "--"]);
    command.args(keep.iter().map(|file| format!("/proc/self/fd/{}", file.as_raw_fd())));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    environment::apply(&mut command);
    sys::prepare_child(&mut command, keep, false, true);
    // a few bytes can make any number of them: each part of the disk may have the same cluster
    sys::limit(&mut command, Resource::RLIMIT_FSIZE, room);
    let output = command.output()?;
    if output.status.success() {
        return Ok(qcow2);
    }
    if qcow2.file().metadata()?.len() >= room.saturating_sub(CLUSTER_BYTES) {
        let why = format!("its image needs more than the {room} bytes that fit on the disk");
        return Err(io::Error::new(io::ErrorKind::StorageFull, why).into());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(refused("qemu-img", said, output.status))
}

/// Leads to an open file, which may have no name.
fn of_descriptor(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests;
