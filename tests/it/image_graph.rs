//! What QEMU has open for an image, as the kernel and QEMU itself tell it: the files that were allowed, and no other.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::boot_sector::Guest;
use crate::support::cd;
use crate::support::sandbox::Sandbox;

fn qemu_img(folder: &Path, arguments: &[&str]) {
    let made = Command::new("qemu-img").args(arguments).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn overlay(folder: &Path, name: &OsStr, backing: &str) {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "raw"]).arg(name).arg("1M");
    assert!(command.current_dir(folder).status().unwrap().success());
}

fn description(extent: &str) -> String {
    let kind = if extent.starts_with("FLAT") { "monolithicFlat" } else { "twoGbMaxExtentSparse" };
    let head = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=";
    format!("{head}\"{kind}\"\nRW 2048 {extent}\n")
}

/// The files under `folder` that the VM's QEMU has open.
fn open_files(sandbox: &Sandbox, folder: &Path) -> BTreeSet<PathBuf> {
    let pid = sandbox.ctl_json(["status"])["qemu_pid"].as_i64().unwrap();
    let folder = folder.canonicalize().unwrap();
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let files = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    files.filter_map(|file| file.strip_prefix(&folder).map(Path::to_owned).ok()).collect()
}

fn paths(names: &[&str]) -> BTreeSet<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

/// A folder `in` with images that lead out of it in ways that only QEMU goes, each with a decoy where vmrun once looked; `secret` is
/// beside it, where vmrun is run.
fn traps() -> (Sandbox, [(&'static str, &'static str); 3]) {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    let inner = sandbox.file("in");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(sandbox.file("secret"), vec![b's'; 1 << 20]).unwrap();
    std::fs::write(inner.join("secret"), vec![b'd'; 1 << 20]).unwrap();
    overlay(&inner, OsStr::new("prefix.qcow2"), "file:secret");
    std::fs::write(inner.join("extent.vmdk"), description("FLAT \"file:secret\" 0")).unwrap();
    // a part that is a description itself: QEMU looks for its parts in the folder of the image at the top
    let parts = inner.join("parts");
    std::fs::create_dir(&parts).unwrap();
    symlink("../secret", inner.join("x")).unwrap();
    std::fs::write(parts.join("x"), vec![b'd'; 1 << 20]).unwrap();
    let mut part = vec![0; 512];
    part[..4].copy_from_slice(b"KDMV");
    part[4] = 1;
    part[28] = 1;
    part.extend_from_slice(description("FLAT \"x\" 0").as_bytes());
    part.resize(64 << 10, 0);
    std::fs::write(parts.join("part.vmdk"), part).unwrap();
    std::fs::write(inner.join("nested.vmdk"), description("SPARSE \"parts/part.vmdk\"")).unwrap();
    let ways = [
        ("prefix.qcow2", "not a plain file name"),
        ("extent.vmdk", "not a plain file name"),
        ("nested.vmdk", "consists of other files itself"),
    ];
    (sandbox, ways)
}

#[test]
fn no_way_leads_out_of_the_folder_at_the_start() {
    let (sandbox, ways) = traps();
    for (name, why) in ways {
        let disk = format!("in/{name}");
        for ephemeral in [&[][..], &["--ephemeral"]] {
            let start =
                [&["qemu", "--detached", "--disk", disk.as_str()], ephemeral, &["guest.img"]].concat();
            sandbox.run(start).fails(1, &[why, "hint: "]);
        }
    }
    sandbox.is_clean();
}

#[test]
fn no_way_leads_out_of_the_folder_while_the_vm_runs() {
    let (sandbox, ways) = traps();
    cd::write(Guest::Halted, &sandbox.file("first.iso"));
    sandbox.detached(["--usb", "first.iso"]);
    for (name, why) in ways {
        let path = sandbox.file("in").join(name).display().to_string();
        sandbox.ctl(["disk-add", &path]).fails(1, &[why, "hint: "]);
        sandbox.ctl(["media-change", "cd0", &path]).fails(1, &[why, "hint: "]);
        sandbox.ctl(["usb-add", &format!("file={path}")]).fails(1, &[why, "hint: "]);
    }
    assert_eq!(open_files(&sandbox, &sandbox.file("in")), paths(&[]));
    assert!(!open_files(&sandbox, sandbox.path()).contains(Path::new("secret")));
    sandbox.ctl(["shutdown", "--force"]);
}

