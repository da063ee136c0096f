//! The flags of QEMU's own program, which have one hyphen, and what they are here.

/// Flags with what does the same here.
const HERE: &[(&[&str], &str)] = &[
    (&["hda", "hdb", "hdc", "hdd", "drive", "blockdev"], "IMAGE, or `--disk FILE` for a further disk"),
    (&["cdrom"], "an ISO as IMAGE; beside a disk QEMU gets it after `--`: `-- -cdrom FILE`"),
    (&["smp"], "`--cpus N`"),
    (&["cpu"], "`--cpu MODEL`"),
    (&["machine"], "`--machine TYPE`"),
    (&["accel", "enable-kvm"], "`--accel LIST`; KVM is used where it works"),
    (&["nographic", "serial", "curses"], "not needed: the guest's serial console is on the terminal"),
    (&["display", "vga", "vnc", "spice"], "`--display KIND`"),
    (&["full-screen"], "`--gui`"),
    (&["net", "netdev", "nic"], "`--networking MODE` for the first card, `--nic SPEC` for others"),
    (&["device"], "`--device DRIVER[,PROP=VALUE...]`"),
    (&["kernel"], "`--kernel=FILE`"),
    (&["initrd"], "`--initrd FILE`"),
    (&["append"], "`--append TEXT`"),
    (&["boot"], "`--boot ORDER`"),
    (&["bios", "pflash"], "`--uefi`, or `--fw PATH`"),
    (&["name"], "`--name NAME`"),
    (&["uuid"], "`--uuid UUID`"),
    (&["snapshot"], "`--ephemeral`"),
    (&["daemonize"], "`--detached`"),
    (
        &["monitor", "mon", "qmp", "qmp-pretty"],
        "`vmrun ctl hmp` and `vmrun ctl qmp`, or `--qmp PATH` for a socket of your own",
    ),
    (&["usb"], "`--usb`"),
    (&["usbdevice"], "`--device`, or `vmrun ctl usb-add` while it runs"),
    (&["fsdev", "virtfs"], "`--virtiofs DIR`"),
    (&["no-reboot"], "`--no-reboot`"),
    (&["sandbox"], "the sandbox is on; `--no-sandbox` switches it off"),
    (&["incoming", "loadvm"], "`--restore FILE`, or `vmrun ctl snapshot-load NAME` while it runs"),
    (&["help"], "`--help`"),
    (&["version"], "`vmrun --version`"),
];

/// Flags for which vmrun has none of its own.
const ONLY_QEMU: &[&str] = &[
    "action",
    "add-fd",
    "acpitable",
    "async-teardown",
    "audio",
    "audiodev",
    "chardev",
    "chroot",
    "compat",
    "debugcon",
    "dfilter",
    "dtb",
    "dump-vmstate",
    "echr",
    "fw_cfg",
    "gdb",
    "global",
    "icount",
    "iscsi",
    "jitdump",
    "mem-path",
    "mem-prealloc",
    "msg",
    "no-acpi",
    "no-fd-bootchk",
    "no-hpet",
    "no-shutdown",
    "no-user-config",
    "nodefaults",
    "numa",
    "object",
    "only-migratable",
    "option-rom",
    "overcommit",
    "parallel",
    "perfmap",
    "pidfile",
    "plugin",
    "preconfig",
    "prom-env",
    "readconfig",
    "rtc",
    "run-with",
    "runas",
    "seed",
    "semihosting",
    "semihosting-config",
    "set",
    "singlestep",
    "smbios",
    "soundhw",
    "tb-size",
    "tpmdev",
    "trace",
    "watchdog",
    "watchdog-action",
    "win2k-hack",
    "xen-domid",
];

/// What to use instead of a flag of QEMU's.
pub(super) fn hint(word: &str, value: Option<&str>) -> Option<String> {
    let name = word.strip_prefix('-').filter(|name| !name.starts_with('-'))?;
    let name = name.split('=').next().unwrap_or(name);
    if let Some((_, here)) = HERE.iter().find(|(names, _)| names.contains(&name)) {
        return Some(format!("here it is {here}"));
    }
    ONLY_QEMU.contains(&name).then(|| {
        let value = value
            .filter(|value| !value.starts_with('-'))
            .map(|value| format!(" {value}"))
            .unwrap_or_default();
        format!("QEMU gets it after `--`: `vmrun qemu IMAGE -- -{name}{value}`")
    })
}
