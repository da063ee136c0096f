//! VMs whose supervisor is killed.

use nix::sys::signal::Signal;
use serde_json::Value;

use super::boot_sector::Guest;
use super::processes::{eventually, send};
use super::sandbox::Sandbox;

/// A detached VM that has booted.
pub(crate) fn detached(guest: Guest, options: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(guest);
    let mut arguments = vec!["--name", "orphan"];
    arguments.extend(options);
    arguments.push(image.to_str().unwrap());
    assert_eq!(sandbox.detached(arguments), "orphan");
    sandbox.booted("orphan");
    sandbox
}

/// Kills the supervisor; returns its id.
#[track_caller]
pub(crate) fn kill_supervisor(sandbox: &Sandbox) -> i32 {
    let supervisor = i32::try_from(sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap()).unwrap();
    kill(supervisor);
    supervisor
}

/// Kills a process and waits until it is gone.
pub(crate) fn kill(pid: i32) {
    send(pid, Signal::SIGKILL);
    eventually("the killed process is gone", || {
        // there may be no process that reaps it
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // the first thread can be dead while another still has the sockets and the lock
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        stat.is_empty() || (stat.contains(") Z ") && threads <= 1)
    });
}

/// Takes out whether the guest has taken the devices: that is looked at from time to time.
pub(crate) fn forget_taken(status: &mut Value) {
    let lists = status.as_object_mut().unwrap().values_mut().filter_map(Value::as_array_mut).flatten();
    for device in lists.filter_map(Value::as_object_mut) {
        device.remove("taken");
    }
}

/// What stays the same when a VM is taken over.
pub(crate) fn lasting(mut status: Value) -> Value {
    let fields = status.as_object_mut().unwrap();
    for changing in ["uptime_ms", "supervisor_pid"] {
        fields.remove(changing).unwrap();
    }
    forget_taken(&mut status);
    status
}

/// Asks it to shut down: it does, and nothing is left of it.
#[track_caller]
pub(crate) fn shuts_down_clean(sandbox: &Sandbox) {
    let outcome = sandbox.ctl_json(["shutdown", "--timeout", "30s"]);
    assert_eq!(outcome["ending"], "asked_acpi", "{outcome}");
    sandbox.is_clean();
    assert_eq!(sandbox.outcome(), outcome);
}
