//! The system calls that no safe wrapper covers: the crate's only module with `unsafe`.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The only version of the KVM interface there ever was (`Documentation/virt/kvm/api.rst`).
const KVM_API_VERSION: libc::c_int = 12;

/// Opens `device` (`/dev/kvm`) and makes a VM with it, which is given back at once.
///
/// # Errors
/// What opening said, or that the interface has another version, or why no VM could be made.
#[cfg(target_os = "linux")]
pub fn try_kvm(device: &Path) -> io::Result<()> {
    use std::os::fd::FromRawFd;

    // <linux/kvm.h>: _IO(0xAE, 0x00) and _IO(0xAE, 0x01)
    const KVM_GET_API_VERSION: libc::Ioctl = 0xAE00;
    const KVM_CREATE_VM: libc::Ioctl = 0xAE01;
    let kvm = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(device)?;
    // SAFETY: the descriptor is open; this ioctl takes no memory of ours.
    let version = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_GET_API_VERSION, 0) };
    if version < 0 {
        return Err(io::Error::last_os_error());
    }
    if version != KVM_API_VERSION {
        return Err(io::Error::other(format!(
            "it has version {version} of the interface, not {KVM_API_VERSION}"
        )));
    }
    // SAFETY: as above; 0 is the machine's default type.
    let vm = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0) };
    if vm < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns; dropping it gives the VM back.
    drop(unsafe { OwnedFd::from_raw_fd(vm) });
    Ok(())
}

/// Gives the system back what was freed, if it is worth it: glibc keeps it for the next allocation, and among what is in use
/// the pieces that are free add up over the days.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back_memory() {
    /// What may lie about, in bytes: to ask for it again costs more than it is worth.
    const SPARE: libc::c_int = 1 << 20;
    // SAFETY: takes no memory of ours, it counts (mallinfo(3)).
    let free = unsafe { libc::mallinfo() }.fordblks;
    // the count is an int, and has gone round where it is negative
    if !(0..=SPARE).contains(&free) {
        // SAFETY: takes no memory of ours, and what is in use stays where it is (malloc_trim(3)).
        unsafe { libc::malloc_trim(0) };
    }
}

/// Other C libraries have nothing of the kind.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back_memory() {}

