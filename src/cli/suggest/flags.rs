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

/// Flags of docker's `run` and `exec`, with what is meant.
const RUN: &[(&[&str], &str)] = &[
    (&["--rm"], "the VM of `vmrun run` ends with its command, and what it wrote is thrown away"),
    (&["--volume", "--mount"], "`--copy-in SOURCE:DESTINATION` and `--copy-out SOURCE:DESTINATION`"),
    (
        &["--detach"],
        "`vmrun qemu IMAGE --detached` runs a VM in the background; `--keep` leaves that of a command",
    ),
];

/// Commands that take a VM's name without a flag.
const NAMED: &[&str] = &["shutdown", "stop", "kill", "exec", "inspect", "rm", "forget"];

/// What is meant by a flag that is not known.
pub(super) fn hint(words: &[String], flag: &str) -> Option<String> {
    let name = flag.split('=').next().unwrap_or(flag);
    match words.get(1).map(String::as_str) {
        Some("qemu") => of_qemu(words, name),
        Some("run") if !name.starts_with('-') => with_dashes(words, flag),
        Some("run") => meant_in(RUN, name).or_else(|| of_qemu(words, name)),
        Some("wrap") if !name.starts_with('-') => with_dashes(words, flag),
        Some(command) if NAMED.contains(&command) && matches!(name, "--vm" | "--name" | "-n") => {
            Some(format!("the VM's name needs no flag: `vmrun {command} NAME`"))
        }
        Some("kill" | "stop" | "shutdown" | "forget" | "rm") if name == "-a" => Some("`--all`".to_owned()),
        Some("ctl") if words.iter().any(|word| word == "-vm") => Some("`--vm NAME`".to_owned()),
        // clap names the command that the flag stands in front of, or behind
        Some("ctl") if matches!(name, "--name" | "-n" | "--domain") => Some("`--vm NAME`".to_owned()),
        Some(first) if first.starts_with("--vm") => Some(match words.get(2..) {
            Some([]) | None => "`vmrun ctl --vm NAME COMMAND`".to_owned(),
            _ => format!("`vmrun ctl {}`", shlex::try_join(words[1..].iter().map(String::as_str)).ok()?),
        }),
        _ => None,
    }
}

fn meant_in(known: &[(&[&str], &str)], name: &str) -> Option<String> {
    known.iter().find(|(names, _)| names.contains(&name)).map(|(_, meant)| (*meant).to_owned())
}

/// The command line with what separates vmrun's own words from those of the command.
fn with_dashes(words: &[String], first: &str) -> Option<String> {
    let at = words.iter().position(|word| word == first)?;
    let join = |words: &[String]| shlex::try_join(words.iter().map(String::as_str)).ok();
    Some(format!("a command comes after `--`: `vmrun {} -- {}`", join(&words[1..at])?, join(&words[at..])?))
}

fn of_qemu(words: &[String], name: &str) -> Option<String> {
    let meant = meant_in(QEMU, name);
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
