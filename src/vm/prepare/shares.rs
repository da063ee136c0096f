//! Shared folders: a virtiofsd for each, on a socket that is bound before either program starts.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::host::dirs::RunDir;
use crate::host::programs::{self, SearchPath};
use crate::host::{environment, sys};
use crate::spec::{Request, Share, VmSpec};

use super::super::start_error::{StartError, system};

/// The helpers of a VM's shared folders.
#[derive(Debug, Default)]
pub(in super::super) struct Shares {
    program: PathBuf,
    /// Whether it is the Rust virtiofsd, whose options differ from those of QEMU's old one.
    modern: bool,
    shares: Vec<(Share, OwnedFd, UnixStream)>,
    running: Vec<Child>,
}

/// Refuses what cannot be shared.
pub(super) fn check(request: &Request) -> Result<(), StartError> {
    resolve(request)?;
    if !request.shares.is_empty() {
        programs::virtiofsd(request.virtiofsd.as_deref(), &SearchPath::from_env())?;
    }
    Ok(())
}

/// Shares with absolute folders and tags.
pub(super) fn resolve(request: &Request) -> Result<Vec<Share>, StartError> {
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
        let tag = share.tag.clone().unwrap_or_else(|| format!("share{number}"));
        if shares.iter().any(|other| other.tag == tag) {
            return Err(StartError::usage(format!("--virtiofs: the tag '{tag}' is given twice")));
        }
        shares.push(Share { directory, tag });
    }
    Ok(shares)
}

impl Shares {
    /// Binds and connects a socket for each share: the helper accepts on one end, QEMU inherits the other.
    pub(super) fn bind(spec: &VmSpec, virtiofsd: Option<&Path>, run: &RunDir) -> Result<Self, StartError> {
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
            let name = crate::qemu::ids::share(number);
            let listener = run.bind(&name)?;
            let connected = run.connect(&name)?;
            // both ends are open: the name has served
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

    /// Starts the helpers and gives away QEMU's ends. They end by themselves when QEMU hangs up.
    pub(in super::super) fn start(&mut self, tied: bool) -> Result<Vec<OwnedFd>, StartError> {
        let mut ends = Vec::new();
        for (share, listener, connected) in std::mem::take(&mut self.shares) {
            let child = self
                .helper(&share, listener, tied)
                .map_err(|error| StartError::Helper { program: self.program.display().to_string(), error })?;
            self.running.push(child);
            ends.push(OwnedFd::from(connected));
        }
        Ok(ends)
    }

    fn helper(&self, share: &Share, listener: OwnedFd, tied: bool) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg(format!("--fd={}", listener.as_raw_fd()));
        // absolute, not `.`: the old one mounts the folder over itself, of which a working directory sees nothing
        // ("pivot_root(., .): Device or resource busy")
        if self.modern {
            command.arg("--shared-dir").arg(&share.directory);
        } else {
            command.arg("-o").arg(source_option(&share.directory));
        }
        environment::apply(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        sys::prepare_child(&mut command, vec![listener], true, tied);
        command.spawn()
    }

    /// Ends the helpers that have not ended with QEMU.
    pub(in super::super) fn end(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The old virtiofsd's option, in which commas part and backslashes escape (libfuse's `fuse_opt_parse`).
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
