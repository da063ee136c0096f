//! A saved VM is input: its file is edited in each way, and the kernel is asked what QEMU then is.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::boot_sector::Guest;
use crate::support::processes::{self, eventually, within};
use crate::support::sandbox::{Done, Foreground, PATIENCE, Sandbox};

/// Where the description begins, and where QEMU's stream does (see `src/host/saved.rs`).
const HEAD: usize = 24;
const STREAM: usize = 256 << 10;

/// A VM that was saved to `vm.saved`, with a disk and a keyboard that were plugged.
fn saved(sandbox: &Sandbox) -> PathBuf {
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    sandbox.detached(["--name", "vm", "--publish", "0:80", image.to_str().unwrap()]);
    sandbox.booted("vm");
    sandbox.ctl(["disk-add", "data.qcow2,size=8M,id=data"]).ok();
    sandbox.ctl(["usb-add", "usb-kbd", "--id", "keys"]).ok();
    sandbox.ctl(["save", "vm.saved"]).ok();
    sandbox.is_clean();
    sandbox.file("vm.saved")
}

fn description(file: &Path) -> Value {
    let bytes = fs::read(file).unwrap();
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    serde_json::from_slice(&bytes[HEAD..HEAD + length]).unwrap()
}

/// The same file with another description.
fn with_description(file: &Path, to: &Path, description: &Value) {
    let mut bytes = fs::read(file).unwrap();
    let text = serde_json::to_vec(description).unwrap();
    assert!(HEAD + text.len() < STREAM);
    bytes[12..16].copy_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
    bytes[HEAD..HEAD + text.len()].copy_from_slice(&text);
    fs::write(to, bytes).unwrap();
    fs::set_permissions(to, Permissions::from_mode(0o600)).unwrap();
}

fn qemu_pid(sandbox: &Sandbox) -> i64 {
    sandbox.ctl_json(["status"])["qemu_pid"].as_i64().unwrap()
}

fn seccomp(pid: i64) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).unwrap();
    line.trim().to_owned()
}

fn command_line(pid: i64) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Whether something listens on this TCP port, on any address.
fn is_listened_on(port: u16) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").unwrap() + &fs::read_to_string("/proc/net/tcp6").unwrap();
    let port = format!(":{port:04X}");
    // 0A is LISTEN
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|local| local.ends_with(&port)) && fields.get(3) == Some(&"0A")
    })
}

/// What another process has open, by device and inode.
fn open_files(pid: i64) -> Vec<(u64, u64)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let identity =
        |entry: fs::DirEntry| fs::metadata(entry.path()).ok().map(|facts| (facts.dev(), facts.ino()));
    entries.flatten().filter_map(identity).collect()
}

fn identity(path: &Path) -> (u64, u64) {
    let facts = fs::metadata(path).unwrap();
    (facts.dev(), facts.ino())
}

