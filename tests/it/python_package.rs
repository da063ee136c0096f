//! The Python package of `python/`, installed into an environment of its own, with the program under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::sandbox::{Done, Sandbox, linux_guest, python};

/// How a Python that has the package is called; see tests/setup/python-package.sh.
fn python_with_the_package() -> PathBuf {
    let told = std::env::var_os("VMRUN_TEST_PYTHON_PACKAGE");
    let made = || {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/setup/python-package.sh");
        PathBuf::from(Done::of(Command::new(script).output().unwrap()).line())
    };
    told.map_or_else(made, PathBuf::from)
}

/// Runs one of its modules, which leaves no files among the sources.
fn module(sandbox: &Sandbox, name: &str) -> Command {
    let mut command = sandbox.program(python_with_the_package());
    command.args(["-m", name]).env("VMRUN", env!("CARGO_BIN_EXE_vmrun")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("VMRUN_TEST_GUEST", linux_guest()).env_remove("PYTHONPATH").env_remove("PYTEST_ADDOPTS");
    command
}

fn pytest(sandbox: &Sandbox, folder: &str, arguments: &[&str]) -> Done {
    let mut command = module(sandbox, "pytest");
    command.args(["-q", "-p", "no:cacheprovider", "--vm-artefacts"]).arg(sandbox.file("artefacts"));
    command.arg("--basetemp").arg(sandbox.file("pytest"));
    Done::of(command.args(arguments).arg(source(folder)).output().unwrap())
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The number of tests that passed, of a run in which none failed.
#[track_caller]
fn passed(done: Done) -> u32 {
    let done = done.ok();
    let summary = done.stdout.lines().last().unwrap_or_default();
    let (count, _) = summary.split_once(" passed in ").unwrap_or_else(|| panic!("not all passed: {done:#?}"));
    count.parse().unwrap_or_else(|_| panic!("not all passed: {done:#?}"))
}

/// Those of the plug-in are a half of their own, beside the others.
const PLUGIN: &str = "python/tests/test_plugin.py";

#[test]
fn it_passes_its_own_tests() {
    let sandbox = Sandbox::new();
    let plugin = source(PLUGIN);
    let done = pytest(&sandbox, "python/tests", &["--ignore", plugin.to_str().unwrap()]);
    assert!(passed(done) > 30);
    sandbox.is_clean();
}

#[test]
fn its_plug_in_passes_its_own_tests() {
    let sandbox = Sandbox::new();
    assert_eq!(passed(pytest(&sandbox, PLUGIN, &[])), 8);
    sandbox.is_clean();
}

#[test]
fn a_users_project_runs_with_and_without_xdist() {
    let sandbox = Sandbox::new();
    let guest = linux_guest();
    let image = guest.to_str().unwrap();
    let alone = passed(pytest(&sandbox, "examples/pytest", &["--vm-image", image]));
    let shared = passed(pytest(&sandbox, "examples/pytest", &["--vm-image", image, "-n", "2"]));
    assert_eq!((alone, shared), (8, 8));
    assert!(!sandbox.file("artefacts").exists(), "nothing failed");
    sandbox.is_clean();
}

/// The package as a user's project sees it: installed, it says of itself that it has types. And what is around it.
#[test]
fn its_types_are_strict() {
    let sandbox = Sandbox::new();
    // beside mypy itself: what it knows of other packages stays
    let tools = python();
    let cache = tools.ancestors().nth(2).unwrap().join("mypy");
    let checks = |what: &[&str], path: PathBuf| {
        let mut command = module(&sandbox, "mypy");
        command.args(["--strict", "--python-version", "3.10", "--explicit-package-bases", "--cache-dir"]);
        command.arg(&cache).args(what).env("MYPYPATH", &path).current_dir(path);
        Done::of(command.output().unwrap()).ok();
    };
    checks(&["-p", "vmrun"], sandbox.path().to_owned());
    checks(&["."], source("python/tests"));
    checks(&["."], source("python/generate"));
}

#[test]
fn what_is_generated_fits_the_protocol_and_the_flags() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.program(python_with_the_package());
    let done = Done::of(command.arg("-B").arg(source("python/generate")).arg("--check").output().unwrap());
    assert_eq!(done.code, 0, "`make python` makes it anew: {}", done.stdout);
}
