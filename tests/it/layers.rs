//! The architecture, held by reading the sources: imports point down, the pure layers do no I/O, `unsafe` is in one file.

use std::path::{Path, PathBuf};

const LAYERS: [(&str, u8); 8] = [
    ("cli", 6),
    ("machine", 5),
    ("control", 4),
    ("vm", 3),
    ("qmp", 2),
    ("qemu", 2),
    ("host", 2),
    ("spec", 1),
];

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(layer, _)| *layer == name).map(|(_, level)| *level)
}

struct Source {
    /// Relative to `src`.
    path: PathBuf,
    /// Without comments, strings and test modules.
    code: String,
}

impl Source {
    /// Its module path without the crate, e.g. `["vm", "changes", "plug"]`.
    fn module(&self) -> Vec<String> {
        let mut parts: Vec<String> =
            self.path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if parts.last().is_some_and(|last| last == "mod") {
            parts.pop();
        }
        parts
    }

    fn is_test(&self) -> bool {
        let parts = self.module();
        parts.iter().any(|part| {
            part == "tests"
                || part == "testing"
                || part == "fake"
                || part == "fuzzing"
                || part.ends_with("_tests")
        })
    }
}

fn sources() -> Vec<Source> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<Source>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let code = without_noise(&std::fs::read_to_string(&path).unwrap());
                found.push(Source { path: path.strip_prefix(root).unwrap().to_owned(), code });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found.retain(|source| !source.is_test());
    assert!(found.len() > 50, "where are the sources?");
    found
}

/// Cuts comments, the contents of strings, and what follows `#[cfg(test)] mod … {`, which is last by convention.
fn without_noise(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let module = lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'));
        if line == "#[cfg(test)]" && module {
            break;
        }
        let line = line.split("//").next().unwrap_or_default();
        let outside: Vec<&str> = line.split('"').step_by(2).collect();
        code.push_str(&outside.join("\"\""));
        code.push('\n');
    }
    code
}

/// The top-level modules that a source names, by `crate::x`, `crate::{x, y}` and `super::…`.
fn imports(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (position, _) in source.code.match_indices("crate::") {
        let rest = &source.code[position + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split(';').next().unwrap_or_default();
                found.extend(list.split(',').map(first_word));
            }
            None => found.push(first_word(rest)),
        }
    }
    let depth = source.module().len();
    // as many steps up as the module is deep leave the layer
    let leaves = climbs(source).into_iter().filter(|(up, _)| *up >= depth);
    found.extend(leaves.map(|(_, rest)| first_word(rest)));
    found
}

/// Each `super::super::…` of a source: how many steps up, and what follows.
fn climbs(source: &Source) -> Vec<(usize, &str)> {
    let starts = source.code.match_indices("super::").map(|(position, _)| position);
    let starts = starts.filter(|position| !source.code[..*position].ends_with("super::"));
    starts
        .map(|position| {
            let (mut rest, mut up) = (&source.code[position..], 0);
            while let Some(after) = rest.strip_prefix("super::") {
                (rest, up) = (after, up + 1);
            }
            (up, rest)
        })
        .collect()
}

/// The parts of `src/vm`, from the lowest up: each uses itself and those before it. Those of one row use each other, and why.
const ROOMS: [(&[&str], &str); 16] = [
    (&["error"], ""),
    (&["signals"], ""),
    (&["start_error"], ""),
    (&["steps"], ""),
    (&["state"], ""),
    (&["process"], ""),
    (&["console"], ""),
    (&["unsupervised"], ""),
    (&["look"], ""),
    (&["change"], ""),
    (
        &["bus", "handle", "guest", "wait", "stats"],
        "the methods of a handle are in one file for each of its subjects",
    ),
    (&["parts"], ""),
    (
        &["owner", "changes", "events", "ladder"],
        "the methods of the owner are in one file for each kind of change",
    ),
    (&["running"], ""),
    (&["launch"], ""),
    (&["takeover"], ""),
];