#[test]
fn what_a_saved_vm_says_of_the_host_is_not_believed() {
    let sandbox = Sandbox::new();
    let file = saved(&sandbox);
    let mut edited = description(&file);
    let said = edited["spec"]["publish"][0].clone();
    assert!(said["host"].as_u64().unwrap() > 0, "{edited}");

    // a program that would leave a mark, and run as the user who restores
    let evil = sandbox.file("evil");
    let mark = sandbox.file("mark");
    fs::write(&evil, format!("#!/bin/sh\ntouch '{}'\n", mark.display())).unwrap();
    fs::set_permissions(&evil, Permissions::from_mode(0o755)).unwrap();
    let elsewhere = sandbox.file("elsewhere");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    edited["facts"]["qemu"] = json!(evil);
    edited["facts"]["state_directory"] = json!(elsewhere);
    edited["facts"]["run_directory"] = json!(elsewhere);
    edited["facts"]["log_bytes"] = json!(u64::MAX);
    edited["facts"]["qemu_pid"] = json!(1);
    edited["spec"]["sandbox"] = json!(false);
    edited["spec"]["on_panic"] = json!("pause");
    let plugged = mark.display();
    edited["spec"]["extra"] =
        json!(["-sandbox", "off", "-chardev", format!("file,id=x,path={plugged}"), "\u{1b}]0;owned\u{7}"]);
    edited["spec"]["publish"][0]["address"] = json!("0.0.0.0");
    edited["spec"]["publish"][0]["host"] = json!(port);
    edited["spec"]["display"] = json!("none");
    let to = sandbox.file("edited.saved");
    with_description(&file, &to, &edited);

    let restored = Foreground::start({
        let mut command = sandbox.vmrun();
        command.args(["qemu", "--restore", "edited.saved"]);
        command
    });
    let hint = restored.wait_for_error("hint: ");
    for word in
        ["--qemu", "--state", "--publish 0.0.0.0:", "--on-panic pause", "--no-sandbox", "-- -sandbox off"]
    {
        assert!(hint.contains(word), "no '{word}' in {hint}");
    }
    assert!(hint.contains(r"$'\x1b]0;owned\x07'") && !hint.contains('\u{1b}'), "{hint:?}");
    eventually("the VM goes on", || {
        let done = sandbox.ctl(["--json", "status"]);
        done.code == 0 && done.json()["state"] == "running"
    });
    let pid = qemu_pid(&sandbox);
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let line = command_line(pid);
    // (or the dynamic linker, where QEMU's program is a wrapper)
    let is_wrapped = line.iter().any(|word| word.ends_with("/qemu-system-x86_64"));
    assert!(program.to_str().unwrap().contains("qemu-system-") || is_wrapped, "{program:?} {line:?}");
    assert_eq!(seccomp(pid), "2");
    assert!(
        !line.iter().any(|word| word.contains("mark") || word.contains("owned") || word == "off"),
        "{line:?}"
    );
    assert!(!is_listened_on(port));
    assert_eq!(sandbox.ctl_json(["port-list"]), json!([]));
    assert!(!elsewhere.exists() && !mark.exists());
    // the guest's hardware is all there, and so are its images
    let open = open_files(pid);
    for image in ["guest.img", "data.qcow2"] {
        assert!(open.contains(&identity(&sandbox.file(image))), "{image}");
    }
    let status = sandbox.ctl_json(["status"]).to_string();
    assert!(status.contains("\"keys\"") && status.contains("\"data\""), "{status}");
    sandbox.ctl(["shutdown", "--timeout", "30s"]).ok();
    assert_eq!(restored.end().code(), 0);
    sandbox.is_clean();
}

#[test]
fn what_a_saved_vm_does_not_decide_is_decided_by_the_command_line() {
    let sandbox = Sandbox::new();
    saved(&sandbox);
    // nothing is asked of the file for what is said here
    sandbox.detached([
        "--restore",
        "vm.saved",
        "--state",
        "other",
        "--publish",
        "0:8080",
        "--no-sandbox",
        "--on-panic",
        "pause",
        "--",
        "-msg",
        "timestamp=on",
    ]);
    let status = sandbox.ctl_json(["status"]);
    let pid = qemu_pid(&sandbox);
    assert_eq!((seccomp(pid).as_str(), status["forwards"].as_array().unwrap().len()), ("0", 1), "{status}");
    let line = command_line(pid);
    assert!(
        line.contains(&"panic=pause".to_owned()) && line.contains(&"timestamp=on".to_owned()),
        "{line:?}"
    );
    let port = u16::try_from(sandbox.ctl_json(["port-list"])[0]["host_port"].as_u64().unwrap()).unwrap();
    assert!(is_listened_on(port));
    assert!(sandbox.file("other").is_dir());
    sandbox.ctl(["shutdown", "--timeout", "30s"]).ok();
    sandbox.is_clean();
}

/// They change what vmrun leaves out of a machine, which must be the same one.
#[test]
fn a_vm_with_raw_arguments_goes_on_without_them() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    sandbox.detached(["--name", "vm", image.to_str().unwrap(), "--", "-msg", "timestamp=on"]);
    sandbox.booted("vm");
    for name in ["first.saved", "second.saved"] {
        sandbox.ctl(["save", name]).ok();
        sandbox.is_clean();
        sandbox.detached(["--restore", name]);
        let line = command_line(qemu_pid(&sandbox));
        assert!(!line.contains(&"timestamp=on".to_owned()), "{line:?}");
    }
    sandbox.ctl(["shutdown", "--timeout", "30s"]).ok();
    sandbox.is_clean();
}