/// KVM is Linux's.
#[cfg(not(target_os = "linux"))]
pub fn try_kvm(_device: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

// <linux/if_tun.h>, which libc has for some platforms only: _IOW('T', 202, int), _IOR('T', 210, unsigned int)
#[cfg(target_os = "linux")]
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
#[cfg(target_os = "linux")]
const TUNGETIFF: libc::Ioctl = 0x8004_54d2_u32 as libc::Ioctl;

/// Attaches an open `/dev/net/tun` to the tap device `name`, for packets with virtio's header and no other: what QEMU wants.
///
/// # Errors
/// `EBUSY`: somebody else has it. `EPERM`: it is not for this user. `InvalidInput`: no device can have this name.
#[cfg(target_os = "linux")]
pub fn attach_tap(tun: &File, name: &str) -> io::Result<()> {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // its last byte stays 0
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the descriptor is open, and this ioctl reads and writes one ifreq, which lives until it returns.
    match unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The name of the tap device that a descriptor is attached to.
///
/// # Errors
/// It is no tap device.
#[cfg(target_os = "linux")]
pub fn tap_name(tap: &OwnedFd) -> io::Result<String> {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and this ioctl writes one ifreq, which lives until it returns.
    if unsafe { libc::ioctl(tap.as_raw_fd(), TUNGETIFF, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let name: Vec<u8> =
        request.ifr_name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// A descriptor that came in a message.
///
/// # Errors
/// The number is none.
pub fn received(fd: RawFd) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;

    if fd < 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the kernel made it for us when it received the message, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What this process's new files are not open for. `umask(2)` could only tell by setting another for a moment, which other threads
/// would notice; where `/proc` does not tell it (Linux before 4.7), the strictest of the usual ones.
pub fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok()).unwrap_or(0o077)
}

/// Gives a file that was opened with `O_TMPFILE` its first name.
///
/// # Errors
/// There is something of this name (`EEXIST`), or no `/proc`.
pub fn give_name(file: &File, path: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, AtFlags};

    let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(nix::unistd::linkat(AT_FDCWD, descriptor.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
}

/// Takes the exclusive lock (`flock`) on a file without waiting; `false` if someone else holds it.
///
/// It belongs to the open file, not the process: it lasts until the last copy of the descriptor is closed, so it survives a `fork`
/// whose parent ends (`nix`'s guard would unlock it in the parent).
///
/// # Errors
/// Other reasons than a held lock, e.g. a file system without locks.
pub fn try_lock(file: impl AsFd) -> io::Result<bool> {
    loop {
        // SAFETY: the descriptor is open; no memory is passed.
        if unsafe { libc::flock(file.as_fd().as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => return Ok(false),
            io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

/// Whether a signal is ignored, as `nohup` has its child ignore SIGHUP.
pub fn is_ignored(signal: Signal) -> bool {
    action_of(signal as libc::c_int) == Some(libc::SIG_IGN)
}

fn action_of(signal: libc::c_int) -> Option<libc::sighandler_t> {
    // SAFETY: all-zero is a valid sigaction; with a null pointer for the new action this only writes the present one to it.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0).then_some(now.sa_sigaction)
    }
}

/// Set while it is us who ignore SIGXFSZ.
static FILE_SIZE_SIGNAL_TAKEN: AtomicBool = AtomicBool::new(false);

/// From now on a write beyond the limit of file sizes (`ulimit -f`) fails with `EFBIG` and does not end this process.
pub fn outlive_file_size_limit() {
    if action_of(libc::SIGXFSZ) == Some(libc::SIG_DFL) {
        FILE_SIZE_SIGNAL_TAKEN.store(true, Ordering::Relaxed);
        // SAFETY: no handler, so nothing of ours can run in a signal's context.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    }
}

/// The settings that standard input's terminal gets back should a signal end this process; null = there is nothing to do.
static TERMINAL_BEFORE: AtomicPtr<libc::termios> = AtomicPtr::new(std::ptr::null_mut());

/// From now on any signal that ends this process first gives the terminal on standard input these settings; `None` takes that back.
/// Signals that are ignored or handled stay so, but for those of faults, whose handlers (of Rust's runtime) only add a message.
pub fn restore_terminal_on_death(settings: Option<nix::sys::termios::Termios>) {
    let settings = settings.map_or(std::ptr::null_mut(), |settings| Box::into_raw(Box::new(settings.into())));
    // the one before is never freed, since a handler may be reading it: a console has few
    if !TERMINAL_BEFORE.swap(settings, Ordering::AcqRel).is_null() || settings.is_null() {
        return;
    }
    for signal in 1..=libc::SIGRTMAX() {
        let fault = matches!(signal, libc::SIGSEGV | libc::SIGBUS);
        let job_control = matches!(
            signal,
            libc::SIGCHLD
                | libc::SIGCONT
                | libc::SIGTSTP
                | libc::SIGTTIN
                | libc::SIGTTOU
                | libc::SIGURG
                | libc::SIGWINCH
        );
        if job_control || (action_of(signal) != Some(libc::SIG_DFL) && !fault) {
            continue;
        }
        // SAFETY: the handler makes async-signal-safe calls only (signal-safety(7)), and reads memory that is never freed. SIGKILL and
        // SIGSTOP are refused, as are signals of the C library's own.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = restore_and_die as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_ONSTACK;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

extern "C" fn restore_and_die(signal: libc::c_int) {
    let settings = TERMINAL_BEFORE.load(Ordering::Acquire);
    // SAFETY: see above. From a background group tcsetattr would stop us unless SIGTTOU is ignored. The signal is blocked while this
    // runs: raised here, it ends the process as soon as this returns.
    unsafe {
        let group = libc::tcgetpgrp(libc::STDIN_FILENO);
        // a terminal that another group has, such as a shell's, has that one's settings
        if !settings.is_null() && (group == -1 || group == libc::getpgrp()) {
            libc::signal(libc::SIGTTOU, libc::SIG_IGN);
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, settings);
        }
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// From now on neither a read from the terminal nor a change of its settings stops this process while another group has it: a read fails
/// with `EIO`. Changes would be made, so look first ([`has_terminal`]).
pub fn outlive_terminal_stops() {
    for signal in [libc::SIGTTIN, libc::SIGTTOU] {
        // SAFETY: no handler, so nothing of ours can run in a signal's context.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Whether the terminal on standard input is our process group's. One that is not this session's has no such thing, and what is no terminal
/// can always be read.
pub fn has_terminal() -> bool {
    nix::unistd::tcgetpgrp(io::stdin()).map_or(true, |group| group == nix::unistd::getpgrp())
}

/// Rows and columns of the terminal on standard input; none if it does not know them.
pub fn terminal_size() -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes a `winsize` to where the pointer leads, which lives as long as the call.
    let done = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (done == 0 && size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// The signals that a service manager sends to the whole group: they are for the supervisor, which climbs the ladder; QEMU has them blocked.
/// And those of a terminal, which go to the whole group, too: the key that suspends pauses a console, and no VM.
const SUPERVISORS_SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGTSTP];

/// Prepares a child process:
///
/// - it inherits exactly its standard streams and `keep`, under the numbers they have here; our copies are closed when `command` is dropped;
/// - `block_signals`: SIGTERM, SIGINT, SIGHUP and SIGTSTP are blocked in it (`Command` itself resets the mask);
/// - `death_signal`: it is killed when the thread that spawned it ends (Linux), so spawn from a thread that lives as long as it should;
/// - what it creates is for its owner only (umask 077);
/// - a write beyond the limit of file sizes fails in it, and does not end it (SIGXFSZ is ignored).
///
/// Call it in the process that will spawn: after a `fork`, not before.
pub fn prepare_child(command: &mut Command, keep: Vec<OwnedFd>, block_signals: bool, death_signal: bool) {
    let parent = Pid::this();
    let mut blocked = SigSet::empty();
    if block_signals {
        SUPERVISORS_SIGNALS.into_iter().for_each(|signal| blocked.add(signal));
    }
    let hook = move || {
        blocked.thread_set_mask()?;
        // a file that must not grow is the guest's disk error, and no reason to end
        // SAFETY: no handler, so nothing of ours can run in a signal's context.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        if death_signal {
            die_with(parent)?;
        }
        close_all_on_exec();
        keep.iter().try_for_each(keep_on_exec)
    };
    // SAFETY: between fork and exec the closure makes system calls only: no allocation, no locks; errors are plain numbers.
    unsafe { command.pre_exec(hook) };
}

/// Gives a child a soft limit of its own: of open files, of the size of a file that it writes.
pub fn limit(command: &mut Command, resource: Resource, soft: u64) {
    let hook = move || {
        let (_, hard) = getrlimit(resource)?;
        Ok(setrlimit(resource, soft.min(hard), hard)?)
    };
    // SAFETY: between fork and exec the closure makes two system calls: no allocation, no locks; errors are plain numbers.
    unsafe { command.pre_exec(hook) };
}

#[cfg(target_os = "linux")]
fn die_with(parent: Pid) -> io::Result<()> {
    // SIGKILL, since QEMU blocks the others
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // the parent may have ended before the line above
    if Pid::parent() == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
}

#[cfg(not(target_os = "linux"))]
fn die_with(_parent: Pid) -> io::Result<()> {
    Ok(())
}

/// A second line of defence: Rust opens everything with CLOEXEC, but a library or our own parent may not have.
fn close_all_on_exec() {
    #[cfg(target_os = "linux")]
    // SAFETY: a plain system call on our own descriptor table. Kernels before 5.11 refuse it, which loses nothing of ours.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

fn keep_on_exec(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is open and ours; clearing FD_CLOEXEC (the only flag) touches no memory.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Becomes another program: the same process, with the same parent, streams, descriptors, environment, folder and signal mask.
/// Returns only if that fails. What has no `FD_CLOEXEC` goes with it; see [`give_away`].
pub fn become_program(program: &Path, name: &OsStr, arguments: &[OsString]) -> io::Error {
    let text = |text: &OsStr| CString::new(text.as_bytes());
    let words = std::iter::once(name).chain(arguments.iter().map(OsString::as_os_str)).map(text).collect();
    let (Ok(program), Ok(words)) = (text(program.as_os_str()), words) else {
        return io::ErrorKind::InvalidInput.into();
    };
    let words: Vec<CString> = words;
    // Rust's start-up code ignores SIGPIPE, which would outlive the exec
    // SAFETY: the default action is no handler, so nothing of ours can run in a signal's context.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl) };
    if FILE_SIZE_SIGNAL_TAKEN.load(Ordering::Relaxed) {
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
    }
    match nix::unistd::execv(&program, &words) {
        Err(error) => error.into(),
    }
}

/// Where descriptors begin that are given to a program whose own may have any number: far above what anybody writes by hand.
const FIRST_GIVEN: RawFd = 200;

/// A copy of a descriptor under a number that nobody who counts from 3 comes to; not inherited by other programs until it is
/// [given away](give_away).
///
/// # Errors
/// The limit of open files is below that number, or reached.
pub fn out_of_the_way(fd: &OwnedFd) -> io::Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, fcntl};
    use std::os::fd::FromRawFd;

    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST_GIVEN))?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Lets a descriptor survive [`become_program`].
///
/// # Errors
/// Of `fcntl`.
pub fn give_away(fd: &OwnedFd) -> io::Result<()> {
    keep_on_exec(fd)
}

/// Closes what this process has got from its parent, except for the standard streams, which become `/dev/null`: a process that
/// lives on by itself must not hold anybody's pipes open. What is our own is told from that by its `FD_CLOEXEC`.
///
/// # Errors
/// `/dev/null` or `/proc` cannot be opened.
pub fn let_go_of_inherited() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    let numbers: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in numbers {
        // SAFETY: asks for flags and touches no memory; the number may be closed by now (it was the listing's own).
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            // SAFETY: everything that Rust or we have opened has FD_CLOEXEC, so no object of ours owns this one.
            unsafe { libc::close(fd) };
        }
    }
    Ok(())
}

/// Descriptors that can be watched: they own what they name, for as long as they live.
pub trait Watchable: AsRawFd + 'static {}

impl Watchable for OwnedFd {}
impl Watchable for File {}

/// Registers a descriptor with the runtime, to be waited for.
///
/// # Errors
/// Of `epoll`: `PermissionDenied` for what is always ready, such as a regular file.
pub fn watch<F: Watchable>(fd: F, interest: Interest) -> io::Result<AsyncFd<F>> {
    // SAFETY: the implementors of `Watchable` keep their descriptor open and the same until they are dropped, which `AsyncFd` does
    // after it has unregistered them.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    Ok(watched?)
}

/// In which of the two processes [`fork`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The old one, with the new one's pid.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Whether some process has locked a part of a file (`fcntl` locks, as QEMU puts on its images), for reading or writing.
///
/// # Errors
/// A file system without such locks.
#[cfg(target_os = "linux")]
pub fn is_range_locked(file: &File) -> io::Result<bool> {
    use nix::fcntl::{FcntlArg, fcntl};
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        // 0 = to the end of the file, however long
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // this asks only: it locks nothing
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

/// Splits the process in two.
///
/// Only for a process with a single thread (checked on Linux): in the child of any other, every lock that another thread held would stay held.
///
/// # Errors
/// More than one thread (`Unsupported`), or the system's limits.
pub fn fork() -> io::Result<Fork> {
    if cfg!(target_os = "linux") && fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a process with several threads cannot be forked",
        ));
    }
    // SAFETY: a single thread, so no lock can be left held in the child.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        nix::unistd::ForkResult::Child => Ok(Fork::Child),
    }
}

/// A descriptor for a process: readable when it has ended, and never mistaken for another of the same number.
///
/// # Errors
/// No such process (`ESRCH`), or a kernel before 5.3.
#[cfg(target_os = "linux")]
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;

    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    match libc::c_int::try_from(fd) {
        // SAFETY: a fresh descriptor (with CLOEXEC) that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many SIGINTs the terminal's interrupt key has sent to this process since [`count_typed_interrupts`].
static TYPED_INTERRUPTS: AtomicU32 = AtomicU32::new(0);

/// Counts from now on the SIGINTs that came from a key, beside whatever else is done about the signal.
///
/// # Errors
/// The system has no room for a handler.
pub fn count_typed_interrupts() -> io::Result<()> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if REGISTERED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let count = |info: &libc::siginfo_t| {
        // the kernel's own: a key (tty drivers send with SI_KERNEL); `kill` has SI_USER
        if info.si_code == libc::SI_KERNEL {
            TYPED_INTERRUPTS.fetch_add(1, Ordering::Relaxed);
        }
    };
    // SAFETY: the action does nothing but add to an atomic, which is safe in a signal handler.
    unsafe { signal_hook_registry::register_sigaction(libc::SIGINT, count) }.map(drop)
}

/// See [`count_typed_interrupts`].
pub fn typed_interrupts() -> u32 {
    TYPED_INTERRUPTS.load(Ordering::Relaxed)
}

/// Sends a signal through a descriptor of [`pidfd_open`].
///
/// # Errors
/// The process has ended (`ESRCH`), or is not ours (`EPERM`).
#[cfg(target_os = "linux")]
pub fn pidfd_send_signal(process: &OwnedFd, signal: Signal) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, and a null siginfo_t is allowed.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal as libc::c_int, no_info, 0)
    };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// When a process started, in clock ticks since the machine did (field 22 of `<proc>/PID/stat`): with its pid this names it for good.
///
/// # Errors
/// No such process, or not Linux' format.
pub fn process_start_time(proc: &Path, pid: Pid) -> io::Result<u64> {
    let stat = fs::read(proc.join(pid.to_string()).join("stat"))?;
    start_time(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn start_time(stat: &[u8]) -> Option<u64> {
    // the second field is the program's name in parentheses, and may hold anything, ") " too
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(&stat[end_of_name + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests;
