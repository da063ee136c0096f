//! Names that other programs stumble over are just names: the guest boots, and QEMU has exactly that file open.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::Bad;
use crate::support::boot_sector::{self, Guest, says};
use crate::support::sandbox::Sandbox;

const STRANGE: [&[u8]; 12] = [
    b"a,b.img",
    b"a,,b=c,snapshot=on.img",
    b"file=x.img",
    b"nbd:localhost:10809",
    b"json:{\"driver\":\"null-co\"}",
    b"fat:rw:x.img",
    b" two  spaces.img ",
    b"two\nlines\r.img",
    b"-drive.img",
    b"\xff\xfe \x80.img",
    b"quote'\"$(x)`y`%s\\.img",
    "größe-日本.img".as_bytes(),
];

/// The files that QEMU has open, by their names.
fn open_files(sandbox: &Sandbox, name: &str) -> Vec<PathBuf> {
    let status = sandbox.ctl_json(["--vm", name, "status"]);
    let folder = format!("/proc/{}/fd", status["qemu_pid"]);
    std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .collect()
}

/// The files of `query-block`'s answer.
fn block_files(sandbox: &Sandbox) -> Vec<String> {
    let answer = sandbox.ctl_json(["qmp", "query-block"]);
    let drives = answer.as_array().unwrap().iter();
    drives.filter_map(|drive| drive["inserted"]["file"].as_str().map(str::to_owned)).collect()
}

/// `file=PATH` with its commas doubled.
fn option(path: &Path) -> OsString {
    let mut text = b"file=".to_vec();
    for byte in path.as_os_str().as_bytes() {
        text.extend(std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }));
    }
    OsString::from_vec(text)
}

/// As the boot image, relative to the working directory; as a disk; as the state directory; while the VM runs.
#[test]
fn strange_names_work_everywhere() {
    for bytes in STRANGE {
        let sandbox = Sandbox::new();
        let name = OsStr::from_bytes(bytes);
        let disk = Path::new("disks").join(name);
        let later = Path::new("later").join(name);
        for folder in ["disks", "later", "states"] {
            std::fs::create_dir(sandbox.file(folder)).unwrap();
        }
        boot_sector::write(Guest::ReactsToButton, &sandbox.file(name));
        std::fs::write(sandbox.file(&later), vec![0; 1 << 20]).unwrap();
        let mut new_disk = option(&disk);
        new_disk.push(",size=2M");
        let mut arguments: Vec<OsString> =
            vec!["--name".into(), "vm".into(), "--disk".into(), new_disk, "--state".into()];
        arguments.push(Path::new("states").join(name).into());
        // a name that looks like a flag is typed with a folder, as everywhere
        arguments.push(if bytes.starts_with(b"-") {
            Path::new(".").join(name).into()
        } else {
            name.to_owned()
        });
        let vm = sandbox.foreground(&arguments);
        vm.wait_for(Guest::ReactsToButton.greeting());
        let utf8 = name.to_str().is_some();
        if utf8 {
            sandbox.ctl([OsStr::new("disk-add"), &option(&later)]).ok();
            let files = block_files(&sandbox);
            for file in [Path::new(name), &disk, &later] {
                let path = sandbox.file(file);
                assert!(files.contains(&path.to_str().unwrap().to_owned()), "{file:?} is not in {files:#?}");
            }
        } else {
            // JSON cannot hold it: QEMU opens links in the run directory
            let files = block_files(&sandbox);
            assert!(files.iter().all(|file| file.contains("/run/vmrun/vm/image-")), "{files:#?}");
            let refused = sandbox.ctl([OsStr::new("disk-add"), &option(&later)]);
            refused.fails(2, &["is not UTF-8", "hint: make a symbolic link"]);
        }
        let open = open_files(&sandbox, "vm");
        let wanted = [Path::new(name), &disk, &later];
        for file in &wanted[..if utf8 { 3 } else { 2 }] {
            assert!(open.contains(&sandbox.file(file)), "{file:?} is not in {open:#?}");
        }
        assert!(sandbox.file("states").join(name).join("mac-addr").exists(), "{name:?}");
        sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
        vm.wait_for(says::OFF);
        assert_eq!(vm.end().code(), 0);
        assert_eq!(std::fs::metadata(sandbox.file(&disk)).unwrap().len(), 2 << 20, "{name:?}");
        assert_eq!(std::fs::read_dir(sandbox.runtime()).unwrap().count(), 0);
    }
}

/// Sockets have 107 bytes for their paths; ours may lie deeper.
#[test]
fn a_long_run_directory_works() {
    let bad = Bad::new();
    let long = bad.sandbox.file("r".repeat(150));
    let long = long.join("s".repeat(150));
    std::fs::create_dir_all(&long).unwrap();
    std::fs::set_permissions(&long, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let name = "n".repeat(64);
    let mut start = bad.sandbox.vmrun();
    start.env("VMRUN_RUNTIME_DIR", &long).args(["qemu", "--name", &name, "guest.img"]);
    let vm = crate::support::sandbox::Foreground::start(start);
    vm.wait_for(Guest::IgnoresButton.greeting());
    let run = |arguments: &[&str]| {
        let mut command = bad.sandbox.vmrun();
        crate::support::sandbox::Done::of(
            command.env("VMRUN_RUNTIME_DIR", &long).args(arguments).output().unwrap(),
        )
    };
    assert_eq!(run(&["ls", "--json"]).json()[0]["name"], name);
    run(&["ctl", "usb-add", "usb-kbd"]).ok();
    assert_eq!(run(&["ctl", "shutdown", "--force"]).code, 0);
    assert_eq!(vm.end().code(), 12);
}
