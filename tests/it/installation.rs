//! `make install` and `uninstall`, the packages, and what the installed program says of itself.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::sandbox::{Done, Sandbox};

/// The program under test as it would be released: without what only a debugger needs.
fn stripped(sandbox: &Sandbox) -> PathBuf {
    let program = sandbox.file("built/vmrun");
    if !program.exists() {
        std::fs::create_dir(sandbox.file("built")).unwrap();
        let strip =
            Command::new("strip").arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_vmrun")).status().unwrap();
        assert!(strip.success());
    }
    program
}

/// Runs a target of the Makefile with the program under test.
fn make(sandbox: &Sandbox, target: &str, variables: &[(&str, &Path)]) -> Done {
    let mut command = sandbox.program("make");
    command.args(["--no-print-directory", "-C", env!("CARGO_MANIFEST_DIR"), target]);
    command.arg(format!("PROGRAM={}", stripped(sandbox).display()));
    command.args(variables.iter().map(|(name, value)| format!("{name}={}", value.display())));
    // of a make that runs the tests
    command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS");
    Done::of(command.output().unwrap())
}

/// All that is below a folder: mode and contents of files, nothing of folders.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Option<(u32, Vec<u8>)>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Option<(u32, Vec<u8>)>>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_dir() {
                found.insert(name, None);
                walk(root, &path, found);
            } else {
                let mode = path.metadata().unwrap().permissions().mode() & 0o777;
                found.insert(name, Some((mode, std::fs::read(&path).unwrap())));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

fn text(tree: &BTreeMap<PathBuf, Option<(u32, Vec<u8>)>>, file: &str) -> String {
    let Some(Some((_, bytes))) = tree.get(Path::new(file)) else { panic!("no {file} in {:#?}", tree.keys()) };
    String::from_utf8(bytes.clone()).unwrap()
}

#[test]
fn what_is_installed_works_and_is_uninstalled_without_a_rest() {
    let sandbox = Sandbox::new();
    let root = sandbox.file("root");
    std::fs::create_dir(&root).unwrap();
    let places: &[(&str, &Path)] = &[("DESTDIR", &root), ("PREFIX", Path::new("/opt/vmrun"))];
    make(&sandbox, "install", places).ok();
    let installed = tree(&root);
    let at = |file: &str| format!("opt/vmrun/{file}");
    for (path, file) in &installed {
        let Some((mode, _)) = file else { continue };
        let is_program = ["bin/vmrun", "slurm/vmrun-jobs"].iter().any(|program| path.ends_with(program))
            || path.extension().is_some_and(|name| name == "sh" || name == "py");
        assert!(*mode == 0o644 || (is_program && *mode == 0o755), "{}: {mode:o}", path.display());
    }
    // the program, and what it prints for man and the shells
    let program = root.join(at("bin/vmrun"));
    let run = |arguments: &[&str]| {
        Done::of(sandbox.program(&program).args(arguments).output().unwrap()).ok().stdout
    };
    assert!(run(&["--version"]).starts_with("vmrun "));
    let pages = run(&["manual", "--list"]);
    for page in pages.lines() {
        assert_eq!(text(&installed, &at(&format!("share/man/man1/{page}.1"))), run(&["manual", page]));
    }
    for (shell, file) in [
        ("bash", "share/bash-completion/completions/vmrun"),
        ("zsh", "share/zsh/site-functions/_vmrun"),
        ("fish", "share/fish/vendor_completions.d/vmrun.fish"),
    ] {
        assert_eq!(text(&installed, &at(file)), run(&["completions", shell]));
    }
    for unit in ["lib/systemd/system/vmrun@.service", "share/systemd/user/vmrun@.service"] {
        assert!(text(&installed, &at(unit)).contains("\nExecStart=/opt/vmrun/bin/vmrun qemu "), "{unit}");
    }
    assert!(text(&installed, &at("share/doc/vmrun/examples/script.sh")).starts_with("#!"));
    // over it: the same, but for a file that is not part of vmrun any more; what others have put there stays
    let other = root.join(at("share/man/man1/other.1"));
    std::fs::write(&other, "").unwrap();
    let dropped = root.join(at("share/man/man1/vmrun-dropped.1"));
    std::fs::write(&dropped, "").unwrap();
    let list = root.join(at("share/vmrun/installed"));
    let listed = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, format!("{listed}share/man/man1/vmrun-dropped.1\n../../../outside\n")).unwrap();
    std::fs::write(sandbox.file("outside"), "").unwrap();
    make(&sandbox, "install", places).ok();
    assert!(!dropped.exists() && sandbox.file("outside").exists());
    std::fs::remove_file(&other).unwrap();
    assert_eq!(tree(&root), installed);
    std::fs::write(&other, "").unwrap();
    make(&sandbox, "uninstall", places).ok();
    let left: Vec<PathBuf> = tree(&root).into_keys().filter(|path| root.join(path).is_file()).collect();
    assert_eq!(left, [PathBuf::from(at("share/man/man1/other.1"))]);
    make(&sandbox, "uninstall", places).fails(2, &["nothing was installed there"]);
    // without others, nothing is left at all
    std::fs::remove_dir_all(root.join("opt")).unwrap();
    make(&sandbox, "install", places).ok();
    make(&sandbox, "uninstall", places).ok();
    assert!(tree(&root).is_empty(), "{:#?}", tree(&root).keys());
    // nor is a folder removed that was there before
    let local = root.join("opt/vmrun/share");
    std::fs::create_dir_all(&local).unwrap();
    make(&sandbox, "install", places).ok();
    make(&sandbox, "uninstall", places).ok();
    assert_eq!(tree(&root).into_keys().next_back(), Some(PathBuf::from("opt/vmrun/share")));
    make(&sandbox, "install", &[("DESTDIR", &root), ("PREFIX", Path::new("relative"))])
        .fails(2, &["not an absolute path"]);
}