/// The parts of `src/vm` that a source there names: `crate::vm::x`, `crate::vm::{x, y}`, and `super::…` that ends there.
fn rooms(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (position, word) in source.code.match_indices("crate::vm::") {
        let rest = &source.code[position + word.len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(list.split(['}', ';']).next().unwrap().split(',').map(first_word)),
            None => found.push(first_word(rest)),
        }
    }
    let depth = source.module().len();
    let rooms = climbs(source).into_iter().filter(|(up, _)| up + 1 == depth);
    found.extend(rooms.map(|(_, rest)| first_word(rest)));
    found
}

#[test]
fn the_rooms_of_the_vm_are_in_an_order() {
    let level = |room: &str| ROOMS.iter().position(|(names, _)| names.contains(&room));
    let (mut wrong, mut used) = (Vec::new(), std::collections::BTreeSet::new());
    for source in sources().iter().filter(|source| source.module()[0] == "vm" && source.module().len() > 1) {
        let room = source.module()[1].clone();
        let own = level(&room).unwrap_or_else(|| panic!("{room} has no row in ROOMS"));
        for other in rooms(source).into_iter().filter(|other| *other != room) {
            // names that `vm/mod.rs` exports have no room of their own here: say where they are
            match level(&other) {
                Some(level) if level <= own => drop(used.insert((own, level))),
                _ => wrong.push(format!("{} uses {other}", source.path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "move what both need to a lower room: {wrong:#?}");
    assert!(used.len() > 40, "the reader of imports sees too little: {used:?}");
    for (names, why) in ROOMS {
        assert_eq!(names.len() > 1, !why.is_empty(), "{names:?}");
    }
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        let Some(own) = module.first().and_then(|name| layer(name)) else {
            assert!(matches!(module[0].as_str(), "lib" | "main"), "{module:?} is in no layer");
            continue;
        };
        for name in imports(&source) {
            // siblings of layer 2 may use each other's data, which is how `qmp` knows what a command is
            if layer(&name).is_some_and(|other| other > own) {
                wrong.push(format!("{} uses {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn spec_and_qemu_are_pure() {
    let forbidden = [
        "tokio",
        "std::fs",
        "std::process",
        "File::open",
        "UnixStream",
        "UnixListener",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        " nix::",
        "libc::",
        "std::env::var",
        "SystemTime::now",
        "Instant::now",
    ];
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| matches!(source.module()[0].as_str(), "spec" | "qemu")) {
        for word in forbidden.iter().filter(|word| source.code.contains(*word)) {
            wrong.push(format!("{} has {word}", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Where the wall clock is read, or its time is converted, and why: only to show a time. Deadlines and durations use clocks that
/// cannot be set.
const WALL_CLOCK: [(&str, &str); 16] = [
    ("cli/ctl/snapshot_list.rs", "when a snapshot was made"),
    ("cli/ended.rs", "when a VM ended"),
    ("cli/logger.rs", "the time of a line of the log"),
    ("cli/templates.rs", "when a template was used"),
    ("host/dirs/records.rs", "the age of a record, which outlives the machine's run"),
    ("host/image/identity.rs", "when a file was born, as part of its identity"),
    ("host/made.rs", "when a file was born, as part of its identity"),
    ("host/template_cache.rs", "when a template was used, which outlives the machine's run"),
    ("qmp/event.rs", "when QEMU says that it was"),
    ("qmp/transcript.rs", "the time of a line of the transcript"),
    ("vm/bus.rs", "the time of an event"),
    ("vm/guest/clock.rs", "the time that a guest's clock is set to"),
    ("vm/launch/start/facts.rs", "when the VM was started"),
    ("vm/state/record.rs", "when a VM ended; its record outlives the machine's run"),
    ("vm/stats.rs", "the time of the figures"),
    ("vm/takeover/wrap/mod.rs", "when the VM was started"),
];

#[test]
fn the_wall_clock_is_read_to_be_told_only() {
    let words = ["SystemTime", "UNIX_EPOCH", "CLOCK_REALTIME", ".modified()", ".accessed()", "time::now("];
    let reads = |source: &&Source| words.iter().any(|word| source.code.contains(word));
    let found: Vec<String> =
        sources().iter().filter(reads).map(|source| source.path.display().to_string()).collect();
    let mut found: Vec<&str> = found.iter().map(String::as_str).collect();
    found.sort_unstable();
    let known: Vec<&str> = WALL_CLOCK.iter().map(|(path, _)| *path).collect();
    assert_eq!(found, known, "a deadline or a duration must not go by a clock that can be set");
    // no such time is subtracted from another
    for source in sources().iter().filter(|source| known.contains(&source.path.to_str().unwrap())) {
        let count = |word: &str| source.code.matches(word).count();
        assert_eq!(
            count("duration_since("),
            count("duration_since(UNIX_EPOCH)"),
            "{}",
            source.path.display()
        );
    }
}

/// Where files and folders are removed or get another name, and why nothing of anybody else's goes.
const REMOVES: [(&str, &str); 7] = [
    (
        "host/dirs/directory/files.rs",
        "a file that is written in one step gets its name, in an open folder of vmrun's own",
    ),
    ("host/dirs/own.rs", "the one place that removes: by an open folder"),
    ("host/dirs/run.rs", "a run directory loses its name, in an open folder of vmrun's own"),
    ("host/dirs/run/making.rs", "a run directory gets its name, in an open folder of vmrun's own"),
    ("host/made.rs", "a file that was made replaces another, once it is seen to be that file"),
    ("host/saved/writing.rs", "a saved VM gets a name that is free"),
    ("host/template.rs", "a template gets a name that is free"),
];
/// Who calls the one place that removes: with a name in a folder of vmrun's own, or after a look at the file.
const CALLS: [(&str, &str); 10] = [
    ("host/dirs/directory/files.rs", "in a folder that was opened and is the user's own"),
    ("host/dirs/ephemeral.rs", "a state directory that bears the mark"),
    ("host/dirs/leftover.rs", "a state directory whose image is gone, when the user wants that"),
    ("host/dirs/nowhere.rs", "the empty folder in a run directory"),
    ("host/dirs/run.rs", "a run directory that bears the mark"),
    ("host/dirs/run/making.rs", "a run directory that bears the mark"),
    ("host/dirs/socket.rs", "a socket that nobody listens on"),
    ("host/dirs/state_made.rs", "what a start has put into a state directory that was not there before"),
    ("host/made.rs", "the very file that was made, by device, inode and birth"),
    ("host/template.rs", "the folder of a template that did not become whole, which bears the mark"),
];

#[test]
fn files_are_removed_in_one_place() {
    let is_found = |words: &[&str]| {
        let mut found: Vec<String> = sources()
            .iter()
            .filter(|source| words.iter().any(|word| source.code.contains(word)))
            .map(|source| source.path.display().to_string())
            .collect();
        found.sort();
        found
    };
    let named = |list: &[(&str, &str)]| list.iter().map(|(path, _)| (*path).to_owned()).collect::<Vec<_>>();
    let removes =
        ["remove_file(", "remove_dir", "unlinkat(", "unlink,", "unlink}", "unistd::unlink", "fs::rename"];
    let renames = ["renameat", "hard_link", "rename2", "rename_to_free_name("];
    let found = is_found(&[&removes[..], &renames].concat());
    assert_eq!(found, named(&REMOVES), "use MadeFile, or Directory in a folder of vmrun's own");
    let calls = [
        "own::remove(",
        "own::remove_empty(",
        "own::empty(",
        "empty(&folder",
        "remove_file_in(",
        "remove_empty_in(",
    ];
    assert_eq!(is_found(&calls), named(&CALLS), "use MadeFile, or Directory in a folder of vmrun's own");
    // a name from an open file: to have one, not to take one
    assert_eq!(is_found(&["linkat("]).len(), 2, "host/sys.rs and own.rs's unlinkat");
}

/// Where standard output and standard error are named, and what for.
const PRINTS: [(&str, &str); 5] = [
    ("cli/output.rs", "everything for people and programs, made visible; streams that are somebody else's"),
    (
        "machine/last_words.rs",
        "the console's end beside the panic of a test, by the macro that its runner catches",
    ),
    (
        "vm/console/foreground.rs",
        "line wrapping, which firmware turns off, and no colours, on a terminal that is left",
    ),
    ("vm/console/stdio.rs", "the guest's console on our standard streams"),
    ("vm/console/terminal.rs", "the guest's console on a terminal, and its keys"),
];

#[test]
fn one_module_prints() {
    let words = [
        "stdout()",
        "stderr()",
        "print!(",
        "println!(",
        "dbg!(",
        ".exit()",
        "write_stdout",
        "STDOUT_FILENO",
        "STDERR_FILENO",
    ];
    // clap's word for where an error goes
    let prints = |source: &&Source| {
        let code = source.code.replace("use_stderr()", "");
        words.iter().any(|word| code.contains(word))
    };
    let mut found: Vec<String> =
        sources().iter().filter(prints).map(|source| source.path.display().to_string()).collect();
    found.sort();
    let known: Vec<&str> = PRINTS.iter().map(|(path, _)| *path).collect();
    assert_eq!(found, known, "print by cli/output.rs, which makes visible what would steer a terminal");
}

/// A query of QEMU that is needed twice is in `qemu/query.rs`, or beside the reader of its answer.
#[test]
fn a_query_of_qemu_is_written_in_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut places = std::collections::BTreeMap::<String, std::collections::BTreeSet<PathBuf>>::new();
    for source in sources() {
        let text = std::fs::read_to_string(root.join(&source.path)).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for start in ["Command::new(\"query-", "plain(\"query-", "Command::hmp(\"info ", ".hmp(\"info "] {
            for (position, _) in text.match_indices(start) {
                let name = text[position..].split('"').nth(1).unwrap();
                places.entry(name.to_owned()).or_default().insert(source.path.clone());
            }
        }
    }
    assert!(places.len() > 12, "where are the queries? {places:?}");
    places.retain(|_, files| files.len() > 1);
    assert!(places.is_empty(), "{places:#?}");
}

#[test]
fn unsafe_is_in_one_file() {
    for source in sources() {
        let unsafe_code = source.code.lines().any(|line| {
            line.contains("unsafe ") || line.contains("unsafe{") || line.contains("allow(unsafe_code)")
        });
        let allowed = source.path.starts_with("host/sys") || source.path == Path::new("host/sys.rs");
        assert!(allowed || !unsafe_code, "{}", source.path.display());
    }
}

#[test]
fn the_reader_of_imports_sees_what_is_there() {
    let code = "use crate::spec::Size;\nuse crate::{vm::Handle, cli};\nuse super::super::control::x;\nuse super::y;\n";
    let source = Source { path: "vm/handle.rs".into(), code: code.to_owned() };
    assert_eq!(imports(&source), ["spec", "vm", "cli", "control"]);
    let code = "use crate::vm::look;\nuse crate::vm::{Handle, state::facts};\nuse super::super::owner;\nuse super::y;\n";
    let source = Source { path: "vm/launch/start.rs".into(), code: code.to_owned() };
    assert_eq!(rooms(&source), ["look", "Handle", "state", "owner"]);
    assert_eq!(
        without_noise("a // crate::cli\nb(\"crate::cli\")\n#[cfg(test)]\nmod tests {\ncrate::cli"),
        "a \nb(\"\")\n"
    );
}

/// A test that prints why it does nothing, and returns, counts as passed.
#[test]
fn no_test_passes_without_testing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders = vec![root.join("src"), root.join("tests/it")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false => files.push(entry),
            }
        }
    }
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        let tests = match file.starts_with(root.join("src")) {
            true => text.split_once("#[cfg(test)]\nmod tests {").map_or("", |(_, tests)| tests),
            false => &text,
        };
        let lines: Vec<&str> = tests.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            let next = lines.get(number + 1).copied().unwrap_or_default();
            let prints = line.starts_with("println!(\"") || line.starts_with("eprintln!(\"");
            let excuse = line.to_lowercase();
            let excuse = excuse.contains("skip") || excuse.contains("not tested");
            let asks = line.starts_with("if ")
                && (line.contains("is_root()") || line.contains(".output().is_err() {"));
            if prints && excuse || asks && next == "return;" {
                wrong.push(format!("{}: {line}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "let the runner ignore a test that lacks something, see build.rs: {wrong:#?}");
}
