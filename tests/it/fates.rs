//! What happens to a VM, its helpers and its terminal when something else dies, or has limits.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::boot_sector::Guest;
use crate::support::processes::{eventually, of, send};
use crate::support::pty::OnTerminal;
use crate::support::sandbox::{Foreground, Sandbox, wait_with_patience};

#[test]
fn any_signal_that_ends_us_restores_the_terminal() {
    for signal in [Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGALRM, Signal::SIGABRT, Signal::SIGSEGV] {
        let sandbox = Sandbox::new();
        let image = sandbox.boot_sector(Guest::EchoesConsole);
        let mut command = sandbox.vmrun();
        command.arg("qemu").arg(&image);
        let mut vm = OnTerminal::start(&command);
        vm.shows(Guest::EchoesConsole.greeting());
        let mut command = sandbox.vmrun();
        command.arg("console");
        let mut console = OnTerminal::start(&command);
        console.shows(Guest::EchoesConsole.greeting());
        assert!(vm.is_raw() && console.is_raw());
        for on_it in [console, vm] {
            send(on_it.pid(), signal);
            // the settings are compared
            assert!(!on_it.end().success(), "{signal}");
        }
        eventually("QEMU is gone", || of(sandbox.path()).is_empty());
    }
}

#[test]
fn a_hangup_that_is_ignored_stays_ignored() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let mut command = sandbox.program("nohup");
    command.arg(env!("CARGO_BIN_EXE_vmrun")).arg("qemu").arg(&image);
    let vm = Foreground::start(command);
    vm.wait_for(Guest::ReactsToButton.greeting());
    // asked of the kernel: bit 0 of the ignored signals is SIGHUP
    let status = fs::read_to_string(format!("/proc/{}/status", vm.pid())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    assert_eq!(u64::from_str_radix(ignored.trim(), 16).unwrap() & 1, 1, "{ignored}");
    vm.signal(Signal::SIGHUP);
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    vm.signal(Signal::SIGTERM);
    assert_eq!(vm.end().code(), 0);
    sandbox.is_clean();
}

#[test]
fn a_limit_of_file_sizes_stops_the_log_and_not_the_vm() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::FloodsConsole);
    let mut command = sandbox.program("bash");
    // KiB
    command.args([
        "-c",
        "ulimit -f 64; exec \"$0\" qemu \"$1\" | cat > /dev/null",
        env!("CARGO_BIN_EXE_vmrun"),
    ]);
    let vm = Foreground::start({
        command.arg(&image);
        command
    });
    vm.wait_for_error("the console's log cannot be written any more");
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    assert!(fs::metadata(sandbox.file("guest-state/console.log")).unwrap().len() <= 64 << 10);
    // and so it is in QEMU: bit 24 is SIGXFSZ
    let qemu = of(sandbox.path()).into_iter().find(|process| process.is_qemu()).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", qemu.pid)).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    assert_eq!(u64::from_str_radix(ignored.trim(), 16).unwrap() >> 24 & 1, 1, "{ignored}");
    sandbox.ctl(["shutdown", "--force"]);
    vm.end();
    sandbox.is_clean();
}

/// A program that is killed where QEMU would begin to answer.
fn dies_by(sandbox: &Sandbox, signal: &str) -> String {
    let program = sandbox.file("qemu-system-x86_64");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *-chardev*) echo some words >&2; kill -{signal} $$;; esac\nexec /usr/bin/qemu-system-x86_64 \"$@\"\n"
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    program.to_str().unwrap().to_owned()
}

#[test]
fn a_death_by_signal_at_the_start_is_named() {
    // the kernel's own count, where there is one, says that memory was no reason
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let counted = groups.lines().any(|line| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
        ["0", "", group] => Path::new("/sys/fs/cgroup").join(&group[1..]).join("memory.events").exists(),
        [_, kinds, group] if kinds.split(',').any(|kind| kind == "memory") => {
            Path::new("/sys/fs/cgroup/memory").join(&group[1..]).join("memory.oom_control").exists()
        }
        _ => false,
    });
    let killed = match counted {
        true => "killed (SIGKILL) by another process, and not for want of memory",
        false => "killed (SIGKILL), probably because memory ran out",
    };
    for (signal, words) in
        [("KILL", killed), ("SYS", "sandbox refused a system call"), ("SEGV", "ended by SIGSEGV")]
    {
        let sandbox = Sandbox::new();
        let image = sandbox.boot_sector(Guest::ReactsToButton);
        let program = dies_by(&sandbox, signal);
        let done = sandbox.run(["qemu", "--qemu", &program, image.to_str().unwrap()]);
        let done = done.fails(1, &["QEMU did not start", words, "some words"]);
        assert!(!done.stderr.contains("really QEMU"), "{done:#?}");
        sandbox.is_clean();
    }
}

