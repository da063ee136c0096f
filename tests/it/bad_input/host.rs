//! What this machine lacks or has no room for.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use super::Bad;
use crate::support::sandbox::{Done, Sandbox};

#[test]
fn no_qemu_in_the_path_names_the_package() {
    let bad = Bad::new();
    for (arch, package) in
        [("x86_64", "qemu-system-x86"), ("aarch64", "qemu-system-arm"), ("riscv64", "qemu-system-misc")]
    {
        let mut command = bad.sandbox.vmrun();
        command.env("PATH", "/nowhere");
        let words =
            [format!("qemu-system-{arch} is not installed"), format!("hint: apt-get install {package}")];
        // aarch64 wants firmware, too; the program comes first
        let arguments = ["qemu", "--arch", arch, "guest.img"];
        let hint = words[1].replace("qemu-system-misc", "qemu-system-riscv");
        bad.refused_as(&mut command, &arguments, 1, &[&words[0], &hint, package]);
    }
}

#[test]
fn no_qemu_img_in_the_path_names_the_package() {
    let bad = Bad::new();
    let mut command = bad.sandbox.vmrun();
    command.env("PATH", "/nowhere");
    let arguments =
        ["qemu", "--qemu", "/usr/bin/qemu-system-x86_64", "--disk", "new.qcow2,size=1", "guest.img"];
    bad.refused_as(
        &mut command,
        &arguments,
        1,
        &["--disk new.qcow2", "qemu-img is not installed", "qemu-utils"],
    );
}

#[test]
fn accelerators_that_do_not_work_here() {
    let bad = Bad::new();
    // any program will do: a machine need not have the QEMU of another architecture
    let foreign = ["--accel", "kvm", "--arch", "aarch64", "--qemu", "/bin/true"];
    bad.start(&foreign, 1, &["the guest is aarch64", "hint: "]);
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    if !flags.split_whitespace().any(|word| word == "vmx" || word == "svm") {
        let reason =
            if std::path::Path::new("/dev/kvm").exists() { "vmx" } else { "/dev/kvm does not exist" };
        bad.start(&["--accel", "kvm"], 1, &["KVM", reason, "hint: ", "tcg"]);
    }
    let mut command = bad.sandbox.vmrun();
    command.env("VMRUN_ACCEL", "nonsense");
    bad.refused_as(&mut command, &["qemu", "guest.img"], 2, &["VMRUN_ACCEL", "'nonsense'"]);
}

#[test]
fn host_ports_that_cannot_be_had() {
    let bad = Bad::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port();
    let flag = format!("{taken}:80");
    let words = ["--publish: ", &format!("127.0.0.1:{taken}/tcp is in use"), "hint: use host port 0"];
    bad.start(&["--publish", &flag], 1, &words);
    // TEST-NET-3 of RFC 5737: assigned to no host
    bad.start(
        &["--publish", "203.0.113.7:0:80"],
        1,
        &["203.0.113.7 is not an address of this machine", "hint: "],
    );
    std::fs::set_permissions(bad.sandbox.file("guest.img"), PermissionsExt::from_mode(0o666)).unwrap();
    let low = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if low.trim().parse::<u16>().unwrap() > 7 {
        let flags = ["--state", "nobody/state", "--publish", "7:80"];
        bad.start_as_nobody(&flags, 1, &["port 7 is only for root", "hint: "]);
    }
}

#[test]
fn host_ports_that_cannot_be_had_while_the_vm_runs() {
    let bad = Bad::running();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("{}:80", listener.local_addr().unwrap().port());
    bad.ctl(&["port-add", &taken], 4, &["is in use by another program", "hint: use host port 0"]);
    let other = bad.image("other.img");
    bad.sandbox.detached(["--name", "other", "--publish", "0:80", other.to_str().unwrap()]);
    let others = bad.sandbox.ctl_json(["--vm", "other", "port-list"])[0]["host_port"].clone();
    let add = bad.sandbox.ctl(["--vm", "vm", "port-add", &format!("{others}:80")]);
    add.fails(4, &[&format!("127.0.0.1:{others}/tcp is in use by VM 'other'"), "hint: use host port 0"]);
    let start = bad.sandbox.run([
        "qemu",
        "--state",
        "s",
        "--publish",
        &format!("{others}:80"),
        "other.img,readonly=on",
    ]);
    start.fails(1, &["is in use by VM 'other'"]);
    bad.sandbox.ctl(["--vm", "other", "shutdown", "--force"]).ok();
    // known before the VM is paused
    let fork = ["fork", "--count", "2", "--publish", "8099:80"];
    bad.ctl(&fork, 2, &["2 forks cannot share host port 8099", "0:80"]);
    bad.ctl(&["port-add", "203.0.113.7:0:80"], 1, &["203.0.113.7 is not an address of this machine"]);
    let got = bad.sandbox.ctl(["port-add", "0:80"]).line();
    for address in ["", "0.0.0.0:"] {
        let words = [&format!("host port {got} is forwarded already, by 127.0.0.1:{got}:80/tcp")];
        bad.ctl(&["port-add", &format!("{address}{got}:81")], 4, &[words[0]]);
    }
    bad.ctl(&["port-remove", "5"], 4, &["no forward '5'", &format!("it has 127.0.0.1:{got}:80/tcp")]);
    bad.ctl(&["port-remove", &format!("{got}:81")], 4, &[&format!("no forward '{got}:81'")]);
    bad.ctl(&["port-remove", &format!("{got}:80/udp")], 4, &["/udp'"]);
    bad.sandbox.ctl(["port-remove", &got]).ok();
    bad.ctl(&["port-remove", &got], 4, &["it has none"]);
}

#[test]
fn forwards_need_user_networking() {
    let bad = Bad::new();
    bad.sandbox.detached(["--networking", "none", "guest.img"]);
    bad.ctl(&["port-add", "0:80"], 4, &["none networking", "hint: ", "--networking user"]);
    bad.ctl(&["port-remove", "80"], 4, &["none networking", "hint: "]);
}

#[test]
fn the_doctor_tells_what_is_missing() {
    let sandbox = Sandbox::new();
    let healthy = sandbox.run(["doctor"]).ok().stdout;
    for what in ["ok  qemu: ", "ok  qemu-img: ", "acceleration: ", "ok  running VMs: "] {
        assert!(healthy.contains(what), "no '{what}' in {healthy}");
    }
    let mut poor = sandbox.vmrun();
    let poor = Done::of(poor.env("PATH", sandbox.path()).args(["doctor", "--json"]).output().unwrap());
    assert_eq!(poor.code, 1, "{poor:#?}");
    let findings: serde_json::Value = serde_json::from_str(&poor.stdout).unwrap();
    let qemu = findings.as_array().unwrap().iter().find(|finding| finding["what"] == "qemu").unwrap();
    assert_eq!((&qemu["verdict"], qemu["hint"].is_string()), (&"bad".into(), true), "{qemu}");
}