/// A folder with an image of every kind that consists of more than one file; a raw one of the same name as the lowest is where vmrun runs.
fn many_files() -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    let folder = sandbox.file("images");
    std::fs::create_dir(&folder).unwrap();
    qemu_img(&folder, &["create", "-q", "-f", "qcow2", "base", "1M"]);
    std::fs::write(sandbox.file("base"), "not this").unwrap();
    let over = ["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b"];
    qemu_img(&folder, &[&over[..], &["base", "middle", "1M"]].concat());
    qemu_img(&folder, &[&over[..], &["middle", "top", "1M"]].concat());
    let data = format!("data_file={}", folder.join("data").display());
    qemu_img(&folder, &["create", "-q", "-f", "qcow2", "-o", &data, "external", "1M"]);
    qemu_img(
        &folder,
        &["create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "parts.vmdk", "1M"],
    );
    (sandbox, folder)
}

const KINDS: [(&str, &[&str]); 3] = [
    ("top", &["base", "middle", "top"]),
    ("external", &["data", "external"]),
    ("parts.vmdk", &["parts-s001.vmdk", "parts.vmdk"]),
];

#[test]
fn qemu_has_all_files_of_an_image_and_no_other() {
    let (sandbox, folder) = many_files();
    for (name, files) in KINDS {
        sandbox.detached(["--disk", &format!("images/{name}"), "guest.img"]);
        assert_eq!(open_files(&sandbox, &folder), paths(files), "{name}");
        // no node but a vmdk's parts was left for QEMU to name
        let nodes = sandbox.ctl_json(["qmp", "{\"execute\":\"query-named-block-nodes\"}"]);
        let unnamed = nodes
            .as_array()
            .unwrap()
            .iter()
            .filter(|node| node["node-name"].as_str().unwrap().starts_with('#'));
        assert_eq!(unnamed.count(), usize::from(name == "parts.vmdk"), "{nodes}");
        let disk = sandbox.ctl_json(["disk-list"])[1].clone();
        assert_eq!(disk["file"], folder.join(name).to_str().unwrap());
        // a relative name leads nowhere in QEMU
        let pid = sandbox.ctl_json(["status"])["qemu_pid"].as_i64().unwrap();
        let cwd = PathBuf::from(format!("/proc/{pid}/cwd"));
        assert!(std::fs::metadata(&cwd).unwrap().is_dir());
        assert_eq!(std::fs::metadata(&cwd).unwrap().nlink(), 0);
        sandbox.ctl(["shutdown", "--force"]);
    }
    sandbox.is_clean();
}

#[test]
fn an_ephemeral_vm_only_reads_them() {
    let (sandbox, folder) = many_files();
    for (name, files) in KINDS {
        let before: Vec<_> = files.iter().map(|name| std::fs::read(folder.join(name)).unwrap()).collect();
        for file in files {
            std::fs::set_permissions(folder.join(file), std::fs::Permissions::from_mode(0o444)).unwrap();
        }
        sandbox.detached(["--ephemeral", "--disk", &format!("images/{name}"), "guest.img"]);
        assert_eq!(open_files(&sandbox, &folder), paths(files), "{name}");
        let pid = sandbox.ctl_json(["status"])["qemu_pid"].as_i64().unwrap();
        for link in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let file = std::fs::read_link(link.path()).unwrap();
            if file.starts_with(folder.canonicalize().unwrap()) {
                let info = link.path().display().to_string().replace("/fd/", "/fdinfo/");
                let info = std::fs::read_to_string(info).unwrap();
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
                assert_eq!(u32::from_str_radix(flags.trim(), 8).unwrap() & 3, 0, "{file:?}: {info}");
            }
        }
        assert_eq!(sandbox.ctl_json(["disk-list"])[1]["file"], folder.join(name).to_str().unwrap());
        sandbox.ctl(["shutdown", "--force"]);
        let after: Vec<_> = files.iter().map(|name| std::fs::read(folder.join(name)).unwrap()).collect();
        assert!(before == after, "{name}");
    }
    sandbox.is_clean();
}

#[test]
fn images_of_many_files_come_and_go_while_the_vm_runs() {
    let (sandbox, folder) = many_files();
    cd::write(Guest::Halted, &sandbox.file("first.iso"));
    sandbox.detached(["--usb", "first.iso"]);
    for (name, files) in KINDS {
        let path = folder.join(name).display().to_string();
        for disk in [format!("{path},bus=scsi,id=d"), format!("{path},bus=scsi,readonly=on,id=d")] {
            assert_eq!(sandbox.ctl(["disk-add", &disk]).line(), "d");
            assert_eq!(open_files(&sandbox, &folder), paths(files), "{name}");
            sandbox.ctl(["disk-remove", "d"]).ok();
            assert_eq!(open_files(&sandbox, &folder), paths(&[]), "{name}");
        }
        sandbox.ctl(["usb-add", &format!("file={path}"), "--id", "stick"]).ok();
        assert_eq!(open_files(&sandbox, &folder), paths(files), "{name}");
        sandbox.ctl(["usb-remove", "stick"]).ok();
        sandbox.ctl(["media-change", "cd0", &path]).ok();
        assert_eq!(open_files(&sandbox, &folder), paths(files), "{name}");
        sandbox.ctl(["media-eject", "cd0", "--force"]).ok();
        assert_eq!(open_files(&sandbox, &folder), paths(&[]), "{name}");
    }
    sandbox.ctl(["shutdown", "--force"]);
    sandbox.is_clean();
}

