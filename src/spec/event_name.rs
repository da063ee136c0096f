//! Names of events, in any case. Any name is taken, for QEMU gets new ones; a list of what is known helps with typing errors.

/// How different a name may be for the other one to be what was meant.
const ALIKE: usize = 3;

/// Events of QEMU up to 10.0 (`query-qmp-schema` of 7.2, and `qapi/*.json`), and vmrun's own.
const KNOWN: &[&str] = &[
    "ACPI_DEVICE_OST",
    "BALLOON_CHANGE",
    "BLOCK_EXPORT_DELETED",
    "BLOCK_IMAGE_CORRUPTED",
    "BLOCK_IO_ERROR",
    "BLOCK_JOB_CANCELLED",
    "BLOCK_JOB_COMPLETED",
    "BLOCK_JOB_ERROR",
    "BLOCK_JOB_PENDING",
    "BLOCK_JOB_READY",
    "BLOCK_WRITE_THRESHOLD",
    "COLO_EXIT",
    "CPU_POLARIZATION_CHANGE",
    "DEVICE_DELETED",
    "DEVICE_TRAY_MOVED",
    "DEVICE_UNPLUG_GUEST_ERROR",
    "DUMP_COMPLETED",
    "FAILOVER_NEGOTIATED",
    "GUEST_CRASHLOADED",
    "GUEST_PANICKED",
    "GUEST_PVSHUTDOWN",
    "HV_BALLOON_STATUS_REPORT",
    "JOB_STATUS_CHANGE",
    "MEMORY_DEVICE_SIZE_CHANGE",
    "MEMORY_FAILURE",
    "MEM_UNPLUG_ERROR",
    "MIGRATION",
    "MIGRATION_PASS",
    "NETDEV_STREAM_CONNECTED",
    "NETDEV_STREAM_DISCONNECTED",
    "NIC_RX_FILTER_CHANGED",
    "POWERDOWN",
    "PR_MANAGER_STATUS_CHANGED",
    "QUORUM_FAILURE",
    "QUORUM_REPORT_BAD",
    "RDMA_GID_STATUS_CHANGED",
    "RESET",
    "RESUME",
    "RTC_CHANGE",
    "SHUTDOWN",
    "SPICE_CONNECTED",
    "SPICE_DISCONNECTED",
    "SPICE_INITIALIZED",
    "SPICE_MIGRATE_COMPLETED",
    "STOP",
    "SUSPEND",
    "SUSPEND_DISK",
    "UNPLUG_PRIMARY",
    "VFIO_MIGRATION",
    "VFU_CLIENT_HANGUP",
    "VNC_CONNECTED",
    "VNC_DISCONNECTED",
    "VNC_INITIALIZED",
    "VSERPORT_CHANGE",
    "WAKEUP",
    "WATCHDOG",
    "VMRUN_CONSOLE_PANIC",
    "VMRUN_DEVICE_ADDED",
    "VMRUN_DEVICE_REMOVED",
    "VMRUN_FORWARD_ADDED",
    "VMRUN_FORWARD_REMOVED",
    "VMRUN_EVENTS_LOST",
    "VMRUN_LADDER",
    "VMRUN_LINK",
    "VMRUN_NOTHING_TO_BOOT",
    "VMRUN_SNAPSHOT_LOADED",
    "VMRUN_STATE",
];

/// Those that came after QEMU 7.2, the oldest that vmrun runs with.
const NEWER: &[&str] =
    &["CPU_POLARIZATION_CHANGE", "GUEST_PVSHUTDOWN", "HV_BALLOON_STATUS_REPORT", "VFIO_MIGRATION"];

fn is_among(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The names of all events of vmrun and of QEMU up to 10.0.
pub fn known() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().copied()
}

/// Whether it is an event of vmrun or of every QEMU.
pub fn is_everywhere(name: &str) -> bool {
    is_among(KNOWN, name) && !is_among(NEWER, name)
}

/// What to tell of a name that is not known; `of_qemu` are all events of the VM's QEMU, where it said so.
pub fn doubt(name: &str, of_qemu: Option<&[String]>) -> Option<String> {
    match of_qemu {
        _ if is_everywhere(name) => return None,
        Some(events) if events.iter().any(|event| event.eq_ignore_ascii_case(name)) => return None,
        None if is_among(KNOWN, name) => return None,
        _ => {}
    }
    let distance = |known: &&&str| strsim::damerau_levenshtein(known, &name.to_uppercase());
    let near = KNOWN.iter().min_by_key(distance).filter(|known| (1..=ALIKE).contains(&distance(known)));
    let meant = near.map(|known| format!("; did you mean {known}?")).unwrap_or_default();
    Some(match of_qemu {
        Some(_) => format!("this VM's QEMU has no event '{name}', nor has vmrun: it will never come{meant}"),
        None => format!("no event '{name}' is known here, though this QEMU may have one{meant}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_told_and_a_new_name_is_taken() {
        assert_eq!(doubt("SHUTDOWN", None), None);
        assert_eq!(doubt("stop", None), None);
        assert_eq!(doubt("VMRUN_STATE", None), None);
        assert!(doubt("SHUTDWON", None).unwrap().ends_with("did you mean SHUTDOWN?"));
        let new = doubt("COLD_FUSION_READY", None).unwrap();
        assert!(new.contains("COLD_FUSION_READY") && !new.contains("did you mean"), "{new}");
    }

    #[test]
    fn what_qemu_says_of_its_events_decides() {
        let newer = ["COLD_FUSION_READY".to_owned()];
        assert_eq!(doubt("cold_fusion_ready", Some(&newer)), None);
        assert!(doubt("SHUTDWON", Some(&newer)).unwrap().contains("will never come; did you mean SHUTDOWN?"));
        // known, but not to this QEMU
        assert!(doubt("VFIO_MIGRATION", Some(&newer)).unwrap().ends_with("will never come"));
        assert!(NEWER.iter().all(|name| KNOWN.contains(name)));
    }
}
