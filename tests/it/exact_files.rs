//! QEMU opens exactly the files that were meant, and no other, whatever they are called: a property of any name, held against the
//! descriptors of the real QEMU. Beside each file lie those that somebody would get who cut its name at a special character.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::boot_sector::{self, Guest};
use crate::support::chance::repetitions;
use crate::support::sandbox::{Done, Sandbox};

/// What a parser splits, decodes or mistakes.
const PIECES: [&[u8]; 32] = [
    b",",
    b",,",
    b"=",
    b":",
    b";",
    b"'",
    b"\"",
    b"\\",
    b"\n",
    b"\r",
    b"\t",
    b"%",
    b"%00",
    b"%2C",
    b" ",
    b"-",
    b"--",
    b"~",
    b"$HOME",
    b"file:",
    b"file=",
    b"json:{",
    b"nbd:",
    b"fat:rw:",
    b"snapshot=on",
    b"readonly=on",
    b".qcow2",
    b"#",
    b"?",
    b"\xff",
    "ü".as_bytes(),
    b"a",
];
/// A name may have 255 bytes, and `-state` and the like are put behind it.
const LONGEST: usize = 200;

/// Part of a path: any bytes but `/` and NUL.
fn component() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::collection::vec(prop::sample::select(&PIECES[..]), 1..8);
    let long = prop::bool::weighted(0.1);
    (pieces, long).prop_map(|(pieces, long)| {
        let mut bytes = pieces.concat();
        if long {
            bytes.resize(LONGEST, b'n');
        }
        bytes
    })
}

/// As it is typed: sometimes in a folder, which makes `nbd://…` of `nbd:`. `mark` tells it from the case's others.
fn path(mark: u8) -> impl Strategy<Value = PathBuf> {
    (prop::option::of(component()), prop::bool::ANY, component()).prop_map(move |(folder, twice, name)| {
        let mut typed = Vec::new();
        if let Some(mut folder) = folder {
            folder.push(mark);
            typed.extend(folder);
            typed.extend(if twice { &b"//"[..] } else { b"/" });
        }
        typed.extend(name);
        typed.push(mark);
        PathBuf::from(OsString::from_vec(typed))
    })
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&PIECES[..]), 1..5)
        .prop_map(|pieces| String::from_utf8_lossy(&pieces.concat()).into_owned())
}

#[derive(Debug, Clone)]
struct Case {
    image: PathBuf,
    disk: PathBuf,
    later: PathBuf,
    state: PathBuf,
    serial: String,
    name: String,
    /// What is added later is a stick, and not a disk.
    stick: bool,
}

fn case() -> impl Strategy<Value = Case> {
    (path(b'1'), path(b'2'), path(b'3'), path(b'4'), text(), text(), prop::bool::ANY).prop_map(
        |(image, disk, later, state, serial, name, stick)| Case {
            image,
            disk,
            later,
            state,
            serial,
            name,
            stick,
        },
    )
}

/// `key=value` with the commas of the value doubled.
fn option(key: &str, value: &OsStr) -> Vec<u8> {
    let mut text = format!("{key}=").into_bytes();
    for byte in value.as_bytes() {
        text.extend(std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }));
    }
    text
}

/// Files by what they are, since a name may be anything.
type Identity = (u64, u64);

fn identity(path: &Path) -> Identity {
    let facts = std::fs::metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    (facts.dev(), facts.ino())
}

/// The files that a process has open, those without a name left out.
fn open_files(pid: &Value) -> BTreeSet<Identity> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let files = entries.filter_map(|entry| {
        let link = std::fs::read_link(entry.path()).ok()?;
        let facts = std::fs::metadata(entry.path()).ok()?;
        let named = facts.is_file() && !link.as_os_str().as_bytes().starts_with(b"/memfd:");
        named.then_some((facts.dev(), facts.ino()))
    });
    files.collect()
}

