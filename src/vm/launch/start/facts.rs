//! What is written down of a start: the facts for `vm.json`, and the folder for the record of the end.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::unistd::Pid;

use crate::host::dirs::{Records, StoreEnvironment};
use crate::host::sys;

use crate::vm::launch::prepare::Prepared;
use crate::vm::process::qemu::Process;
use crate::vm::state::facts::Facts;

use super::Launch;

/// What is decided at the start.
pub(super) fn facts(prepared: &Prepared, launch: &Launch, process: &Process) -> Facts {
    let start_time = sys::process_start_time("/proc".as_ref(), Pid::from_raw(process.pid())).unwrap_or(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Facts {
        host: prepared.host,
        accel_reason: prepared.accel_reason.clone(),
        qemu: prepared.qemu.clone(),
        // set once QEMU has answered
        qemu_version: String::new(),
        qemu_package: String::new(),
        qemu_pid: process.pid(),
        qemu_start_time: start_time,
        run_directory: prepared.run.path().to_owned(),
        state_directory: prepared.state.path().to_owned(),
        detached: launch.detached,
        ephemeral: prepared.options.ephemeral,
        template: prepared.options.template.clone(),
        max_resets: prepared.options.max_resets,
        max_lifetime_ms: prepared
            .options
            .max_lifetime
            .map(|most| u64::try_from(most.as_millis()).unwrap_or(u64::MAX)),
        log_bytes: prepared.options.log_bytes,
        keep_logs: prepared.options.keep_logs.clone(),
        stop_timeout_ms: u64::try_from(prepared.options.stop_timeout.as_millis()).unwrap_or(u64::MAX),
        started_unix_ms: u64::try_from(now.as_millis()).unwrap_or(0),
        run: prepared.run.run_id(),
        state_home: StoreEnvironment::from_env_or(prepared.options.state_home.as_deref())
            .xdg_state_home
            .map(PathBuf::from),
    }
}

/// Makes the folder for the record of the VM's end, once the VM runs, so that a failed start leaves nothing behind. An unusable
/// store does not prevent the start.
pub(super) fn make_records(facts: &Facts) {
    let Some(run) = &facts.run else { return };
    let why = match Records::open(&StoreEnvironment::from_env_or(facts.state_home.as_deref())) {
        Ok(records) => match records.check(run) {
            Ok(()) => return,
            Err(error) => format!(
                "{}: {error} (make room there, or set XDG_STATE_HOME to another folder)",
                records.path().display()
            ),
        },
        Err(error) => match error.hint() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        },
    };
    log::warn!("how this VM ends will not be recorded: {why}");
}
