//! Words for what vmrun calls otherwise.

/// A group of words with the commands that are meant.
const MEANINGS: &[(&[&str], &str)] = &[
    (
        &["poweroff", "power-off", "halt", "off", "down", "quit", "end", "terminate", "system_powerdown"],
        "`vmrun ctl shutdown` shuts the VM down; for one of several it is `vmrun shutdown NAME`",
    ),
    (&["destroy", "stop-force"], "`vmrun kill NAME` ends a VM without asking its guest"),
    (
        &["restart", "reboot", "power-cycle"],
        "`vmrun ctl reboot` reboots the guest and waits until it is up again",
    ),
    (
        &["copy", "scp", "push", "upload", "download-file"],
        "`vmrun cp FILE NAME:PATH` copies into the guest, `vmrun cp NAME:PATH FILE` out of it",
    ),
    (
        &["ssh", "sftp", "rsync"],
        "`vmrun ssh NAME`, `vmrun scp` and `vmrun rsync` connect over the guest agent's channel; `vmrun shell NAME` needs no sshd",
    ),
    (
        &["shell", "sh", "bash", "login"],
        "`vmrun shell NAME` opens a shell through the guest's agent; `vmrun console NAME` attaches to the console",
    ),
    (&["attach", "connect", "serial"], "`vmrun console NAME` attaches to the console"),
    (&["list", "vms", "dir"], "`vmrun ls` lists the VMs"),
    (
        &["start", "create", "boot", "up", "launch", "new", "define", "install"],
        "`vmrun qemu IMAGE` starts a VM",
    ),
    (&["run"], "`vmrun qemu IMAGE` starts a VM; `vmrun exec NAME COMMAND` runs a command in a guest"),
    (
        &["remove", "delete", "undefine", "purge"],
        "`vmrun shutdown NAME` ends a VM; `vmrun forget NAME` removes the record of one that has ended",
    ),
    (
        &["suspend", "stop-cpus"],
        "`vmrun ctl pause` stops the guest's processors; `vmrun ctl save FILE` saves the VM and ends it",
    ),
    (&["unpause", "continue", "cont", "wakeup"], "`vmrun ctl resume`"),
    (&["info", "show", "dominfo", "describe"], "`vmrun ctl status`"),
    (&["snapshot-restore", "snapshot-revert", "revert", "loadvm"], "`vmrun ctl snapshot-load NAME`"),
    (&["snapshot", "checkpoint", "savevm", "snapshot-create"], "`vmrun ctl snapshot-save NAME`"),
    (
        &["restore", "load"],
        "`vmrun qemu --restore FILE` restores a saved VM; `vmrun ctl snapshot-load NAME` loads a snapshot",
    ),
    (&["log", "output"], "`vmrun logs NAME`"),
    (&["top", "usage", "monitor-stats"], "`vmrun ctl stats --watch`"),
    (&["port", "ports"], "`vmrun ctl port-list`"),
    (&["publish", "forward", "port-forward", "expose"], "`vmrun ctl port-add HOST:GUEST`"),
    (&["monitor", "qemu-monitor-command", "info-qemu"], "`vmrun ctl hmp LINE` or `vmrun ctl qmp COMMAND`"),
    (&["eject"], "`vmrun ctl media-eject ID`"),
    (&["insert", "change-media"], "`vmrun ctl media-change ID FILE`"),
    (&["key", "keys", "sendkey", "send-keys", "keypress"], "`vmrun ctl send-key KEYS`"),
    (
        &["pull", "download", "fetch", "import", "images", "image"],
        "vmrun keeps and downloads no images: `curl -LO URL`, then `vmrun qemu FILE`",
    ),
    (&["mount", "share", "volume"], "`vmrun qemu IMAGE --virtiofs DIR` shares a folder"),
    (&["version"], "`vmrun --version`"),
    (&["check", "diagnose", "setup"], "`vmrun doctor`"),
];

/// What is meant by a word.
pub(super) fn of(word: &str) -> Option<&'static str> {
    let word = word.to_lowercase();
    MEANINGS.iter().find(|(words, _)| words.contains(&word.as_str())).map(|(_, meaning)| *meaning)
}

/// What is meant by a word with a slip of two keys.
pub(super) fn near(word: &str) -> Option<&'static str> {
    let word = word.to_lowercase();
    let slip = |known: &&str| known.len() > 5 && strsim::damerau_levenshtein(known, &word) <= 2;
    MEANINGS.iter().find(|(words, _)| words.iter().any(slip)).map(|(_, meaning)| *meaning)
}

/// Words for the same step, as parts of commands.
const SAME: &[(&[&str], &str)] = &[
    (&["rm", "del", "delete", "detach", "unplug", "drop"], "remove"),
    (&["attach", "plug", "create", "new"], "add"),
    (&["ls", "show"], "list"),
    (&["network", "net", "interface", "card"], "nic"),
    (&["drive", "hdd", "volume"], "disk"),
    (&["forward", "publish"], "port"),
    (&["grow"], "resize"),
];

/// Whether two commands have the same words: `add-disk` is `disk-add`, `detach-disk` is `disk-remove`.
pub(super) fn same_words(typed: &str, name: &str) -> bool {
    let words = |text: &str| {
        let word = |word: &str| {
            let known = SAME.iter().find(|(words, _)| words.contains(&word));
            known.map_or(word, |(_, meant)| meant).to_owned()
        };
        let mut words: Vec<String> = text.split('-').map(word).collect();
        words.sort();
        words
    };
    typed.contains('-') && words(typed) == words(name)
}