#[test]
#[cfg_attr(lacks = "root", ignore = "needs root")]
fn the_debian_package_is_installed_and_removed_by_dpkg() {
    let sandbox = Sandbox::new();
    let packages = sandbox.file("packages");
    let package = make(&sandbox, "deb", &[("PACKAGES", &packages)]).line();
    assert!(package.contains(concat!("vmrun_", env!("CARGO_PKG_VERSION"), "_")), "{package}");
    // an installation of its own, that knows the packages of this one
    let root = sandbox.file("root");
    let database = root.join("var/lib/dpkg");
    std::fs::create_dir_all(database.join("info")).unwrap();
    std::fs::create_dir_all(database.join("updates")).unwrap();
    std::fs::copy("/var/lib/dpkg/status", database.join("status")).unwrap();
    let dpkg = |arguments: &[&str]| {
        let mut command = sandbox.program("dpkg");
        command.arg(format!("--root={}", root.display())).arg("--log=/dev/null").args(arguments);
        Done::of(command.output().unwrap())
    };
    dpkg(&["--install", &package]).ok();
    let status = dpkg(&["--status", "vmrun"]).ok().stdout;
    assert!(
        status.contains("Status: install ok installed") && status.contains("Depends: libc6 (>= 2."),
        "{status}"
    );
    let verified = dpkg(&["--verify", "vmrun"]).ok();
    assert_eq!(verified.stdout, "");
    let program = root.join("usr/bin/vmrun");
    let version = Done::of(sandbox.program(&program).arg("--version").output().unwrap()).line();
    assert_eq!(version, concat!("vmrun ", env!("CARGO_PKG_VERSION")));
    // the files are those of `make install`, where Debian wants them
    let plain = sandbox.file("plain");
    make(&sandbox, "install", &[("DESTDIR", &plain), ("PREFIX", Path::new("/usr"))]).ok();
    let ours = |root: &Path| -> Vec<String> {
        let files = tree(&root.join("usr")).into_iter().filter(|(_, file)| file.is_some());
        let names = files.map(|(path, _)| path.display().to_string().trim_end_matches(".gz").to_owned());
        let names = names.map(|name| name.replace("zsh/vendor-completions", "zsh/site-functions"));
        let names = names.map(|name| name.replace("doc/vmrun/CHANGELOG.md", "doc/vmrun/changelog"));
        let mut names: Vec<String> =
            names.filter(|name| !name.starts_with("share/vmrun/") && !name.ends_with("/copyright")).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(ours(&root), ours(&plain));
    dpkg(&["--purge", "vmrun"]).ok();
    assert!(!root.join("usr").exists(), "{:#?}", tree(&root.join("usr")).keys());
}

#[test]
#[cfg_attr(lacks = "rpmbuild", ignore = "needs rpmbuild")]
#[cfg_attr(lacks = "root", ignore = "needs root")]
fn the_rpm_has_the_files_of_make_install() {
    let sandbox = Sandbox::new();
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/packages/vmrun.spec");
    let parsed = Done::of(
        Command::new("rpmspec").args(["--query", "--queryformat", "%{version}"]).arg(&spec).output().unwrap(),
    );
    assert_eq!(parsed.ok().stdout, env!("CARGO_PKG_VERSION"));
    let packages = sandbox.file("packages");
    let package = make(&sandbox, "rpm", &[("PACKAGES", &packages)]).line();
    let listed = Done::of(sandbox.program("rpm").args(["-qlp", &package]).output().unwrap()).ok().stdout;
    let plain = sandbox.file("plain");
    make(&sandbox, "install", &[("DESTDIR", &plain), ("PREFIX", Path::new("/usr"))]).ok();
    let files: Vec<PathBuf> =
        tree(&plain).into_iter().filter(|(_, file)| file.is_some()).map(|(path, _)| path).collect();
    for file in files.iter().filter(|file| !file.starts_with("usr/share/vmrun")) {
        let path = format!("/{}", file.display());
        assert!(listed.lines().any(|line| line.trim_end_matches(".gz") == path), "no {path} in {listed}");
    }
    // an installation of its own
    let root = sandbox.file("root");
    std::fs::create_dir(&root).unwrap();
    let rpm = |arguments: &[&str]| {
        Done::of(
            sandbox
                .program("rpm")
                .arg(format!("--root={}", root.display()))
                .args(arguments)
                .output()
                .unwrap(),
        )
    };
    rpm(&["--initdb"]).ok();
    rpm(&["--install", "--nodeps", &package]).ok();
    rpm(&["--verify", "--nodeps", "vmrun"]).ok();
    let version =
        Done::of(sandbox.program(root.join("usr/bin/vmrun")).arg("--version").output().unwrap()).line();
    assert_eq!(version, concat!("vmrun ", env!("CARGO_PKG_VERSION")));
    rpm(&["--erase", "vmrun"]).ok();
    let left: Vec<PathBuf> = tree(&root.join("usr"))
        .into_iter()
        .filter(|(_, file)| file.is_some())
        .map(|(path, _)| path)
        .collect();
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("vmrun")), "{left:#?}");
}

