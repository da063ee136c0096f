//! A Debian guest with systemd, sshd and cloud-init: `make test-debian` runs these tests.

use crate::support::debian;
use crate::support::processes::eventually;
use crate::support::pty::OnTerminal;
use crate::support::sandbox::{Done, Sandbox};

/// `vmrun run FLAGS DEBIAN -- COMMAND`.
fn run(sandbox: &Sandbox, flags: &[&str], command: &[&str]) -> Done {
    let mut run = sandbox.vmrun();
    run.args(["run", "--agent-timeout", "3m"]).args(flags).args(debian::arguments()).arg("--").args(command);
    Done::of(run.output().unwrap())
}

#[test]
#[ignore = "needs the Debian guest: `make test-debian`"]
fn forks_of_a_booted_debian_are_the_same_boot() {
    let sandbox = Sandbox::new();
    let script = "cat /proc/1/comm /proc/sys/kernel/random/boot_id; echo \"mark:$(cat /root/mark 2>/dev/null)\"; echo seen > /root/mark";
    let first = run(&sandbox, &[], &["sh", "-c", script]).ok().stdout;
    let second = run(&sandbox, &[], &["sh", "-c", script]).ok().stdout;
    assert!(first.starts_with("systemd\n") && first.ends_with("mark:\n"), "{first}");
    assert_eq!(first, second, "a fork of the same boot, and nothing that the other has written");
    let state = run(&sandbox, &[], &["systemctl", "is-system-running", "--wait"]);
    let failed = run(&sandbox, &[], &["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).ok();
    assert_eq!((state.stdout.as_str(), failed.stdout.as_str()), ("running\n", ""), "{state:?}");
    sandbox.is_clean();
}

#[test]
#[ignore = "needs the Debian guest: `make test-debian`"]
fn cloud_init_does_what_the_data_says() {
    let sandbox = Sandbox::new();
    let data = "#cloud-config\nwrite_files:\n- path: /root/from-data\n  content: written by cloud-init\nruncmd:\n- [touch, /root/ran]\n";
    let command = ["sh", "-c", "cloud-init status --wait; cat /root/from-data; ls /root/ran; hostname"];
    let done = run(&sandbox, &["--cold", "--name", "cloudy", "--data", data], &command).ok();
    for text in ["status: done", "written by cloud-init", "/root/ran", "cloudy"] {
        assert!(done.stdout.contains(text), "no '{text}': {done:?}");
    }
    sandbox.is_clean();
}

#[test]
#[ignore = "needs the Debian guest: `make test-debian`"]
fn ssh_and_shells_need_no_network_and_no_configuration() {
    let sandbox = Sandbox::new();
    let boot = ["--networking", "none", "--name", "deb", "--forkable"].map(str::to_owned);
    sandbox.detached(boot.into_iter().chain(debian::arguments()));
    sandbox.ctl(["wait", "ssh", "--timeout", "3m"]).ok();
    let vmrun = |words: &[&str]| sandbox.run(words);
    let done = vmrun(&["ssh", "deb", "id -un; echo err >&2; exit 5"]);
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (5, "root\n", "err\n"));
    // another user, who has no key there
    let done = vmrun(&["exec", "deb", "--", "useradd", "-m", "-s", "/bin/sh", "someone"]).ok();
    assert_eq!(done.stdout, "");
    assert_eq!(vmrun(&["ssh", "someone@deb", "id -un"]).line(), "someone");
    // what sshd calls its processes
    let sshds = "pgrep -f '^sshd: (root|someone)|^[^ ]*sshd -i' || echo none";
    eventually("no sshd is left", || vmrun(&["exec", "deb", "--", "sh", "-c", sshds]).line() == "none");

    // files of all kinds, there and back
    let noise: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::create_dir_all(sandbox.file("tree/sub")).unwrap();
    std::fs::write(sandbox.file("tree/sub/noise"), &noise).unwrap();
    vmrun(&["scp", "-q", "tree/sub/noise", "deb:/tmp/noise"]).ok();
    vmrun(&["scp", "-q", "deb:/tmp/noise", "back"]).ok();
    assert!(std::fs::read(sandbox.file("back")).unwrap() == noise);
    vmrun(&["rsync", "-a", "tree/", "someone@deb:tree"]).ok();
    vmrun(&["rsync", "-a", "deb:/home/someone/tree/", "tree2"]).ok();
    assert!(std::fs::read(sandbox.file("tree2/sub/noise")).unwrap() == noise);

    // other programs, with the configuration alone
    let config = vmrun(&["ssh-config", "deb"]).ok().stdout;
    std::fs::write(sandbox.file("config"), config).unwrap();
    let mut scp = std::process::Command::new("scp");
    scp.current_dir(sandbox.path()).env_remove("VMRUN_RUNTIME_DIR").env_remove("XDG_STATE_HOME");
    scp.args(["-F", "config", "deb:/etc/hostname", "hostname"]);
    Done::of(scp.output().unwrap()).ok();
    assert_eq!(std::fs::read_to_string(sandbox.file("hostname")).unwrap(), "debian\n");

    // a killed client leaves nothing in the guest
    let mut client = sandbox.vmrun();
    let mut client = client.args(["ssh", "deb", "sleep 4242"]).spawn().unwrap();
    let runs = |what: &str| vmrun(&["exec", "deb", "--", "pgrep", "-f", what]).code == 0;
    eventually("it sleeps", || runs("^sleep 4242"));
    client.kill().unwrap();
    client.wait().unwrap();
    eventually("its sshd has gone", || !runs("^sshd: root|^[^ ]*sshd -i"));

    // a fork is reached by its own name
    let fork = sandbox.ctl(["--vm", "deb", "fork", "--name", "two"]).line();
    vmrun(&["exec", &fork, "--", "hostname", "two"]).ok();
    assert_eq!(vmrun(&["ssh", &fork, "hostname"]).line(), "two");
    assert_eq!(vmrun(&["ssh", "deb", "hostname"]).line(), "debian");

    // a login shell on a terminal, and one of Python where there is no `script`
    let mut shell = OnTerminal::start_with_size(sandbox.vmrun().args(["shell", "deb"]), 31, 97);
    shell.shows("root@debian:~# ");
    shell.press("stty size; exit 7\r");
    shell.shows("31 97");
    assert_eq!(shell.end().code(), Some(7));
    let tools =
        "mkdir /py; ln -s /usr/bin/python3 /usr/bin/stty /usr/bin/readlink /usr/bin/cat /usr/bin/tty /py";
    vmrun(&["exec", "deb", "--", "sh", "-c", tools]).ok();
    let mut on_python = sandbox.vmrun();
    on_python.args([
        "exec",
        "-it",
        "--env",
        "PATH=/py",
        "deb",
        "--",
        "/bin/sh",
        "-c",
        "tty; stty size; read line; exit 6",
    ]);
    let mut on_python = OnTerminal::start_with_size(&on_python, 31, 97);
    on_python.shows("/dev/pts/");
    on_python.shows("31 97");
    on_python.press("\r");
    assert_eq!(on_python.end().code(), Some(6));
}
