//! The fuzzer's inputs as tests, without a fuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::TARGETS;

/// A megabyte, as a client may send it, has to be dealt with in this time. Far more than is needed, but what takes minutes is seen.
const SOON: Duration = Duration::from_secs(10);
/// Of each input, so many of its beginnings are tried.
const BEGINNINGS: usize = 200;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(name)
}

fn names(folder: PathBuf) -> BTreeSet<String> {
    let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    fs::read_dir(folder).unwrap().map(|entry| name(entry.unwrap().path())).collect()
}

#[test]
fn every_target_stands_what_was_kept() {
    for target in TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(folder("corpus").join(target.name)).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            (target.run)(&bytes);
            for end in 0..bytes.len().min(BEGINNINGS) {
                (target.run)(&bytes[..end]);
            }
            inputs += 1;
        }
        assert!(inputs >= 3, "{} has {inputs} inputs", target.name);
    }
}

#[test]
fn every_target_has_a_program_and_inputs() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names(folder("fuzz_targets")), targets);
    assert_eq!(names(folder("corpus")), targets);
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for name in targets {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in Cargo.toml");
    }
}

#[test]
fn large_inputs_are_soon_dealt_with() {
    let mib = |text: &str| text.repeat((1 << 20) / text.len()).into_bytes();
    let numbered = |line: fn(usize) -> String| (0..40_000).map(line).collect::<String>().into_bytes();
    let word = mib("x");
    let calls: [(&str, serde_json::Value); 4] = [
        ("AddDisk", serde_json::json!({ "file": "/x", "format": String::from_utf8(word.clone()).unwrap() })),
        ("AddUsb", serde_json::json!({ "selector": format!("usb-kbd,{}", ",".repeat(1 << 20)) })),
        ("AddDevice", serde_json::json!({ "driver": String::from_utf8(word.clone()).unwrap() })),
        ("Wait", serde_json::json!({ "conditions": vec!["console=(a{99}){99}"; 45_000] })),
    ];
    let calls =
        calls.map(|(name, parameters)| [name.as_bytes(), b"\0", parameters.to_string().as_bytes()].concat());
    let inputs: Vec<(&str, Vec<u8>)> = vec![
        ("disk", mib("x=,")),
        ("disk", [b"x,format=", &word[..]].concat()),
        ("device", [b"a,", &numbered(|number| format!("p{number}=1,"))[..]].concat()),
        ("nic", word.clone()),
        ("names", word.clone()),
        ("condition", word.clone()),
        ("condition", mib("console=(a{99}){99}")),
        ("condition", [b"console=", &mib("(")[..]].concat()),
        ("keys", word.clone()),
        ("keys", mib("x-")),
        ("keys", mib("\u{e4}")),
        ("numbers", mib("1s")),
        ("hmp", numbered(|number| format!("n{number}: index=0,type=user,\r\n"))),
        ("hmp", numbered(|number| format!("Hub 0 (n{number}):\r\n"))),
        ("qtree", numbered(|number| format!("{}bus: b{number}\n", " ".repeat(number % 500)))),
        ("qmp_message", mib("[")),
        ("firmware", mib("*")),
    ];
    let calls = calls.map(|call| ("varlink_calls", call));
    for (name, bytes) in inputs.into_iter().chain(calls) {
        let target = TARGETS.iter().find(|target| target.name == name).unwrap();
        let began = Instant::now();
        (target.run)(&bytes);
        let shown = String::from_utf8_lossy(&bytes[..40]);
        assert!(began.elapsed() < SOON, "{name} takes {:?} for {shown}…", began.elapsed());
    }
}
