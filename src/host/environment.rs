//! Which environment variables QEMU and the helpers get.
//!
//! An allow list: a service's environment holds tokens, credentials and notification sockets that a guest's emulator has no use for.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use super::descriptors;

const SESSION_BUS: &str = "DBUS_SESSION_BUS_ADDRESS";

/// Variables that are passed on, by name.
const NAMES: [&str; 18] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    SESSION_BUS,
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "AT_SPI_BUS_ADDRESS",
    "ASAN_OPTIONS",
];

/// Variables that are passed on, by the start of the name: the desktop's, and what QEMU's libraries are configured with.
const PREFIXES: [&str; 13] = [
    "LC_",
    "XDG_",
    "PULSE_",
    "PIPEWIRE_",
    "QEMU_",
    "SDL_",
    "GTK_",
    "GDK_",
    "GIO_",
    "GST_",
    "MESA_",
    "LIBGL_",
    "VK_",
];

/// Never passed on, whatever they start with.
const SECRETS: [&str; 5] = ["TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "KEY"];

/// Whether a child may see this variable.
pub fn is_passed_on(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let secret = SECRETS.iter().any(|word| name.contains(word));
    !secret && (NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// What is left of an environment (`std::env::vars_os()`) for a child.
pub fn cleaned(all: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    all.into_iter().filter(|(name, value)| is_passed_on(name) && !value.as_bytes().contains(&0)).collect()
}

/// For a QEMU that may not start programs (its sandbox ends it with SIGSYS): its window's libraries would start the accessibility
/// bridge, and where the session's bus is not named look for it by `dbus-launch`.
pub fn apply_to_qemu(command: &mut Command) {
    apply(command);
    command.env("NO_AT_BRIDGE", "1");
    if std::env::var_os(SESSION_BUS).is_none_or(|address| address.is_empty()) {
        // no transport of this name: a program that needs the bus works without it
        command.env(SESSION_BUS, "disabled:");
    }
}

/// Gives a child the cleaned environment of this process instead of all of it, and the limits that its user set.
pub fn apply(command: &mut Command) {
    command.env_clear().envs(cleaned(std::env::vars_os()));
    descriptors::give_limit_back(command);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_on_what_a_display_needs() {
        for name in
            ["PATH", "HOME", "LC_ALL", "XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "QEMU_AUDIO_DRV", "GDK_BACKEND"]
        {
            assert!(is_passed_on(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn keeps_services_and_secrets_to_itself() {
        for name in [
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "WATCHDOG_USEC",
            "CREDENTIALS_DIRECTORY",
            "GITHUB_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "XDG_API_KEY",
            "QEMU_PASSWORD",
            "LD_PRELOAD",
            "",
        ] {
            assert!(!is_passed_on(OsStr::new(name)), "{name}");
        }
        assert!(!is_passed_on(OsStr::from_bytes(b"LC_\xff")));
    }

    #[test]
    fn a_child_sees_only_those() {
        let mut command = Command::new("env");
        command.env("NOTIFY_SOCKET", "/run/x");
        apply(&mut command);
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(text.contains("PATH="));
        assert!(!text.contains("NOTIFY_SOCKET") && !text.contains("CARGO_PKG_NAME"));
    }
}
