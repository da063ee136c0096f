//! What makes the program start sooner and is the linker's to do: packed relocations and no library but libc. And which tests lack
//! something on this machine.

use std::path::Path;
use std::process::Command;

/// The first glibc that reads packed relocations (its NEWS: DT_RELR). With an older one the program would not start.
const READS_PACKED: (u32, u32) = (2, 36);
/// Set for a program that is to start with an older glibc than this machine's, such as that of the Python wheel.
const PORTABLE: &str = "VMRUN_PORTABLE";
/// The commit that is built.
const COMMIT: &str = "VMRUN_COMMIT";
/// The part of libgcc that unwinds the stack, under the GCC Runtime Library Exception.
const UNWINDER: &str = "libgcc_eh.a";

/// What a test may need that a machine may lack; tests/setup/have.sh looks for each.
const NEEDS: [&str; 11] = [
    "root",
    "mount",
    "tap",
    "isoinfo",
    "systemd-analyze",
    "zsh",
    "fish",
    "rpmbuild",
    "qemu-system-aarch64",
    "qemu-system-s390x",
    "qemu-system-riscv64",
];
/// What a machine of continuous integration may lack, too, each with the reason.
const MAY_LACK: &str = "tests/setup/may-lack";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={PORTABLE}");
    preconditions();
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    println!("cargo:rustc-env=VMRUN_TARGET={}", variable("TARGET"));
    commit(&variable("PROFILE"));
    let is_glibc = variable("CARGO_CFG_TARGET_OS") == "linux" && variable("CARGO_CFG_TARGET_ENV") == "gnu";
    // what is built for another machine meets libraries that cannot be asked
    if !is_glibc || variable("HOST") != variable("TARGET") || !variable(PORTABLE).is_empty() {
        return;
    }
    if glibc().is_some_and(|version| version >= READS_PACKED) {
        // 110 KiB less to load and to keep; a linker that does not know it says so and goes on
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    if let Some(folder) = folder_of(UNWINDER) {
        // libgcc_s.so would be loaded for it by each process, which takes 0.12 ms
        println!("cargo:rustc-link-search=native={folder}");
        println!("cargo:rustc-link-lib=static=gcc_eh");
        // the benchmarks' program of comparison is linked in the same way
        println!("cargo:rustc-env=UNWINDER_FOLDER={folder}");
    }
}

/// The commit for `vmrun --version --json`: what a packager says, else git's. A debug build does not know it, since each commit would
/// build everything again.
fn commit(profile: &str) {
    println!("cargo:rerun-if-env-changed={COMMIT}");
    if profile != "release" || std::env::var_os(COMMIT).is_some() {
        return;
    }
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    // of another repository, into which these sources were put, it would be the wrong one
    if git(&["rev-parse", "--show-toplevel"]).is_none_or(|top| Path::new(&top) != Path::new(&root)) {
        return;
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    if let Some(commit) = git(&["rev-parse", "HEAD"]) {
        println!("cargo:rustc-env={COMMIT}={commit}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let told = Command::new("git").args(arguments).output().ok().filter(|told| told.status.success())?;
    Some(String::from_utf8(told.stdout).ok()?.trim().to_owned())
}

/// Sets `cfg(lacks = "…")`, by which a test is reported as ignored. Where nothing is said of what there is, every test runs, and one
/// that lacks something fails.
fn preconditions() {
    println!("cargo:rerun-if-env-changed=VMRUN_TEST_HAVE");
    println!("cargo:rerun-if-env-changed=CI");
    println!("cargo:rerun-if-changed={MAY_LACK}");
    let all = NEEDS.map(|need| format!("\"{need}\"")).join(", ");
    println!("cargo:rustc-check-cfg=cfg(lacks, values({all}))");
    let Ok(have) = std::env::var("VMRUN_TEST_HAVE") else { return };
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    let list = std::fs::read_to_string(MAY_LACK).unwrap_or_default();
    let may_lack: Vec<&str> = list.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    for need in NEEDS {
        let lacking = !have.split(',').any(|have| have == need);
        if lacking && (!is_ci || may_lack.contains(&need)) {
            println!("cargo:rustc-cfg=lacks=\"{need}\"");
        }
    }
}

/// The version of this machine's glibc.
fn glibc() -> Option<(u32, u32)> {
    // e.g. `glibc 2.36`
    let told = output("getconf", "GNU_LIBC_VERSION")?;
    let (major, minor) = told.strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

/// Where the C compiler, which is the linker, has one of its own files; it repeats the name of one that it does not have.
fn folder_of(name: &str) -> Option<String> {
    let told = output("cc", &format!("-print-file-name={name}"))?;
    let file = Path::new(&told);
    let folder = file.parent().filter(|_| file.is_absolute() && file.exists())?;
    Some(folder.to_str()?.to_owned())
}

fn output(program: &str, argument: &str) -> Option<String> {
    let told = Command::new(program).arg(argument).output().ok()?;
    Some(String::from_utf8(told.stdout).ok()?.trim().to_owned())
}
