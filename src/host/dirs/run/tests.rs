use super::*;
use crate::host::sys;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::errno::Errno;

use crate::host::dirs::PipeEnd;

fn name(text: &str) -> VmName {
    text.parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_name_is_taken_until_its_directory_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let vm = name("web");
    assert_eq!(RunDir::probe(root.path(), &vm), Liveness::Free);
    let first = RunDir::create(root.path(), &vm).unwrap();
    assert_eq!(mode(first.path()), 0o700);
    assert_eq!(RunDir::probe(root.path(), &vm), Liveness::Alive);
    assert!(matches!(RunDir::create(root.path(), &vm), Err(DirError::Taken { name }) if name == "web"));
    first.write("vm.json", b"{}").unwrap();
    first.remove_all().unwrap();
    assert!(RunDir::list(root.path()).unwrap().is_empty());
    RunDir::create(root.path(), &vm).unwrap();
}

#[test]
fn what_a_killed_supervisor_left_is_taken_over() {
    let root = tempfile::tempdir().unwrap();
    let vm = name("web");
    let killed = RunDir::create(root.path(), &vm).unwrap();
    killed.write("vm.json", b"old").unwrap();
    drop(killed);
    assert_eq!(RunDir::probe(root.path(), &vm), Liveness::Free);
    assert_eq!(RunDir::list(root.path()).unwrap(), std::slice::from_ref(&vm));
    let heir = RunDir::create(root.path(), &vm).unwrap();
    assert_eq!(heir.read("vm.json").unwrap(), b"old");
    heir.clear().unwrap();
    assert_eq!(heir.read("vm.json").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(RunDir::probe(root.path(), &vm), Liveness::Alive);
}

#[test]
fn sockets_work_under_long_paths() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("x".repeat(200));
    Directory::create(&root, Privacy::Private).unwrap();
    let run = RunDir::create(&root, &name("a")).unwrap();
    for _ in 0..2 {
        let listener = run.bind(names::CONTROL).unwrap();
        assert_eq!(mode(&run.path().join(names::CONTROL)), 0o600);
        let client = RunClient::open(&root, &name("a")).unwrap();
        client.connect(names::CONTROL).unwrap().write_all(b"hello").unwrap();
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
}

#[test]
fn pipes_replace_what_was_there_and_are_opened_without_waiting() {
    let root = tempfile::tempdir().unwrap();
    let run = RunDir::create(root.path(), &name("a")).unwrap();
    fs::write(root.path().join("secret"), "s").unwrap();
    symlink("../secret", run.path().join(names::SERIAL_OUT)).unwrap();
    for _ in 0..2 {
        run.make_pipe(names::SERIAL_OUT).unwrap();
        assert_eq!(mode(&run.path().join(names::SERIAL_OUT)), 0o600);
        let nobody_reads = run.open_pipe(names::SERIAL_OUT, PipeEnd::Write).unwrap_err();
        assert_eq!(nobody_reads.raw_os_error(), Some(Errno::ENXIO as i32));
        let mut reads = run.open_pipe(names::SERIAL_OUT, PipeEnd::Read).unwrap();
        let mut writes = run.open_pipe(names::SERIAL_OUT, PipeEnd::Write).unwrap();
        writes.write_all(b"hello").unwrap();
        drop(writes);
        let mut text = String::new();
        reads.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
    let mut endless = run.open_pipe(names::SERIAL_OUT, PipeEnd::Both).unwrap();
    let nothing_yet = endless.read(&mut [0]).unwrap_err();
    assert_eq!(nothing_yet.kind(), io::ErrorKind::WouldBlock);
    symlink("../secret", run.path().join("link")).unwrap();
    assert!(run.open_pipe("link", PipeEnd::Read).is_err());
    assert_eq!(fs::read(root.path().join("secret")).unwrap(), b"s");
}

#[test]
fn files_are_private_and_replaced_in_one_step() {
    let root = tempfile::tempdir().unwrap();
    let run = RunDir::create(root.path(), &name("a")).unwrap();
    run.write(names::VM, b"one").unwrap();
    run.write(names::VM, b"two").unwrap();
    assert_eq!(run.read(names::VM).unwrap(), b"two");
    assert_eq!(mode(&run.path().join(names::VM)), 0o600);
    assert_eq!(fs::read_dir(run.path()).unwrap().count(), 3, "with lock and mark");
    fs::write(root.path().join("secret"), "s").unwrap();
    symlink("../secret", run.path().join("link")).unwrap();
    assert!(run.read("link").is_err());
}

#[test]
fn what_others_could_have_prepared_is_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("open")).unwrap();
    fs::set_permissions(root.path().join("open"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    symlink("/tmp", root.path().join("link")).unwrap();
    let error = |vm: &str| RunDir::create(root.path(), &name(vm)).unwrap_err();
    assert!(matches!(error("open"), DirError::Open { mode: 0o750, .. }));
    assert!(matches!(error("file"), DirError::NotADirectory { .. }));
    assert!(matches!(error("link"), DirError::Symlink { .. }));
    fs::set_permissions(root.path().join("open"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(matches!(error("open"), DirError::NotOurs { .. }), "vmrun has not made it");
}

#[test]
fn what_is_not_vmruns_stays_with_all_that_is_beside_it() {
    let root = tempfile::tempdir().unwrap();
    let vm = name("web");
    let run = RunDir::create(root.path(), &vm).unwrap();
    run.write(names::VM, b"{}").unwrap();
    fs::write(run.path().join("thesis.txt"), "x").unwrap();
    let path = run.path().to_owned();
    assert!(matches!(run.remove_all(), Err(DirError::Stranger { name, .. }) if name == "thesis.txt"));
    for left in ["thesis.txt", names::VM, names::LOCK, names::MARK] {
        assert!(path.join(left).exists(), "{left}");
    }
    fs::remove_file(path.join("thesis.txt")).unwrap();
    RunDir::take(root.path(), &vm).unwrap().unwrap().remove_all().unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    assert!(RunDir::take(root.path(), &vm).unwrap().is_none());
    // a folder of another user is no run directory
    let folder = root.path().join("proj");
    Directory::create(&folder, Privacy::Private).unwrap();
    fs::write(folder.join(names::LOCK), "a file of the user's").unwrap();
    assert!(RunDir::list(root.path()).unwrap().is_empty());
    assert!(matches!(RunClient::open(root.path(), &name("proj")), Err(DirError::NotOurs { .. })));
    assert!(matches!(RunDir::take(root.path(), &name("proj")), Err(DirError::NotOurs { .. })));
    assert_eq!(RunDir::tidy(root.path()).unwrap(), [folder]);
}

#[test]
fn what_was_half_made_goes() {
    let root = tempfile::tempdir().unwrap();
    let parts: Vec<_> = (0..4).map(|number| root.path().join(format!("{PART}1-0000000{number}"))).collect();
    let made: Vec<_> = parts.iter().map(|path| Directory::create(path, Privacy::Private).unwrap()).collect();
    let lock = made[1].create_new(names::LOCK).unwrap();
    own::mark(&made[1]).unwrap();
    own::mark(&made[2]).unwrap();
    made[3].create_new("thesis.txt").unwrap();
    own::mark(&made[3]).unwrap();
    assert!(sys::try_lock(&lock).unwrap());
    let left = || parts.iter().map(|path| path.exists()).collect::<Vec<_>>();
    RunDir::tidy(root.path()).unwrap();
    assert_eq!(left(), [false, true, false, true], "a process is at work in the second");
    drop(lock);
    RunDir::tidy(root.path()).unwrap();
    assert_eq!(left(), [false, false, false, true]);
}

#[test]
fn many_racers_hold_a_name_one_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let inside = std::sync::atomic::AtomicU32::new(0);
    let won = std::sync::atomic::AtomicU32::new(0);
    let order = std::sync::atomic::Ordering::SeqCst;
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..40 {
                    RunDir::probe(root.path(), &name("a"));
                    match RunDir::create(root.path(), &name("a")) {
                        Ok(run) => {
                            assert_eq!(inside.fetch_add(1, order), 0);
                            run.write(names::VM, b"x").unwrap();
                            won.fetch_add(1, order);
                            inside.fetch_sub(1, order);
                            run.remove_all().unwrap();
                        }
                        Err(DirError::Taken { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
    });
    assert!(won.into_inner() > 0);
}
