//! Copies from guests whose agent sends anything, to targets of all kinds; the kernel is asked for the results.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::dirs::{RunClient, RunDir, names};
use crate::spec::VmName;

use super::*;

/// More bytes than any copy may take, so that a copy without a limit ends, too.
const FLOOD: u64 = 512 << 20;

/// A supervisor that passes on an agent's replies: first the facts, then the data over and over, then the checksum. Its thread
/// returns how many bytes were read from it.
fn guest(facts: Value, data: &[u8], times: u64) -> (Client, JoinHandle<u64>) {
    let root = tempfile::tempdir().unwrap();
    let name: VmName = "rogue".parse().unwrap();
    let run = RunDir::create(root.path(), &name).unwrap();
    let listener = run.bind(names::CONTROL).unwrap();
    let client = Client::connect(Arc::new(RunClient::open(root.path(), &name).unwrap())).unwrap();
    let (server, _) = listener.accept().unwrap();
    let data = data.to_owned();
    let sum = hexadecimal(Sha256::new_with_prefix(data.repeat(usize::try_from(times.min(4)).unwrap())));
    let thread = thread::spawn(move || {
        let mut calls = BufReader::new(server.try_clone().unwrap());
        let mut replies = server;
        calls.read_until(0, &mut Vec::new()).unwrap();
        let mut send = |parameters: Value, continues: bool| {
            let mut frame =
                json!({ "parameters": parameters, "continues": continues }).to_string().into_bytes();
            frame.push(0);
            replies.write_all(&frame).is_ok()
        };
        send(facts, true);
        let mut sent = 0;
        for _ in 0..times {
            if !send(json!({ "data": BASE64.encode(&data) }), true) {
                return sent;
            }
            sent += data.len() as u64;
        }
        send(json!({ "sha256": sum }), true);
        send(json!({}), false);
        sent
    });
    (client, thread)
}

/// A guest's file with a correct checksum.
fn file(data: &[u8], mode: u32) -> Client {
    guest(json!({ "size_bytes": data.len(), "mode": mode }), data, 1).0
}

fn copied(mut client: Client, to: &Path) -> Result<Copied, Error> {
    copy_from(&mut client, "/srv/file", to, None, &mut |_, _| {})
}

fn folder() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("target");
    (dir, path)
}