#[test]
fn the_program_says_which_build_it_is() {
    let sandbox = Sandbox::new();
    let version = sandbox.run(["--version", "--json"]).json();
    assert_eq!((&version["name"], &version["version"]), (&json!("vmrun"), &json!(env!("CARGO_PKG_VERSION"))));
    assert!(
        version["target"].as_str().unwrap().ends_with(std::env::consts::OS)
            || version["target"].as_str().unwrap().contains("-linux-"),
        "{version}"
    );
    for (list, entry) in [("commands", "ctl wait"), ("commands", "qemu"), ("methods", "GetStatus")] {
        assert!(version[list].as_array().unwrap().contains(&json!(entry)), "{version}");
    }
    assert!(version["commit"].is_null() || version["commit"].as_str().unwrap().len() >= 40, "{version}");
    let qemu = Command::new("qemu-system-x86_64").arg("--version").output().unwrap();
    let said = String::from_utf8(qemu.stdout).unwrap();
    assert_eq!(version["qemu"]["version"], said.lines().next().unwrap());
    assert!(Path::new(version["qemu"]["path"].as_str().unwrap()).is_absolute(), "{version}");
    // without one
    let mut without = sandbox.vmrun();
    without.args(["-V", "--json"]).env("PATH", sandbox.path());
    assert!(Done::of(without.output().unwrap()).json()["qemu"].is_null());
    // both ways round; and nothing else has become a flag of the top level
    sandbox.run(["--json", "--version"]).ok();
    sandbox.run(["--json", "ls"]).fails(2, &["--json"]);
    assert_eq!(sandbox.run(["--version"]).line(), concat!("vmrun ", env!("CARGO_PKG_VERSION")));
}
