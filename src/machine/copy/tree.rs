//! Copies folders into and out of the guest, as a tar stream: one end is packed or unpacked here, the other by the guest's `tar`.

use std::fs::{self, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tar::{Builder, Header, HeaderMode};

use crate::control::client::{Client, ClientError};
use crate::host::files;
use crate::vm::{Exec, Executed};

use super::super::streamed::{Happened, Input, exec_streamed};
use super::target::{PERMISSIONS, place};
use super::unpack::unpack;
use super::{Copied, Error, Progress, copy_from, copy_to};

/// Unpacks its input into the folder $1, or into $2 in it if it is there already; prints into which one. As with a file, the folder above
/// must be there.
const UNPACK: &str = r#"
to=$1
[ -d "$to" ] && to=${to%/}/$2
while [ "$to" != "${to%/}" ] && [ "$to" != / ]; do to=${to%/}; done
d=${to%/*}
[ -d "${d:-/}" ] || { echo "there is no directory $d" >&2; exit 96; }
{ [ -d "$to" ] || mkdir "$to"; } && printf '%s' "$to" && exec tar -xf - -C "$to"
"#;
/// Its exit code for a destination in a folder that is not there.
const NO_PARENT: i64 = 96;
/// Packs the folder $1.
const PACK: &str = r#"cd "$1" && exec tar -cf - ."#;
/// Ends with 0 if $1 is a folder.
const IS_FOLDER: &str = r#"test -d "$1""#;

/// How a folder is compared with the original: it is one stream, and both its end and the exit code of the guest's `tar` count.
const CHECKED: &str = "tar";
/// The longest path that the guest may answer with, in bytes: Linux has no longer one.
const LONGEST_PATH: usize = 4096;
/// The most that is kept of what the guest's `tar` says, in bytes.
const MOST_SAID: usize = 2000;

/// Copies a file or a folder of the host into the guest.
///
/// # Errors
/// Those of [`copy_to`]; the guest's `tar` fails, or the folder has what cannot be copied.
pub fn copy_in(
    client: &mut Client,
    source: &Path,
    destination: &str,
    agent_timeout: Option<Duration>,
    progress: Progress<'_>,
) -> Result<Copied, Error> {
    match source.is_dir() {
        true => copy_folder_to(client, source, destination, agent_timeout, progress),
        false => copy_to(client, source, destination, agent_timeout, progress),
    }
}

/// Copies a file or a folder of the guest to the host.
///
/// # Errors
/// Those of [`copy_from`]; the guest's `tar` fails, or what it packs cannot be written here.
pub fn copy_out(
    client: &mut Client,
    source: &str,
    destination: &Path,
    agent_timeout: Option<Duration>,
    progress: Progress<'_>,
) -> Result<Copied, Error> {
    // a folder does not take the place of a file, whatever the guest says that it has
    let is_file =
        fs::metadata(place(source.trim_end_matches('/'), destination)).is_ok_and(|facts| !facts.is_dir());
    match copy_from(client, source, destination, agent_timeout, progress) {
        // in this order: mostly it is a file
        Err(error) if !is_file && is_refused(&error) && is_guest_folder(client, source, agent_timeout)? => {
            copy_folder_from(client, source, destination, agent_timeout, progress)
        }
        copied => copied,
    }
}

/// The guest does not read it as a file.
fn is_refused(error: &Error) -> bool {
    error.refusal().is_some_and(|refusal| refusal.name() == "RefusedByGuest")
}

/// Copies a folder of the host, with all that is in it, to a path in the guest, or into an existing folder. The files belong to the
/// user of the guest's agent then; links stay links.
///
/// # Errors
/// It has something else than files, folders and links; the guest's `tar` fails. What was copied until then stays.
fn copy_folder_to(
    client: &mut Client,
    source: &Path,
    destination: &str,
    agent_timeout: Option<Duration>,
    progress: Progress<'_>,
) -> Result<Copied, Error> {
    let unreadable = |error| Error::file(source)(error);
    let folder = fs::canonicalize(source).map_err(unreadable)?;
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or("folder").to_owned();
    let mut files = Vec::new();
    find_below(&folder, Path::new(""), &mut files)?;
    let (reader, writer) = UnixStream::pair().map_err(unreadable)?;
    let packing = thread::spawn(move || pack(&folder, &files, writer));
    let (mut said, mut path) = (Vec::new(), Vec::new());
    let each = |happened: Happened<'_>| {
        if let Happened::Wrote(stdout, stderr) = happened {
            // a guest may write without end
            path.extend(&stdout[..stdout.len().min(LONGEST_PATH.saturating_sub(path.len()))]);
            keep_end(&mut said, stderr);
        }
        true
    };
    let unpack = Exec { agent_timeout, ..Exec::script(UNPACK, &[destination, &name]) };
    let input = Input { source: Box::new(reader), broken: |_| {} };
    let executed = exec_streamed(client, unpack, Some(input), each)?;
    if executed.exit_code == Some(NO_PARENT) {
        // the thread ends, since nothing reads any more
        drop(packing);
        let said = String::from_utf8_lossy(&said).trim_end().to_owned();
        return Err(Error::GuestFolder { path: destination.to_owned(), said });
    }
    // it ends, since nothing reads any more
    let packed = packing.join().unwrap_or_else(|_| Err(Error::unclear("a thread has panicked")));
    let size_bytes = match packed {
        // it is the guest's end that has failed
        Err(Error::File { error, .. }) if is_cut_off(&error) => 0,
        // what failed here has cut off the stream there
        packed => packed?,
    };
    succeeded(&executed, &said, destination)?;
    progress(size_bytes, Some(size_bytes));
    Ok(Copied { path: String::from_utf8_lossy(&path).into_owned(), size_bytes, checked: CHECKED.to_owned() })
}

fn is_cut_off(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Whether this is a folder of the guest.
fn is_guest_folder(client: &mut Client, path: &str, agent_timeout: Option<Duration>) -> Result<bool, Error> {
    let executed =
        exec_streamed(client, Exec { agent_timeout, ..Exec::script(IS_FOLDER, &[path]) }, None, |_| true)?;
    Ok(executed.exit_code == Some(0))
}

/// Copies a folder of the guest, with all that is in it, to a path of the host, or into an existing folder. The guest is not trusted:
/// nothing outside of that folder is touched, devices and the like are left out, and files belong to this user.
///
/// # Errors
/// The guest's `tar` fails; the files cannot be written here. What was copied until then stays.
fn copy_folder_from(
    client: &mut Client,
    source: &str,
    destination: &Path,
    agent_timeout: Option<Duration>,
    progress: Progress<'_>,
) -> Result<Copied, Error> {
    let path = place(source.trim_end_matches('/'), destination);
    let unwritable = |error| Error::file(&path)(error);
    match fs::create_dir(&path) {
        Err(error) if !path.is_dir() => return Err(unwritable(error)),
        _ => {}
    }
    let (reader, mut writer) = UnixStream::pair().map_err(unwritable)?;
    let folder = path.clone();
    let unpacking = thread::spawn(move || unpack(reader, &folder));
    let (mut said, mut done) = (Vec::new(), 0);
    let each = |happened: Happened<'_>| {
        let Happened::Wrote(stdout, stderr) = happened else { return true };
        keep_end(&mut said, stderr);
        done += stdout.len() as u64;
        progress(done, None);
        // the thread has ended, with an error
        writer.write_all(stdout).is_ok()
    };
    let executed = exec_streamed(client, Exec { agent_timeout, ..Exec::script(PACK, &[source]) }, None, each);
    drop(writer);
    let unpacked = unpacking.join().unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")));
    match (executed, unpacked) {
        // nothing more was wanted
        (Err(ClientError::Gone), Err(why)) => return Err(unwritable(why)),
        (executed, unpacked) => {
            succeeded(&executed?, &said, source)?;
            unpacked.map_err(unwritable)?;
        }
    }
    Ok(Copied { path: path.display().to_string(), size_bytes: done, checked: CHECKED.to_owned() })
}

fn keep_end(said: &mut Vec<u8>, more: &[u8]) {
    said.extend(more);
    said.drain(..said.len().saturating_sub(MOST_SAID));
}

fn succeeded(executed: &Executed, said: &[u8], path: &str) -> Result<(), Error> {
    if executed.exit_code == Some(0) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(said).trim_end().to_owned();
    Err(Error::GuestTar { path: path.to_owned(), said })
}

/// A file, folder or link, by its path in the folder.
type Found = (PathBuf, Metadata);

fn find_below(folder: &Path, below: &Path, found: &mut Vec<Found>) -> Result<(), Error> {
    let here = folder.join(below);
    let entries = fs::read_dir(&here).map_err(Error::file(&here))?;
    for entry in entries {
        let name = entry.map_err(Error::file(&here))?.file_name();
        let path = folder.join(below).join(&name);
        let facts = fs::symlink_metadata(&path).map_err(Error::file(&path))?;
        let kind = facts.file_type();
        if !kind.is_file() && !kind.is_dir() && !kind.is_symlink() {
            let why = "it is a socket, pipe or device, which cannot be copied";
            return Err(Error::file(&path)(io::Error::other(why)));
        }
        let below = below.join(&name);
        found.push((below.clone(), facts));
        if kind.is_dir() {
            find_below(folder, &below, found)?;
        }
    }
    Ok(())
}

/// Returns how many bytes the archive has.
fn pack(folder: &Path, found: &[Found], stream: UnixStream) -> Result<u64, Error> {
    let mut archive = Builder::new(BufWriter::new(Counted { stream, done: 0 }));
    for (below, facts) in found {
        let path = folder.join(below);
        append(&mut archive, &path, below, facts).map_err(Error::file(&path))?;
    }
    let counted = archive.into_inner().and_then(|stream| Ok(stream.into_inner()?));
    counted.map(|counted| counted.done).map_err(Error::file(folder))
}

fn append(archive: &mut Builder<impl Write>, path: &Path, below: &Path, facts: &Metadata) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_metadata_in_mode(facts, HeaderMode::Complete);
    header.set_mode(facts.permissions().mode() & PERMISSIONS);
    // numbers of this host's users are others in the guest
    header.set_uid(0);
    header.set_gid(0);
    if facts.is_symlink() {
        header.set_size(0);
        return archive.append_link(&mut header, below, fs::read_link(path)?);
    }
    if facts.is_dir() {
        header.set_size(0);
        return archive.append_data(&mut header, below, io::empty());
    }
    let (file, facts) = files::open_input(path)?;
    header.set_size(facts.len());
    let mut rest = file.take(facts.len());
    archive.append_data(&mut header, below, &mut rest)?;
    match rest.limit() {
        0 => Ok(()),
        _ => Err(io::Error::other("it has become smaller while it was copied")),
    }
}

/// Counts what is written.
struct Counted {
    stream: UnixStream,
    done: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.done += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