#[test]
fn a_saved_vm_that_leads_elsewhere_is_refused() {
    let sandbox = Sandbox::new();
    let file = saved(&sandbox);
    let whole = description(&file);
    let secret = sandbox.file("secret");
    fs::write(&secret, vec![b'x'; 4096]).unwrap();
    let secret = secret.to_str().unwrap();
    let hot = |id: &str, commands: Value| json!({ "id": id, "commands": commands });
    let add = |arguments: Value| json!([{ "execute": "device_add", "arguments": arguments }]);
    let node = |name: &str, rest: Value| {
        let mut arguments =
            json!({ "node-name": name, "read-only": false, "filename": secret, "driver": "file" });
        arguments.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({ "execute": "blockdev-add", "arguments": arguments })
    };
    let plugged = |record: Value| {
        let mut edited = whole.clone();
        edited["record"]["hot"].as_array_mut().unwrap().push(record);
        edited
    };
    let changed = |path: &str, value: Value| {
        let mut edited = whole.clone();
        *edited.pointer_mut(path).unwrap_or_else(|| panic!("{path} in {whole}")) = value;
        edited
    };
    let device = |driver: &str, properties: Value| {
        changed("/spec/devices", json!([{ "driver": driver, "id": "x", "properties": properties }]))
    };
    let cases: Vec<(&str, Value, Vec<&str>)> = vec![
        (
            "a back-end that runs a program",
            plugged(hot(
                "x",
                json!([{ "execute": "netdev_add", "arguments": { "type": "tap", "id": "x", "script": secret } }]),
            )),
            vec!["'x': it is not one device"],
        ),
        (
            "an image that is in no list",
            plugged(hot(
                "x",
                json!([
                    node("x.file", json!({})),
                    node("x", json!({ "driver": "raw" })),
                    { "execute": "device_add", "arguments": { "driver": "virtio-blk-pci", "id": "x", "drive": "x" } },
                ]),
            )),
            vec!["does not say what", "secret"],
        ),
        (
            "a device of the host",
            plugged(hot("x", add(json!({ "driver": "usb-host", "id": "x", "hostbus": 1, "hostaddr": 1 })))),
            vec!["'x'", "usb-host", "--device 'usb-host,id=x,hostaddr=1,hostbus=1'"],
        ),
        (
            "an id that is none",
            plugged(hot("x\u{1b}[2J", add(json!({ "driver": "usb-kbd", "id": "x" })))),
            vec!["x\\u{1b}[2J", "not an id"],
        ),
        (
            "a file as a device",
            device("loader", json!({ "file": secret })),
            vec!["loader", "--device 'loader,id=x,file=/"],
        ),
        (
            "a file as a ROM",
            device("VGA", json!({ "romfile": secret })),
            vec!["VGA", "--device 'VGA,id=x,romfile=/"],
        ),
        (
            "a file in the machine",
            changed("/spec/machine", json!(format!("q35,kernel={secret}"))),
            vec!["machine has options", "kernel="],
        ),
        (
            "a newer machine",
            changed("/spec/machine", json!("pc-q35-99.1")),
            vec!["pc-q35-99.1", "hint: ", "--qemu"],
        ),
        ("another disk", changed("/spec/disks/0/file", json!(secret)), vec!["does not say what", "secret"]),
        (
            "a relative path",
            changed("/spec/disks/0/file", json!("secret")),
            vec!["does not say what secret was"],
        ),
        ("another format", changed("/spec/disks/0/format", json!("qcow2")), vec!["is raw", "calls it qcow2"]),
        (
            "a kernel",
            changed("/spec/boot", json!({ "mode": "kernel", "kernel": secret, "cmdline": "" })),
            vec!["does not say what", "secret"],
        ),
        ("a medium", changed("/spec/metadata", json!(secret)), vec!["does not say what", "secret"]),
        ("firmware", changed("/spec/firmware", json!({ "kind": "bios", "path": secret })), vec!["firmware"]),
        (
            "a network of the host",
            changed("/spec/networking", json!({ "mode": "bridge", "interface": "br0" })),
            vec!["network of the host", "--networking ", "bridge,br0"],
        ),
        (
            "folders",
            changed("/spec/shares", json!([{ "directory": "/etc", "tag": "t" }])),
            vec!["shared folders", "--virtiofs ", "/etc,tag=t"],
        ),
        ("too many slots", changed("/spec/hotplug_slots", json!(255)), vec!["makes no sense", "255"]),
        ("no processors", changed("/spec/cpus", json!(0)), vec!["makes no sense", "0 processors"]),
        ("a huge number", changed("/spec/cpus", json!(u64::MAX)), vec!["makes no sense"]),
        ("words in a model", changed("/spec/cpu", json!("max -S\u{1b}")), vec!["makes no sense", "\\x1b"]),
        ("a name that is a path", changed("/spec/name", json!("../x")), vec!["makes no sense"]),
        ("no description", json!([]), vec!["makes no sense"]),
    ];
    for (what, edited, words) in cases {
        println!("{what}");
        let to = sandbox.file("edited.saved");
        with_description(&file, &to, &edited);
        let done = sandbox.run(["qemu", "--restore", "edited.saved"]).fails(1, &words);
        assert!(!done.stderr.contains('\u{1b}'), "{what}: {done:?}");
        sandbox.is_clean();
    }
    // a state that does not fit: QEMU's own words for it
    with_description(&file, &sandbox.file("edited.saved"), &changed("/spec/memory", json!(64 << 20)));
    let done = sandbox.run(["qemu", "--restore", "edited.saved"]);
    done.fails(1, &["could not load the saved state", "qemu-system-"]);
    sandbox.is_clean();
    // what would lead elsewhere can be meant, and is then said
    let to = sandbox.file("edited.saved");
    with_description(&file, &to, &changed("/spec/shares", json!([])));
    sandbox.run(["qemu", "--restore", "edited.saved", "--device", "usb-mouse"]).fails(2, &["no such device"]);
    sandbox
        .run(["qemu", "--restore", "edited.saved", "--networking", "none"])
        .fails(2, &["has a network card"]);
    sandbox.run(["qemu", "--restore", "edited.saved", "--gui"]).fails(2, &["no video device"]);
    sandbox.is_clean();
    // user networking that is asked for is not the default of a command line without a word about networks
    let on_bridge = changed("/spec/networking", json!({ "mode": "bridge", "interface": "br0" }));
    with_description(&file, &sandbox.file("edited.saved"), &on_bridge);
    sandbox
        .run(["qemu", "--restore", "edited.saved", "--networking", "user"])
        .fails(1, &["'bridge,br0'", "cannot move such a card to user networking", "tap,NAME"]);
    sandbox.is_clean();
}

