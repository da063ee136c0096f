//! Flags of other programs that people try with vmrun.

/// Flags of `vmrun qemu` under other names, with what is meant.
const QEMU: &[(&[&str], &str)] = &[
    (&["--memory", "--ram"], "`--mem SIZE` (`-m`)"),
    (&["--smp", "--cpu-count", "--vcpus", "--cores"], "`--cpus N` (`-c`)"),
    (
        &["--drive", "--hda", "--hdb", "--image", "--hd"],
        "IMAGE needs no flag; further disks are `--disk FILE`",
    ),
    (
        &["--cdrom", "--cd", "--dvd"],
        "an ISO is given as IMAGE; beside a disk QEMU gets it after `--`: `-- -cdrom FILE`",
    ),
    (&["--port", "--ports", "--forward", "--hostfwd"], "`--publish HOST:GUEST` (`-p`)"),
    (&["--background", "--daemonize", "--daemon", "--detach"], "`--detached` (`-d`)"),
    (&["--network", "--net", "--netdev"], "`--networking MODE`, or `--nic SPEC` for a further card"),
    (
        &["--volume", "--mount", "--share", "--virtfs", "--filesystem"],
        "`--virtiofs DIR[,tag=T]` shares a folder",
    ),
    (
        &["--rm", "--snapshot", "--temporary"],
        "`--ephemeral` discards everything that is written when the VM ends",
    ),
    (
        &["-i", "-t", "-it", "-ti", "--interactive", "--tty", "--nographic", "--serial"],
        "the guest's serial console is on the terminal without a flag",
    ),
    (
        &["-e", "--env", "--environment"],
        "`--data-file FILE` gives the guest user-data; `vmrun exec -e NAME=VALUE` sets variables of a command",
    ),
    (&["--vm", "--hostname"], "`--name NAME` (`-n`)"),
    (&["--user-data", "--cloud-init", "--userdata"], "`--data-file FILE`"),
    (&["--headless", "--no-gui"], "`--display headless`; without any flag there is no window either"),
    (&["--bios", "--firmware", "--efi"], "`--uefi`, or `--fw PATH`"),
    (&["--enable-kvm", "--kvm"], "KVM is used where it works; `--accel kvm` insists on it"),
    (
        &["--timeout"],
        "`--wait-timeout` for `--wait`, `--max-lifetime` for the VM, `--stop-timeout` for its shutdown",
    ),
];

/// What is meant by a flag that is not known.
pub(super) fn hint(words: &[String], flag: &str) -> Option<String> {
    let name = flag.split('=').next().unwrap_or(flag);
    match words.get(1).map(String::as_str) {
        Some("qemu") => of_qemu(words, name),
        // clap names the command that the flag stands in front of, or behind
        Some("ctl") if matches!(name, "--name" | "-n" | "--domain") => Some("`--vm NAME`".to_owned()),
        Some(first) if first.starts_with("--vm") => Some(match words.get(2..) {
            Some([]) | None => "`vmrun ctl --vm NAME COMMAND`".to_owned(),
            _ => format!("`vmrun ctl {}`", shlex::try_join(words[1..].iter().map(String::as_str)).ok()?),
        }),
        _ => None,
    }
}

fn of_qemu(words: &[String], name: &str) -> Option<String> {
    let meant = QEMU.iter().find(|(names, _)| names.contains(&name)).map(|(_, meant)| (*meant).to_owned());
    // clap tells the first letter of several: `-it` is `-i`, `-v /a:/b IMAGE` has an argument too many
    let bind = words.windows(2).find(|pair| pair[0] == "-v" && pair[1].contains(':'));
    match bind {
        Some(pair) if meant.is_none() => {
            let folder = pair[1].split(':').next().unwrap_or_default();
            Some(format!("`-v` is `--verbose`; `--virtiofs {folder}` shares a folder"))
        }
        _ => meant,
    }
}