#[test]
fn names_count_from_the_image_whatever_its_name() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    let folder = sandbox.file("images");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("base"), vec![0; 1 << 20]).unwrap();
    let odd = OsStr::from_bytes(b"odd\xff.qcow2");
    overlay(&folder, odd, "base");
    let both: BTreeSet<PathBuf> = [PathBuf::from("base"), odd.into()].into();
    let mut start: Vec<OsString> = ["qemu", "--detached", "guest.img", "--disk"].map(Into::into).into();
    start.push(folder.join(odd).into());
    sandbox.run(start).ok();
    assert_eq!(open_files(&sandbox, &folder), both);
    sandbox.ctl(["shutdown", "--force"]);
    // the protocol has text only: through a link, whose folder counts
    symlink(odd, folder.join("link")).unwrap();
    sandbox.detached(["guest.img"]);
    sandbox.ctl(["disk-add", &folder.join("link").display().to_string()]).ok();
    assert_eq!(open_files(&sandbox, &folder), both);
    sandbox.ctl(["shutdown", "--force"]);
    sandbox.is_clean();
}

/// A QEMU wrapper that changes the images at the worst moment: after vmrun has checked them.
fn meddling(sandbox: &Sandbox, meddle: &str) {
    let path = sandbox.file("meddling");
    std::fs::write(
        &path,
        format!("#!/bin/sh\n(cd '{}'; {meddle})\nexec qemu-system-x86_64 \"$@\"\n", sandbox.path().display()),
    )
    .unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_is_changed_after_the_look_never_reaches_a_guest() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    let inner = sandbox.file("in");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(sandbox.file("secret"), vec![b's'; 1 << 20]).unwrap();
    std::fs::write(inner.join("part"), vec![0; 1 << 20]).unwrap();
    std::fs::write(inner.join("disk.vmdk"), description("FLAT \"part\" 0")).unwrap();
    std::fs::write(inner.join("disk.img"), vec![0; 1 << 20]).unwrap();
    overlay(&inner, OsStr::new("disk.qcow2"), "part");
    let secret = sandbox.file("secret").display().to_string();
    let descr = description(&format!("FLAT \"{secret}\" 0"));
    for (disk, meddle) in [
        // the same file, that names another part
        ("disk.vmdk", format!("printf '%s' '{descr}' > in/disk.vmdk")),
        ("disk.vmdk", "mv in/part in/old; ln -s ../secret in/part".to_owned()),
        ("disk.img", "mv in/disk.img in/old; ln -s ../secret in/disk.img".to_owned()),
        ("disk.qcow2", "mv in/part in/old; ln -s ../secret in/part".to_owned()),
    ] {
        meddling(&sandbox, &meddle);
        let start =
            ["qemu", "--detached", "--qemu", "./meddling", "--disk", &format!("in/{disk}"), "guest.img"];
        sandbox.run(start).fails(1, &["is not used", "hint: "]);
        sandbox.is_clean();
        // back
        std::fs::write(inner.join("disk.vmdk"), description("FLAT \"part\" 0")).unwrap();
        for name in ["part", "disk.img"] {
            if inner.join(name).is_symlink() {
                std::fs::rename(inner.join("old"), inner.join(name)).unwrap();
            }
        }
    }
    // the header alone says nothing any more
    meddling(&sandbox, "qemu-img rebase -q -u -f qcow2 -b \"$PWD/secret\" -F raw in/disk.qcow2");
    sandbox.detached(["--qemu", "./meddling", "--disk", "in/disk.qcow2", "guest.img"]);
    assert!(!open_files(&sandbox, sandbox.path()).contains(Path::new("secret")));
    assert_eq!(open_files(&sandbox, &inner), paths(&["disk.qcow2", "part"]));
    sandbox.ctl(["shutdown", "--force"]);
    sandbox.is_clean();
}

#[test]
fn the_users_own_words_for_qemu_count_from_where_he_is() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    std::fs::write(sandbox.file("own.img"), vec![0; 1 << 20]).unwrap();
    sandbox.detached(["guest.img", "--", "-drive", "if=none,id=own,format=raw,file=own.img"]);
    assert!(open_files(&sandbox, sandbox.path()).contains(Path::new("own.img")));
    sandbox.ctl(["shutdown", "--force"]);
}