fn names_in(dir: &TempDir) -> Vec<String> {
    let names = fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_copy_ends_with_the_size_that_was_announced() {
    let piece = vec![b'x'; 256 << 10];
    for (size, most) in [(Some(5), 4 << 20), (None, MOST_WITHOUT_SIZE + (4 << 20))] {
        let (dir, target) = folder();
        fs::write(&target, "old").unwrap();
        let (client, sent) = guest(json!({ "size_bytes": size }), &piece, FLOOD / piece.len() as u64);
        let error = copied(client, &target).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        let sent = sent.join().unwrap();
        assert!(sent < most, "{sent} bytes were taken of {size:?}");
        assert_eq!(
            (names_in(&dir), fs::read(&target).unwrap()),
            (vec!["target".to_owned()], b"old".to_vec())
        );
    }
}

#[test]
fn what_does_not_fit_is_told_before_it_is_copied() {
    let (dir, target) = folder();
    let (client, _) = guest(json!({ "size_bytes": u64::MAX / 2 }), b"x", 1);
    let error = copied(client, &target).unwrap_err().to_string();
    assert!(error.contains("are free here"), "{error}");
    assert!(names_in(&dir).is_empty());
}

#[test]
fn less_than_was_announced_is_no_copy() {
    let (dir, target) = folder();
    let (client, _) = guest(json!({ "size_bytes": 10 }), b"abc", 1);
    let error = copied(client, &target).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(names_in(&dir).is_empty());
}

#[test]
fn the_guests_mode_goes_through_the_umask() {
    let (dir, target) = folder();
    // what the kernel makes of this mode
    let ours = dir.path().join("ours");
    fs::OpenOptions::new().write(true).create_new(true).mode(0o777).open(&ours).unwrap();
    copied(file(b"x", 0o6777), &target).unwrap();
    assert_eq!(format!("{:o}", mode(&target)), format!("{:o}", mode(&ours)));
    assert_ne!(sys_umask(), 0, "a umask of 0 shows nothing");
    copied(file(b"x", 0o640), &target).unwrap();
    assert_eq!(mode(&target), 0o640 & !sys_umask());
}

fn sys_umask() -> u32 {
    crate::host::sys::umask()
}

#[test]
fn a_link_stays_and_what_it_leads_to_is_replaced() {
    let (dir, target) = folder();
    let real = dir.path().join("real");
    fs::write(&real, "a long old text").unwrap();
    symlink("real", &target).unwrap();
    let done = copied(file(b"new", 0o600), &target).unwrap();
    assert_eq!(done.checked, "sha256");
    assert_eq!(fs::read_link(&target).unwrap(), Path::new("real"));
    assert_eq!(fs::read(&real).unwrap(), b"new");
    assert_eq!(names_in(&dir), ["real", "target"]);

    fs::remove_file(&real).unwrap();
    let error = copied(file(b"new", 0o600), &target).unwrap_err().to_string();
    assert!(error.contains("link to nothing"), "{error}");
    assert_eq!(names_in(&dir), ["target"]);
}

#[test]
fn what_must_not_be_replaced_is_written_to() {
    let (dir, target) = folder();
    copied(file(b"x", 0o777), Path::new("/dev/null")).unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    nix::unistd::mkfifo(&target, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // a pipe without a reader would be refused
    let mut pipe =
        fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&target).unwrap();
    copied(file(b"through a pipe", 0o777), &target).unwrap();
    let mut read = Vec::new();
    pipe.read_to_end(&mut read).unwrap();
    assert_eq!(read, b"through a pipe");
    assert_eq!(names_in(&dir), ["target"]);
    // a descriptor's name: the open file stays the same
    let open = File::create(dir.path().join("open")).unwrap();
    let descriptor = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
    copied(file(b"to a descriptor", 0o777), Path::new(&descriptor)).unwrap();
    assert_eq!(open.metadata().unwrap().len(), 15);
    let mut out = Vec::new();
    let stream = (&mut out as &mut dyn Write, Path::new("stream"));
    let done =
        copy_from_to_stream(&mut file(b"to a stream", 0), "/srv/file", stream, None, &mut |_, _| {}).unwrap();
    assert_eq!((out.as_slice(), done.checked.as_str()), (&b"to a stream"[..], "sha256"));
}

#[test]
fn a_directory_gets_the_file_under_its_name() {
    let (dir, target) = folder();
    fs::create_dir(&target).unwrap();
    assert_eq!(copied(file(b"x", 0o600), &target).unwrap().path, target.join("file").display().to_string());
    for name in ["/srv/..", "/srv/.", "/"] {
        let error = copy_from(&mut file(b"x", 0o600), name, &target, None, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("directory"), "{error}");
    }
    let error = copied(file(b"x", 0o600), &dir.path().join("none/")).unwrap_err().to_string();
    assert!(error.contains("no such directory"), "{error}");
    assert_eq!(names_in(&dir), ["target"]);
}

#[test]
fn of_two_copies_onto_one_target_each_is_whole() {
    let (dir, target) = folder();
    let copies = [b'a', b'b'].map(|letter| {
        let target = target.clone();
        let (client, _) = guest(json!({ "size_bytes": 4 << 20, "mode": 0o600 }), &vec![letter; 1 << 20], 4);
        thread::spawn(move || copied(client, &target).unwrap())
    });
    for copy in copies {
        assert_eq!(copy.join().unwrap().checked, "sha256");
    }
    let bytes = fs::read(&target).unwrap();
    assert!(bytes.len() == 4 << 20 && bytes.iter().all(|byte| *byte == bytes[0]));
    assert_eq!(names_in(&dir), ["target"]);
}

#[test]
fn an_unfinished_copy_has_no_name() {
    let (dir, target) = folder();
    let (mut client, _) = guest(json!({ "size_bytes": 3 }), b"x", 3);
    let mut seen = Vec::new();
    let _ = copy_from(&mut client, "/srv/file", &target, None, &mut |_, _| seen.push(names_in(&dir)));
    assert_eq!(seen.len(), 5, "{seen:?}");
    // a kill -9 at any of these moments leaves nothing: this file system has O_TMPFILE
    assert!(seen.iter().all(Vec::is_empty), "{seen:?}");
}

#[test]
fn a_pipe_that_nobody_reads_is_not_waited_for() {
    let (dir, target) = folder();
    nix::unistd::mkfifo(&target, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let link = dir.path().join("link");
    symlink("target", &link).unwrap();
    for path in [&target, &link] {
        let error = copied(file(b"x", 0o644), path).unwrap_err().to_string();
        assert!(error.contains("nobody reads from"), "{error}");
    }
    assert_eq!(names_in(&dir), ["link", "target"]);
    // a pipe with a reader is written to at the reader's pace
    let data = vec![b'x'; 300 << 10];
    let reader = thread::spawn({
        let target = target.clone();
        move || fs::read(target).unwrap()
    });
    let patience = std::time::Instant::now();
    while let Err(error) = copied(file(&data, 0o644), &target) {
        assert!(error.to_string().contains("nobody reads from"), "{error}");
        assert!(patience.elapsed().as_secs() < 60, "its reader is there at last");
    }
    assert_eq!(reader.join().unwrap(), data);
}
