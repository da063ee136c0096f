use super::*;
use std::fs;
use std::process::Command;

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn knows_what_qemu_img_makes() {
    let root = tempfile::tempdir().unwrap();
    for (name, format, sized) in [
        ("raw", ImageFormat::Raw, true),
        ("qcow2", ImageFormat::Qcow2, true),
        ("vmdk", ImageFormat::Vmdk, true),
        ("vdi", ImageFormat::Vdi, true),
        ("vhdx", ImageFormat::Vhdx, false),
        ("vpc", ImageFormat::Vpc, false),
        ("qed", ImageFormat::Qed, true),
    ] {
        let path = root.path().join(name);
        qemu_img(&["create", "-q", "-f", name, path.to_str().unwrap(), "64M"]);
        let facts = inspect(&path).unwrap();
        assert_eq!(facts.format, format, "{name}");
        assert_eq!(facts.virtual_size_bytes, sized.then_some(64 << 20), "{name}");
        assert_eq!((facts.backing, facts.data_files.len()), (None, 0), "{name}");
    }
}

/// What QEMU takes a file for, left to itself; none if it took it for something and then could not open it.
fn probed_by_qemu(path: &Path) -> Option<String> {
    let output = Command::new("qemu-img").args(["info", "--output=json"]).arg(path).output().unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    facts["format"].as_str().map(str::to_owned)
}

#[test]
fn nothing_that_qemu_takes_for_something_else_is_raw() {
    let root = tempfile::tempdir().unwrap();
    let written = |name: &str, offset: usize, mark: &[u8]| {
        let path = root.path().join(name);
        let mut bytes = vec![0; 64 << 10];
        bytes[offset..offset + mark.len()].copy_from_slice(mark);
        fs::write(&path, bytes).unwrap();
        path
    };
    let made = |format: &str, options: &str| {
        let path = root.path().join(format!("{format}{options}"));
        let name = path.to_str().unwrap();
        match options {
            "" => qemu_img(&["create", "-q", "-f", format, name, "64M"]),
            _ => qemu_img(&["create", "-q", "-f", format, "-o", options, name, "64M"]),
        }
        path
    };
    let mut parallels = b"WithoutFreeSpace\x02\0\0\0".to_vec();
    let bochs =
        [&b"Bochs Virtual HD Image"[..], &[0; 10], b"Redolog", &[0; 9], b"Growing", &[0; 9], b"\0\0\x02\0"];
    let bochs = bochs.concat();
    let cloop = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";
    let mut files = vec![
        written("parallels", 0, &parallels),
        written("bochs", 0, &bochs),
        written("cloop", 0, cloop),
        written("qcow", 0, b"QFI\xfb\0\0\0\x01"),
        written("qcow2", 0, b"QFI\xfb\0\0\0\x02"),
        written("qcow3", 0, b"QFI\xfb\0\0\0\x03"),
        written("qed", 0, b"QED\0"),
        written("vdi", 0x40, b"\x7f\x10\xda\xbe"),
        written("vhdx", 0, b"vhdxfile"),
        written("vpc", 0, b"conectix"),
        written("vmdk3", 0, b"COWD"),
        written("vmdk4", 0, b"KDMV"),
        written("vmdk.text", 0, b"# comment\nversion=1\nCID=1\n"),
        written("luks", 0, b"LUKS\xba\xbe\0\x01"),
        written("apple.dmg", 0, b""),
        made("vpc", "subformat=dynamic"),
        made("vmdk", "subformat=monolithicFlat"),
        made("vmdk", "subformat=streamOptimized"),
    ];
    parallels[..16].copy_from_slice(b"WithouFreSpacExt");
    files.push(written("parallels.ext", 0, &parallels));
    // not luks: qemu-img measures the processor for its key, and fails on a machine that is busy
    let made = ["qcow", "qcow2", "qed", "vdi", "vhdx", "vmdk", "parallels"];
    for format in made {
        let path = root.path().join(format!("made.{format}"));
        let name = path.to_str().unwrap();
        qemu_img(&["create", "-q", "-f", format, name, "1M"]);
        files.push(path);
    }
    for path in &files {
        let name = path.display();
        assert_ne!(probed_by_qemu(path).as_deref(), Some("raw"), "{name} shows nothing here");
        let ours = inspect(path);
        assert!(!matches!(&ours, Ok(facts) if facts.format == ImageFormat::Raw), "{name}: {ours:?}");
    }
    assert_eq!(probed_by_qemu(&written("raw", 0, b"")).as_deref(), Some("raw"));
}

#[test]
fn a_vhd_of_fixed_size_is_known_by_its_end() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("fixed.vhd");
    qemu_img(&["create", "-q", "-f", "vpc", "-o", "subformat=fixed", path.to_str().unwrap(), "8M"]);
    assert_eq!(fs::read(&path).unwrap()[..8], [0; 8]);
    assert_eq!(inspect(&path).unwrap().format, ImageFormat::Vpc);
    // a dynamic one that has lost its beginning
    let bytes = fs::read(&path).unwrap();
    let mut lost = bytes.clone();
    lost[bytes.len() - 512 + 63] = 3;
    fs::write(&path, lost).unwrap();
    assert!(matches!(inspect(&path), Err(ImageError::Damaged { .. })));
}

#[test]
fn says_what_is_wrong() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::write(at("empty"), "").unwrap();
    fs::write(at("luks"), b"LUKS\xba\xbe\0\x02").unwrap();
    fs::write(at("short"), b"QFI\xfb\0\0\0\x03").unwrap();
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(inspect(&at("none")), Err(ImageError::Missing(_))));
    assert!(matches!(inspect(root.path()), Err(ImageError::Directory(_))));
    assert!(matches!(inspect(&at("empty")), Err(ImageError::Empty(_))));
    assert!(matches!(inspect(&at("luks")), Err(ImageError::Luks(_))));
    assert!(matches!(inspect(&at("short")), Err(ImageError::Damaged { .. })));
    assert!(matches!(inspect(&at("pipe")), Err(ImageError::Special(_))));
    assert!(matches!(inspect(Path::new("/dev/null")), Err(ImageError::Special(_))));
}

#[test]
fn a_contradiction_is_an_error_but_anything_may_be_raw() {
    let path = Path::new("a");
    check_format(path, ImageFormat::Raw, ImageFormat::Qcow2).unwrap();
    let error = check_format(path, ImageFormat::Qcow2, ImageFormat::Raw).unwrap_err();
    assert_eq!(error.to_string(), "a is raw, not qcow2");
}