/// A QEMU for `--qemu` that stands still as soon as it is to load a state, and its process's id in the file `frozen`.
fn standing_still(sandbox: &Sandbox) -> PathBuf {
    let (program, frozen) = (sandbox.file("qemu"), sandbox.file("frozen"));
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *-incoming*) echo $$ > '{0}.part'; mv '{0}.part' '{0}'; kill -STOP $$ ;; esac\n\
         exec qemu-system-x86_64 \"$@\"\n",
        frozen.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    program
}

#[test]
fn a_signal_ends_a_restore_in_which_qemu_stands_still() {
    let sandbox = Sandbox::new();
    let file = saved(&sandbox);
    let before = fs::read(&file).unwrap();
    let program = standing_still(&sandbox);
    let frozen = sandbox.file("frozen");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let vm = sandbox.foreground(["--qemu", program.to_str().unwrap(), "--restore", "vm.saved"]);
        eventually("QEMU stands still", || frozen.exists());
        let qemu: i32 = fs::read_to_string(&frozen).unwrap().trim().parse().unwrap();
        vm.signal(signal);
        let ended = vm.end();
        assert_eq!(ended.code(), 1, "{ended:?}");
        let words = format!("the VM was not started: {signal} came before its saved state was loaded");
        assert!(ended.stderr.contains(&words), "{ended:?}");
        assert!(processes::has_ended(qemu));
        sandbox.is_clean();
        fs::remove_file(&frozen).unwrap();
    }
    // the file is as it was, and good
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(sandbox.detached(["--restore", "vm.saved"]), "vm");
    sandbox.ctl(["shutdown", "--force"]);
    sandbox.is_clean();
}