/// Everything below a folder.
fn tree(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        found.insert(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found
}

/// What is left of a name that is cut at any byte with a meaning to a parser.
fn cuts(name: &OsStr) -> BTreeSet<Vec<u8>> {
    let bytes = name.as_bytes();
    let special = |byte: u8| !byte.is_ascii_alphanumeric();
    let places = (0..bytes.len()).filter(|place| special(bytes[*place]));
    let mut parts: BTreeSet<Vec<u8>> =
        places.flat_map(|place| [bytes[..place].to_vec(), bytes[place + 1..].to_vec()]).collect();
    // and what a decoder makes of it
    let text = String::from_utf8_lossy(bytes);
    parts.insert(text.replace("%2C", ",").into_bytes());
    parts.insert(text.replace(",,", ",").into_bytes());
    parts.insert(text.trim().as_bytes().to_vec());
    parts.retain(|part| !part.is_empty() && part != b"." && part != b".." && part != bytes);
    parts
}

/// Makes a file, and beside it those that it could be taken for.
fn place(sandbox: &Sandbox, typed: &Path, make: impl FnOnce(&Path)) -> PathBuf {
    let path = sandbox.file(typed);
    let folder = path.parent().unwrap();
    std::fs::create_dir_all(folder).unwrap();
    make(&path);
    for cut in cuts(path.file_name().unwrap()) {
        // never over what is there: a folder, or a file of the case
        let decoy = folder.join(OsStr::from_bytes(&cut));
        if let Ok(mut file) = std::fs::File::options().write(true).create_new(true).open(decoy) {
            std::io::Write::write_all(&mut file, &[0xdd; 512]).unwrap();
        }
    }
    path
}

/// A path that begins like a flag is typed with a folder, as everywhere.
fn argument(typed: &Path) -> OsString {
    match typed.as_os_str().as_bytes().starts_with(b"-") {
        true => Path::new(".").join(typed).into(),
        false => typed.into(),
    }
}

/// Starts it; a name or serial that is refused as such is left out, and the refusal says which it was.
fn start(sandbox: &Sandbox, case: &Case) -> (Option<String>, Option<String>) {
    let (mut name, mut serial) = (Some(case.name.clone()), Some(case.serial.clone()));
    loop {
        let mut disk = option("file", case.disk.as_os_str());
        disk.extend(b",id=data,format=raw");
        if let Some(serial) = &serial {
            disk.push(b',');
            disk.extend(option("serial", OsStr::new(serial)));
        }
        let mut command = sandbox.vmrun();
        command.args(["qemu", "--detached", "--disk"]).arg(OsString::from_vec(disk));
        if let Some(name) = &name {
            command.arg(format!("--name={name}"));
        }
        command.arg("--state").arg(argument(&case.state)).arg(argument(&case.image));
        let done = Done::of(command.output().unwrap());
        match done.code {
            0 => return (name, serial),
            2 if name.is_some() && done.stderr.contains("--name") => name = None,
            2 if serial.is_some() && done.stderr.contains("serial") => serial = None,
            _ => panic!("{case:?}: {done:#?}"),
        }
    }
}

fn holds(case: &Case) {
    let sandbox = Sandbox::new();
    let image = place(&sandbox, &case.image, |path| boot_sector::write(Guest::Halted, path));
    let data = |path: &Path| std::fs::write(path, vec![0; 1 << 20]).unwrap();
    let disk = place(&sandbox, &case.disk, data);
    let later = place(&sandbox, &case.later, data);
    let state = place(&sandbox, &case.state, |path| std::fs::create_dir(path).unwrap());
    let before = tree(sandbox.path());
    let (name, serial) = start(&sandbox, case);

    let status = sandbox.ctl_json(["status"]);
    if let Some(name) = &name {
        assert_eq!(status["name"], *name);
    }
    let mut meant = BTreeSet::from([identity(&image), identity(&disk)]);
    assert_eq!(open_files(&status["qemu_pid"]), meant, "{case:?}");
    let get = json!({ "execute": "qom-get", "arguments": { "path": "/machine/peripheral/data", "property": "serial" } });
    let told = sandbox.ctl_json(["qmp", &get.to_string()]);
    assert_eq!(told.as_str().unwrap_or_default(), serial.unwrap_or_default(), "{case:?}");

    let add = OsString::from_vec(option("file", case.later.as_os_str()));
    let added = sandbox.ctl([OsStr::new(if case.stick { "usb-add" } else { "disk-add" }), &add]);
    match case.later.to_str() {
        Some(_) => {
            added.ok();
            meant.insert(identity(&later));
        }
        None => drop(added.fails(2, &["is not UTF-8"])),
    }
    assert_eq!(open_files(&status["qemu_pid"]), meant, "{case:?}");
    assert!(state.join("mac-addr").exists(), "{case:?}");
    sandbox.ctl(["shutdown", "--force"]).ok();
    // nothing was made anywhere else
    let own = [state.clone(), sandbox.file("run"), sandbox.state_home()];
    let ours = |path: &&PathBuf| !own.iter().any(|own| path.starts_with(own));
    let made: Vec<_> = tree(sandbox.path()).difference(&before).filter(ours).cloned().collect();
    assert!(made.is_empty(), "{case:?}: {made:?}");
}

#[test]
fn qemu_opens_exactly_the_files_that_were_meant() {
    let cases = u32::try_from(repetitions(10)).unwrap();
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 40,
        ..ProptestConfig::default()
    };
    proptest!(config, |(case in case())| holds(&case));
}
