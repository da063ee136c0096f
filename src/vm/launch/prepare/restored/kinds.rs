//! Whether a QEMU has the machine type that a VM was saved with.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::host::environment;
use crate::qemu::{Machine, quote};

use super::refused;
use crate::vm::start_error::StartError;

/// Asks QEMU for its machine types: the state needs the same one, and QEMU's own error does not help.
pub(super) fn check(qemu: &Path, machine: &Machine, saved_by: &str) -> Result<(), StartError> {
    let mut command = Command::new(qemu);
    command.args(["-nodefaults", "-machine", "help"]);
    environment::apply(&mut command);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| StartError::Helper { program: qemu.display().to_string(), error })?;
    let kind = machine.kind().split(',').next().unwrap_or_default();
    let known = String::from_utf8_lossy(&output.stdout);
    if known.lines().any(|line| line.split_whitespace().next() == Some(kind)) {
        return Ok(());
    }
    let message = format!(
        "the VM was saved by QEMU {} as a machine of type {}, which {} does not have",
        quote::word(saved_by.as_ref()),
        quote::word(kind.as_ref()),
        quote::word(qemu.as_os_str()),
    );
    Err(refused(message, "choose a QEMU that has it with `--qemu`"))
}
