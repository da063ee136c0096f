//! What stands below the flags in `vmrun --help`: examples, variables of the environment, exit codes.

use std::fmt::Write as _;

use super::exit_codes;

const EXAMPLES: &[(&str, &str)] = &[
    (
        "vmrun qemu debian.qcow2 --ephemeral -p 2222:22",
        "boot it, its console on this terminal; discard what it writes",
    ),
    ("vmrun qemu debian.qcow2 -d --wait agent", "boot it in the background, until its agent answers"),
    ("vmrun ctl disk-add data.qcow2,size=10G", "plug a disk into the VM that runs"),
];

pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("VMRUN_VM", "the VM of commands that name none"),
    ("VMRUN_CONFIG", "the configuration file (empty: none), else XDG_CONFIG_HOME/vmrun/config.toml"),
    ("VMRUN_COMMAND_FLAG", "default of a flag, such as VMRUN_QEMU_MEM=2G (see config show)"),
    ("VMRUN_RUNTIME_DIR", "where running VMs are (else RUNTIME_DIRECTORY, XDG_RUNTIME_DIR)"),
    ("VMRUN_ACCEL", "as --accel, e.g. tcg"),
    ("VMRUN_WRAP_QEMU", "the QEMU that a link to vmrun stands for (see wrap)"),
    ("XDG_STATE_HOME", "what is remembered: records of VMs that have ended, formats of images"),
    ("XDG_CACHE_HOME", "the templates of --warm"),
    ("TMPDIR", "what ephemeral VMs write"),
    ("NO_COLOR", "no colours in help pages"),
    ("CLICOLOR_FORCE", "colours in help pages where there is no terminal, too"),
];

/// The text.
pub(super) fn after() -> String {
    let mut text = String::from("Examples:\n");
    for (command, what) in EXAMPLES {
        let _ = writeln!(text, "  {command}\n      {what}");
    }
    text.push_str("\nEnvironment:\n");
    for (name, what) in VARIABLES {
        let _ = writeln!(text, "  {name:18}  {what}");
    }
    text.push_str("\nExit codes:\n");
    for (code, ctl, qemu) in exit_codes::TABLE {
        let meaning = match (*ctl, *qemu) {
            ("-", qemu) => format!("qemu: {qemu}"),
            (ctl, "-") => ctl.to_owned(),
            (ctl, qemu) if ctl == qemu => ctl.to_owned(),
            (ctl, qemu) => format!("{ctl}; qemu: {qemu}"),
        };
        let _ = writeln!(text, "  {code:3} {}", meaning.replace('`', ""));
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::args::Cli;

    #[test]
    fn the_first_page_has_examples_variables_and_codes() {
        let help = Cli::command().term_width(100).render_long_help().to_string();
        insta::assert_snapshot!(help);
        // the short one is for who knows them
        let short = Cli::command().render_help().to_string();
        assert!(!short.contains("Exit codes:"), "{short}");
    }

    #[test]
    fn the_examples_are_sound() {
        for (command, _) in super::EXAMPLES {
            Cli::command().try_get_matches_from(command.split(' ')).unwrap();
        }
    }
}
