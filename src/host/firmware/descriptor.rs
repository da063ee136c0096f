//! QEMU's firmware descriptors: docs/interop/firmware.json in its source. Read leniently, only what is used.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;

/// Larger ones are no descriptors.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) interface_types: Vec<String>,
    pub(super) mapping: Mapping,
    #[serde(default)]
    pub(super) targets: Vec<Target>,
    #[serde(default)]
    pub(super) features: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "device")]
pub(super) enum Mapping {
    #[serde(rename_all = "kebab-case")]
    Flash {
        #[serde(default)]
        mode: Mode,
        executable: FlashFile,
        nvram_template: Option<FlashFile>,
    },
    Memory {
        filename: PathBuf,
    },
    /// Linux kernels, IGVM files and whatever comes: not for us.
    #[serde(other)]
    Other,
}

/// What the flash chips hold.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    /// Code and variables in two files.
    #[default]
    Split,
    /// Code and variables in one file, which each VM would need a writable copy of.
    Combined,
    /// No variables.
    Stateless,
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
pub(super) struct FlashFile {
    pub(super) filename: PathBuf,
    #[serde(default)]
    pub(super) format: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Target {
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) machines: Vec<String>,
}

impl Descriptor {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(super) fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|found| found == feature)
    }

    pub(super) fn is_for(&self, architecture: &str, machine: &str) -> bool {
        let fits = |target: &Target| {
            target.architecture == architecture
                && target.machines.iter().any(|pattern| matches(pattern, machine))
        };
        self.interface_types.iter().any(|kind| kind == "uefi") && self.targets.iter().any(fits)
    }
}

/// The descriptors that count, in order of importance: by file name over all folders; a name in a more important folder masks
/// the same in the others, even if the file is empty or damaged.
pub(super) fn read_all(folders: &[PathBuf]) -> Vec<Descriptor> {
    let mut files = BTreeMap::<OsString, PathBuf>::new();
    for folder in folders {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                files.entry(entry.file_name()).or_insert(path);
            }
        }
    }
    let small =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.len() <= MAX_BYTES);
    files.into_values().filter(small).filter_map(|path| Descriptor::parse(&fs::read(path).ok()?)).collect()
}

/// A pattern of `targets.machines`, e.g. `pc-q35-*`, against a versioned machine type.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut pieces = rest.split('*');
    let end = pieces.next_back().unwrap_or_default();
    for piece in pieces {
        let Some(at) = text.find(piece) else { return false };
        text = &text[at + piece.len()..];
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("pc-q35-*", "pc-q35-7.2", true),
            ("pc-q35-*", "pc-i440fx-7.2", false),
            ("microvm", "microvm", true),
            ("microvm", "microvm2", false),
            ("*", "virt", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*b", "a-b", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200), pattern in "[ab*]{0,8}", text in "[ab]{0,8}") {
            let _ = Descriptor::parse(&bytes);
            let _ = matches(&pattern, &text);
        }

        #[test]
        fn any_json_gives_an_answer(device in "[a-z]{0,8}", format in "[a-z0-9]{0,6}", machine in ".{0,12}") {
            let json = serde_json::json!({
                "interface-types": ["uefi"],
                "mapping": { "device": device, "executable": { "filename": "/x", "format": format } },
                "targets": [{ "architecture": "x86_64", "machines": [machine.clone()] }],
            });
            let parsed = Descriptor::parse(json.to_string().as_bytes());
            prop_assert!(parsed.is_none_or(|descriptor| !descriptor.is_for("aarch64", &machine)));
        }
    }

    #[test]
    fn unknown_mappings_and_modes_are_no_error() {
        for mapping in [
            r#"{"device":"igvm","filename":"/x"}"#,
            r#"{"device":"flash","mode":"new","executable":{"filename":"/x"}}"#,
        ] {
            let json = format!(r#"{{"mapping":{mapping}}}"#);
            assert!(Descriptor::parse(json.as_bytes()).is_some(), "{mapping}");
        }
    }
}