#[test]
fn virtiofsd_is_heard_and_leaves_no_zombie() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    fs::create_dir(sandbox.file("shared")).unwrap();
    let helper = |script: &str| {
        let program = sandbox.file("virtiofsd");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        program.to_str().unwrap().to_owned()
    };
    let broken = helper("[ \"$1\" = --help ] && exit; echo 'no such luck' >&2; exit 1");
    let words = ["qemu", "--virtiofs", "shared", "--virtiofsd", &broken, image.to_str().unwrap()];
    sandbox.run(words).fails(1, &["--virtiofs", "/shared: virtiofsd has failed: no such luck"]);
    sandbox.is_clean();

    let real = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];
    let real = real.into_iter().find(|path| Path::new(path).exists()).expect("a virtiofsd");
    let vm = sandbox.foreground(["--virtiofs", "shared", "--virtiofsd", real, image.to_str().unwrap()]);
    vm.wait_for(Guest::ReactsToButton.greeting());
    let status = sandbox.ctl(["status"]).ok();
    assert!(status.stdout.contains("mount -t virtiofs virtiofs0 DIR"), "{status:?}");
    let children = || fs::read_to_string(format!("/proc/{0}/task/{0}/children", vm.pid())).unwrap();
    let helper = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.contains("virtiofsd"))
    };
    let all = children();
    let pid: i32 = all.split_whitespace().find(helper).expect("a helper").parse().unwrap();
    send(pid, Signal::SIGKILL);
    vm.wait_for_error("virtiofsd has ended");
    // reaped, not only dead
    assert!(!children().split_whitespace().any(|child| child == pid.to_string()));
    vm.signal(Signal::SIGTERM);
    vm.end();
}

#[test]
fn a_vm_whose_wait_times_out_is_ended_and_its_name_was_told() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let image = image.to_str().unwrap();
    let wait = ["qemu", "--detached", "--wait", "console=never", "--wait-timeout", "2s"];
    let done =
        sandbox.run(wait.iter().chain(&[image])).fails(5, &["was not met", "'guest' was ended", "--keep"]);
    assert_eq!(done.stdout, "guest\n");
    sandbox.is_clean();
    let done =
        sandbox.run(wait.iter().chain(&["--keep", image])).fails(5, &["was not met", "'guest' runs on"]);
    assert_eq!(done.stdout, "guest\n");
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    sandbox.is_clean();
}

#[test]
fn a_vm_whose_starter_has_gone_is_ended() {
    for keep in [false, true] {
        let sandbox = Sandbox::new();
        let image = sandbox.boot_sector(Guest::ReactsToButton);
        let mut command = sandbox.vmrun();
        command
            .args(["qemu", "--detached", "--wait", "console=never"])
            .args(keep.then_some("--keep"))
            .arg(&image);
        let mut starter = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the guest runs", || {
            sandbox.run(["logs"]).stdout.contains(Guest::ReactsToButton.greeting())
        });
        starter.kill().unwrap();
        wait_with_patience(&mut starter);
        if keep {
            assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
            sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
        }
        eventually("it has ended", || of(sandbox.path()).is_empty());
        sandbox.is_clean();
    }
}

#[test]
fn a_vm_whose_name_cannot_be_printed_is_ended() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let mut command = sandbox.vmrun();
    command.args(["qemu", "--detached"]).arg(&image);
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let done = crate::support::sandbox::Done::of(command.output().unwrap());
    done.fails(1, &["standard output cannot be written", "'guest' is ended"]);
    eventually("it has ended", || of(sandbox.path()).is_empty());
    sandbox.is_clean();
}
