//! Has the linker pack the relocations where the C library can read that: 110 KiB less to store, to load and to keep.

use std::process::Command;

/// The first glibc that reads packed relocations (its NEWS: DT_RELR). With an older one the program would not start.
const READS_PACKED: (u32, u32) = (2, 36);

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let is_glibc = variable("CARGO_CFG_TARGET_OS") == "linux" && variable("CARGO_CFG_TARGET_ENV") == "gnu";
    // what is built for another machine meets a C library that cannot be asked
    let is_for_here = variable("HOST") == variable("TARGET");
    if is_glibc && is_for_here && glibc().is_some_and(|version| version >= READS_PACKED) {
        // a linker that does not know it says so and goes on
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's glibc, e.g. `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let told = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let told = String::from_utf8(told.stdout).ok()?;
    let (major, minor) = told.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}
