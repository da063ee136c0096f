//! The meaning of vmrun's exit codes: for `--help`, the man pages and `docs/reference/`.

/// A code, its meaning after `vmrun ctl …`, and after `vmrun qemu`; `-` if it does not occur.
pub(super) const TABLE: &[(&str, &str, &str)] = &[
    ("0", "done", "the guest switched itself off, or did so when asked; or the VM was saved"),
    ("1", "failed for another reason", "could not start"),
    ("2", "bad usage", "bad usage"),
    ("3", "no such VM, or it is not running (any more)", "-"),
    ("4", "refused: by QEMU, by the guest, or by the VM's present state", "-"),
    ("5", "timed out, or the supervisor does not answer", "`--detached --wait` timed out"),
    ("10", "`wait`, `shutdown`: the guest panicked", "the guest panicked"),
    (
        "11",
        "`shutdown`: QEMU crashed or was killed by another process",
        "QEMU crashed or was killed by another process",
    ),
    ("12", "`shutdown` without `--force`: it is off, but had to be forced", "it had to be forced off"),
    ("13", "-", "the guest reset too often"),
    ("124", "`run`: the command did not end within `--timeout`", "-"),
    ("125", "`run`: vmrun itself has failed; every other code is the command's", "-"),
    (
        "N",
        "`exec`, `run`: the command's own code; 127 no such command, 126 it does not start, 128+N signal N ended it",
        "-",
    ),
];
