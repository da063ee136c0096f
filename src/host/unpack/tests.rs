//! Against the real programs.

use super::*;
use std::fs;
use std::io::Write;

/// A raw image of two MiB: a boot sector, holes, a last byte.
fn image() -> Vec<u8> {
    let mut image = vec![0; 2 << 20];
    image[510..512].copy_from_slice(b"\x55\xaa");
    image[(2 << 20) - 1] = 9;
    image
}

/// What a program makes of its input.
fn packed(folder: &Path, command: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(output.status.success(), "{command}");
    output.stdout
}

fn unpacked(folder: &Path, name: &str, bytes: &[u8]) -> Result<(Unpacked, Vec<u8>), UnpackError> {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    let foreign = match image::inspect(&path) {
        Err(ImageError::Foreign { foreign, .. }) => foreign,
        other => panic!("{name}: {other:?}"),
    };
    let source = Source::open(&path).unwrap();
    let packing = foreign.packing().unwrap();
    let unpacked = unpack(&source, packing, &folder.join("unpacked.part"), &mut |_| {})?;
    assert_eq!(unpacked.checksum, source.checksum().unwrap());
    let mut read = Vec::new();
    let mut file = unpacked.file.file();
    file.rewind().unwrap();
    file.read_to_end(&mut read).unwrap();
    Ok((unpacked, read))
}

fn left(folder: &Path) -> Vec<String> {
    let mut left: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    left
}

#[test]
fn every_packing_and_packings_in_packings_come_off() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("disk.raw"), image()).unwrap();
    fs::write(root.path().join("readme.txt"), "x").unwrap();
    for (name, command) in [
        ("a.xz", "xz -c"),
        ("a.gz", "gzip -c"),
        ("a.zst", "zstd -qc"),
        ("a.bz2", "bzip2 -c"),
        ("a.tar", "tar -cf - readme.txt disk.raw"),
        // as Google's images are made
        ("a.tar.gz", "tar --format=oldgnu -Sczf - disk.raw"),
        ("a.xz.gz", "xz -c | gzip -c"),
        ("a.lz4", "lz4 -qc"),
        // one that is not compressed, and one of several files
        ("a.zip", "zip -q -0 - disk.raw"),
        ("b.zip", "zip -q - readme.txt disk.raw"),
        ("c.zip", "gzip -kc disk.raw > disk.raw.gz; zip -q - readme.txt disk.raw.gz; rm disk.raw.gz"),
    ] {
        let (unpacked, bytes) = unpacked(root.path(), name, &packed(root.path(), command, &image())).unwrap();
        assert!(bytes == image(), "{name}");
        assert_eq!(unpacked.format, ImageFormat::Raw, "{name}");
    }
    // holes where the zeros are
    let (unpacked, _) = unpacked(root.path(), "a.xz", &packed(root.path(), "xz -c", &image())).unwrap();
    assert!(unpacked.file.file().metadata().unwrap().blocks() * 512 <= 256 << 10);
    assert!(left(root.path()).iter().all(|name| !name.contains("unpacked")), "{:?}", left(root.path()));
}

#[test]
fn the_disk_of_an_appliance_can_be_written_to() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("disk.raw"), image()).unwrap();
    fs::write(root.path().join("box.ovf"), "<Envelope/>").unwrap();
    let made = "qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw box-disk1.vmdk >&2 && tar -cf - box.ovf box-disk1.vmdk";
    let ova = packed(root.path(), made, b"");
    let (unpacked, bytes) = unpacked(root.path(), "box.ova", &ova).unwrap();
    assert_eq!(unpacked.format, ImageFormat::Qcow2);
    assert!(bytes.starts_with(b"QFI\xfb"));
}

#[test]
fn an_appliances_disk_takes_no_more_room_than_there_is() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("disk.raw"), vec![7; 4 << 20]).unwrap();
    let made = "qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw disk.vmdk >&2; cat disk.vmdk; rm disk.vmdk";
    let path = root.path().join("copy.vmdk");
    let vmdk = NewFile::create(&path).unwrap();
    vmdk.file().write_all_at(&packed(root.path(), made, b""), 0).unwrap();
    let facts = image::inspect(&of_descriptor(vmdk.file())).unwrap();
    let name = root.path().join("disk.qcow2");
    match converted(&vmdk, &facts, &name, 1 << 20) {
        Err(UnpackError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(!name.exists());
    converted(&vmdk, &facts, &name, 16 << 20).unwrap();
}

#[test]
fn what_is_no_disk_or_not_whole_is_told_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path();
    fs::write(at.join("a.txt"), "x").unwrap();
    fs::write(at.join("b.txt"), "x").unwrap();
    let half = |command: &str| {
        let whole = packed(at, command, &image());
        whole[..whole.len() / 2].to_owned()
    };
    let cut = half("xz -c");
    fs::write(at.join("disk.raw"), image()).unwrap();
    for (name, bytes, words) in [
        ("cut.xz", cut, &["xz has failed", "nexpected end"][..]),
        ("page.gz", packed(at, "gzip -c", b"<html>no"), &["web page"]),
        ("empty.gz", packed(at, "gzip -c", b""), &["an empty file"]),
        ("link.gz", packed(at, "gzip -c", b"/etc/passwd"), &["less than a sector"]),
        ("texts.tar", packed(at, "tar -cf - a.txt b.txt", b""), &["no disk image", "'a.txt'"]),
        ("cut.lz4", half("lz4 -qc"), &["lz4 has failed"]),
        ("cut.zip", half("zip -q - disk.raw"), &["unzip has failed"]),
        ("texts.zip", packed(at, "zip -q - a.txt b.txt", b""), &["no disk image", "'a.txt'"]),
        (
            "pattern.zip",
            packed(at, "cp disk.raw 'a[1].img'; zip -q - 'a[1].img'; rm 'a[1].img'", b""),
            &["unzip cannot be told"],
        ),
        ("deep.gz", packed(at, "gzip -c|gzip -c|gzip -c|gzip -c|gzip -c", &image()), &["more than 4 times"]),
    ] {
        let before = left(at).len();
        let error = unpacked(at, name, &bytes).map(drop).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{name}: {error}");
        assert_eq!(left(at).len(), before + 1, "{:?}", left(at));
    }
}
