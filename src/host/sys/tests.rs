use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::process::start_time;
use super::*;

#[test]
fn reads_the_start_time_behind_a_nasty_name() {
    let fields: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
    let stat = format!("7 (a) b) S {}", fields.join(" "));
    assert_eq!(start_time(stat.as_bytes()), Some(22));
    assert_eq!(start_time(b"7 (short) S 1"), None);
    assert_eq!(start_time(b""), None);
}

#[test]
fn a_child_gets_the_kept_descriptors_and_no_other() {
    let kept: OwnedFd = tempfile::tempfile().unwrap().into();
    let other = tempfile::tempfile().unwrap();
    nix::fcntl::fcntl(other.as_fd(), nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let (kept_number, other_number) = (kept.as_raw_fd(), other.as_raw_fd());
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        &format!("test -e /proc/self/fd/{kept_number} && ! test -e /proc/self/fd/{other_number}"),
    ]);
    prepare_child(&mut shell, vec![kept], false, true);
    assert!(shell.status().unwrap().success());
}

#[test]
fn blocked_signals_are_inherited_and_files_are_private() {
    // not through a shell: dash clears the mask when it starts
    let mut grep = Command::new("grep");
    grep.args(["-E", "^(SigBlk|Umask):", "/proc/self/status"]);
    prepare_child(&mut grep, Vec::new(), true, true);
    let text = String::from_utf8(grep.output().unwrap().stdout).unwrap();
    assert_eq!(text, "Umask:\t0077\nSigBlk:\t0000000000084003\n");
}

#[test]
fn a_child_dies_with_the_thread_that_spawned_it() {
    let mut child = std::thread::spawn(|| {
        let mut sleep = Command::new("sleep");
        sleep.arg("60");
        prepare_child(&mut sleep, Vec::new(), true, true);
        sleep.spawn().unwrap()
    })
    .join()
    .unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
#[cfg(target_os = "linux")]
fn a_process_descriptor_names_a_process() {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    assert!(process_start_time(Path::new("/proc"), pid).unwrap() > 0);
    let process = pidfd_open(pid).unwrap();
    pidfd_send_signal(&process, Signal::SIGKILL).unwrap();
    assert!(!child.wait().unwrap().success());
    assert_eq!(pidfd_send_signal(&process, Signal::SIGKILL).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    assert!(pidfd_open(pid).is_err());
}

#[test]
fn a_lock_excludes_another_open_file_until_it_is_closed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let first = File::open(file.path()).unwrap();
    let copy = first.try_clone().unwrap();
    let second = File::open(file.path()).unwrap();
    assert!(try_lock(&first).unwrap());
    drop(first);
    assert!(!try_lock(&second).unwrap());
    drop(copy);
    assert!(try_lock(&second).unwrap());
}

#[test]
fn a_file_is_not_kvm() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(try_kvm(file.path()).is_err());
}