#[test]
fn a_saved_vm_of_somebody_else_or_that_is_no_file_is_refused() {
    let sandbox = Sandbox::new();
    let file = saved(&sandbox);
    let restore = |file: &str| {
        let mut command = sandbox.vmrun();
        command.args(["qemu", "--restore", file]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let ended = within(PATIENCE, || child.try_wait().unwrap().is_some());
        let _ = child.kill();
        assert!(ended, "{file} is waited for");
        Done::of(child.wait_with_output().unwrap())
    };
    nix::unistd::mkfifo(&sandbox.file("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for special in ["pipe", "/dev/null", "/dev/tty", "."] {
        restore(special).fails(1, &["is not a regular file"]);
    }
    for mode in [0o620, 0o602] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        restore("vm.saved").fails(1, &["can be written by others", "hint: ", "chmod go-w"]);
    }
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    // another's: only root can make one, and only others have one without
    let theirs = match nix::unistd::geteuid().is_root() {
        true => {
            fs::copy(&file, sandbox.file("theirs")).unwrap();
            std::os::unix::fs::chown(sandbox.file("theirs"), Some(65534), None).unwrap();
            "theirs"
        }
        false => "/etc/passwd",
    };
    restore(theirs).fails(1, &["belongs to uid", "hint: "]);
    sandbox.is_clean();
}

#[test]
fn a_disk_that_was_replaced_while_the_vm_ran_is_not_taken_for_it() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    sandbox.detached(["--name", "vm", "--disk", "cold.img,size=1M", image.to_str().unwrap()]);
    sandbox.booted("vm");
    sandbox.ctl(["disk-add", "hot.img,size=1M,id=hot"]).ok();
    let disks = ["cold.img", "hot.img"];
    let opened = disks.map(|disk| identity(&sandbox.file(disk)));
    let pid = qemu_pid(&sandbox);
    for disk in disks {
        fs::rename(sandbox.file(disk), sandbox.file(format!("{disk}.moved"))).unwrap();
        fs::write(sandbox.file(disk), vec![0; 1 << 20]).unwrap();
    }
    let open = open_files(pid);
    assert!(opened.iter().all(|disk| open.contains(disk)));
    sandbox.ctl(["save", "vm.saved"]).ok();
    let refused = |words: &[&str]| {
        sandbox.run(["qemu", "--restore", "vm.saved"]).fails(1, words);
        sandbox.is_clean();
    };
    let put_back = |disk| fs::rename(sandbox.file(format!("{disk}.moved")), sandbox.file(disk)).unwrap();
    refused(&["changed or replaced", "hint: "]);
    put_back("hot.img");
    refused(&["cold.img", "changed or replaced"]);
    put_back("cold.img");
    // under their names again, they are what the guest goes on with
    sandbox.detached(["--restore", "vm.saved"]);
    let open = open_files(qemu_pid(&sandbox));
    assert!(opened.iter().all(|disk| open.contains(disk)));
    sandbox.ctl(["shutdown", "--timeout", "30s"]).ok();
    sandbox.is_clean();
}

/// What lies under a disk is moved, and another file takes its name, while the VM runs: neither a takeover nor a save takes that for it.
#[test]
fn a_backing_file_that_was_replaced_while_the_vm_ran_is_not_taken_for_it() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let qemu_img = |arguments: &[&str]| {
        let mut command = sandbox.program("qemu-img");
        assert!(command.args(["create", "-q", "-f", "qcow2"]).args(arguments).status().unwrap().success());
    };
    let layers = ["cold-base.qcow2", "hot-base.qcow2"];
    for (base, top) in layers.iter().zip(["cold.qcow2", "hot.qcow2"]) {
        qemu_img(&[base, "1M"]);
        qemu_img(&["-b", base, "-F", "qcow2", top]);
    }
    sandbox.detached(["--name", "vm", "--disk", "cold.qcow2", image.to_str().unwrap()]);
    sandbox.booted("vm");
    sandbox.ctl(["disk-add", "hot.qcow2,id=hot"]).ok();
    let opened = layers.map(|layer| identity(&sandbox.file(layer)));
    let disks = || {
        let mut status = sandbox.ctl_json(["status"]);
        crate::support::orphan::forget_taken(&mut status);
        status["disks"].clone()
    };
    let before = disks();
    for layer in layers {
        fs::rename(sandbox.file(layer), sandbox.file(format!("{layer}.moved"))).unwrap();
        qemu_img(&[layer, "1M"]);
    }
    crate::support::orphan::kill_supervisor(&sandbox);
    assert_eq!(disks(), before);
    let open = open_files(qemu_pid(&sandbox));
    assert!(opened.iter().all(|layer| open.contains(layer)));
    sandbox.ctl(["save", "vm.saved"]).ok();
    let refused = |words: &[&str]| {
        sandbox.run(["qemu", "--restore", "vm.saved"]).fails(1, words);
        sandbox.is_clean();
    };
    let put_back = |layer| fs::rename(sandbox.file(format!("{layer}.moved")), sandbox.file(layer)).unwrap();
    refused(&["changed or replaced", "hint: "]);
    put_back(layers[0]);
    refused(&[layers[1], "changed or replaced"]);
    put_back(layers[1]);
    sandbox.detached(["--restore", "vm.saved"]);
    let open = open_files(qemu_pid(&sandbox));
    assert!(opened.iter().all(|layer| open.contains(layer)));
    sandbox.ctl(["shutdown", "--timeout", "30s"]).ok();
    sandbox.is_clean();
}

/// Names that are no text: of a disk from the start, and of what lies under one that was plugged.
#[test]
fn images_with_any_name_are_saved_and_restored() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let name = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let (cold, base) = (name(b"\xff.img"), name(b"\xfe.qcow2"));
    fs::write(sandbox.file(&cold), vec![0; 1 << 20]).unwrap();
    for arguments in [
        vec![base.clone(), "1M".into()],
        vec!["-b".into(), base.clone(), "-F".into(), "qcow2".into(), "top.qcow2".into()],
    ] {
        let mut command = sandbox.program("qemu-img");
        assert!(command.args(["create", "-q", "-f", "qcow2"]).args(arguments).status().unwrap().success());
    }
    let mut command = sandbox.vmrun();
    command.args(["qemu", "--detached", "--name", "vm", "--disk"]).arg(&cold).arg(&image);
    Done::of(command.output().unwrap()).ok();
    sandbox.booted("vm");
    sandbox.ctl(["disk-add", "top.qcow2,id=hot"]).ok();
    let files = [identity(&sandbox.file(&cold)), identity(&sandbox.file(&base))];
    let has_both = || {
        let open = open_files(qemu_pid(&sandbox));
        files.iter().all(|file| open.contains(file))
    };
    assert!(has_both());
    sandbox.ctl(["save", "vm.saved"]).ok();
    sandbox.detached(["--restore", "vm.saved"]);
    assert!(has_both());
    // a supervisor that takes it over knows them, too
    crate::support::orphan::kill_supervisor(&sandbox);
    fs::remove_file(sandbox.file("vm.saved")).unwrap();
    sandbox.ctl(["save", "vm.saved"]).ok();
    sandbox.detached(["--restore", "vm.saved"]);
    assert!(has_both());
    sandbox.ctl(["shutdown", "--timeout", "30s"]).ok();
    sandbox.is_clean();
}

/// Neither the disk's name nor that of a link in the run directory is UTF-8: QEMU accepts none.
#[test]
fn a_name_that_qemu_cannot_be_told_is_refused_before_anything_is_made() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::ReactsToButton);
    let folder = [sandbox.path().as_os_str().as_bytes(), b"/run/\xff\xfe"].concat();
    let vmrun = |arguments: &[&[u8]]| {
        let mut command = sandbox.vmrun();
        command.args(arguments.iter().map(|bytes| OsStr::from_bytes(bytes)));
        Done::of(command.env("VMRUN_RUNTIME_DIR", OsStr::from_bytes(&folder)).output().unwrap())
    };
    let start: [&[u8]; 5] = [b"qemu", b"--detached", b"--name", b"vm", b"guest.img"];
    let refused = vmrun(&[&start[..], &[b"--disk", b"\xfe.img,size=1M"]].concat());
    let refused = refused.fails(1, &["accepts only names in UTF-8", "hint: set VMRUN_RUNTIME_DIR"]);
    assert!(!sandbox.file(OsStr::from_bytes(b"\xfe.img")).exists(), "{refused:#?}");
    // with plain names all goes as anywhere
    vmrun(&start).ok();
    vmrun(&[b"ctl", b"disk-add", b"new.img,size=1M"]).ok();
    vmrun(&[b"ctl", b"save", b"vm.saved"]).ok();
    vmrun(&[b"qemu", b"--detached", b"--restore", b"vm.saved"]).ok();
    vmrun(&[b"ctl", b"shutdown", b"--force"]);
}
