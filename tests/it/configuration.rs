//! Defaults of flags from the configuration file and from variables: what QEMU gets, and what is refused before anything starts.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::boot_sector::Guest;
use crate::support::processes::{self, qemu_of};
use crate::support::sandbox::{Done, Sandbox};

/// Writes the file where vmrun looks for it.
fn write(sandbox: &Sandbox, text: &str) -> PathBuf {
    let folder = sandbox.config_home().join("vmrun");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("config.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    file
}

/// The arguments of the QEMU that runs.
fn qemu_arguments(sandbox: &Sandbox) -> String {
    let bytes = std::fs::read(format!("/proc/{}/cmdline", qemu_of(sandbox.path()))).unwrap();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Starts a VM with variables and flags, and returns what its QEMU was started with.
fn started(sandbox: &Sandbox, variables: &[(&str, &str)], flags: &[&str]) -> String {
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let mut command = sandbox.vmrun();
    command.args(["qemu", "-d", "--ephemeral"]).args(flags).arg(image).envs(variables.iter().copied());
    let done = Done::of(command.output().unwrap()).ok();
    assert_eq!(done.stderr, "");
    let arguments = qemu_arguments(sandbox);
    sandbox.run(["kill", done.stdout.trim()]).ok();
    arguments
}

fn has(arguments: &str, part: &str) -> bool {
    arguments.contains(&format!(" {part} "))
}

#[test]
fn qemu_gets_what_the_file_the_variable_and_the_command_line_say() {
    let sandbox = Sandbox::new();
    assert!(has(&started(&sandbox, &[], &[]), "-smp 1"));
    write(&sandbox, "[qemu]\nmem = \"80M\"\ncpus = 2\n\n[run]\nmem = \"3G\"\n");
    let of_file = started(&sandbox, &[], &[]);
    assert!(has(&of_file, "-m 80M") && has(&of_file, "-smp 2"), "{of_file}");
    let of_variable = started(&sandbox, &[("VMRUN_QEMU_CPUS", "3")], &[]);
    assert!(has(&of_variable, "-m 80M") && has(&of_variable, "-smp 3"), "{of_variable}");
    let typed = started(&sandbox, &[("VMRUN_QEMU_CPUS", "3")], &["-c", "4", "--mem", "64M"]);
    assert!(has(&typed, "-m 64M") && has(&typed, "-smp 4"), "{typed}");
    // none of both
    let none = started(&sandbox, &[("VMRUN_CONFIG", "")], &[]);
    assert!(has(&none, "-smp 1"), "{none}");
    let other = sandbox.file("other.toml");
    std::fs::write(&other, "qemu.cpus = 5\n").unwrap();
    let named = started(&sandbox, &[("VMRUN_CONFIG", other.to_str().unwrap())], &[]);
    assert!(has(&named, "-smp 5"), "{named}");
    sandbox.is_clean();
}

#[test]
fn lists_are_replaced_and_switches_can_be_switched_off() {
    let sandbox = Sandbox::new();
    write(&sandbox, "[qemu]\ndevice = [\"edu\", \"i6300esb\"]\nusb = true\n");
    let of_file = started(&sandbox, &[], &[]);
    assert!(
        of_file.contains("\"edu\"") && of_file.contains("i6300esb") && of_file.contains("xhci"),
        "{of_file}"
    );
    let typed = started(&sandbox, &[], &["--device", "i6300esb", "--usb=false"]);
    assert!(!typed.contains("\"edu\"") && typed.contains("i6300esb") && !typed.contains("xhci"), "{typed}");
    let of_variable = started(&sandbox, &[("VMRUN_QEMU_DEVICE", "i6300esb"), ("VMRUN_QEMU_USB", "0")], &[]);
    assert!(!of_variable.contains("\"edu\"") && !of_variable.contains("xhci"), "{of_variable}");
}

#[test]
fn what_is_typed_counts_where_a_default_would_contradict_it() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    // --gui conflicts with --display, --mem with --restore, --wait-timeout needs --wait
    write(&sandbox, "[qemu]\ngui = true\nmem = \"80M\"\nwait-timeout = \"3m\"\nquiet = true\n");
    let shown = sandbox.run(["qemu", "--dry-run", "--display", "none", "-v", image.to_str().unwrap()]).ok();
    assert!(shown.stdout.contains("-display none") && shown.stdout.contains("-m 80M"), "{shown:#?}");
    sandbox.run(["qemu", "--restore", "missing.saved"]).fails(1, &["missing.saved"]);
    // two lines that cannot both count
    let file = write(&sandbox, "[qemu]\ngui = true\ndisplay = \"none\"\n");
    let place = format!("{}:3: qemu.display: it contradicts qemu.gui in line 2", file.display());
    sandbox.run(["qemu", image.to_str().unwrap()]).fails(2, &[&place]);
}

#[test]
fn the_older_variable_of_the_accelerator_stands_above_the_file() {
    let sandbox = Sandbox::new();
    write(&sandbox, "[qemu]\naccel = \"kvm\"\n");
    // the sandbox sets VMRUN_ACCEL=tcg
    assert!(started(&sandbox, &[], &[]).contains("tcg"));
    let all = sandbox.run(["config", "show", "--json"]).json();
    let accel = all.as_array().unwrap().iter().find(|row| row["key"] == "qemu.accel").unwrap();
    assert_eq!((&accel["value"], &accel["place"]), (&json!("tcg"), &json!("VMRUN_ACCEL")));
    sandbox.boot_sector(Guest::ReactsToButton);
    let mut command = sandbox.vmrun();
    command.args(["qemu", "guest.img"]).env("VMRUN_QEMU_ACCEL", "nonsense");
    Done::of(command.output().unwrap()).fails(2, &["$VMRUN_QEMU_ACCEL: qemu.accel: ", "nonsense"]);
}

#[test]
fn errors_name_file_and_line_and_nothing_starts() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let start = || sandbox.run(["qemu", "-d", image.to_str().unwrap()]);
    for (text, words) in [
        (
            "[qemu]\nmemory = \"1G\"\n",
            &["config.toml:2: there is no key qemu.memory", "did you mean qemu.mem?"][..],
        ),
        ("\n\n[qemu]\nmem = \"a lot\"\n", &["config.toml:4: qemu.mem: --mem: size 'a lot'"]),
        (
            "[qemu]\ndetached = true\n",
            &["config.toml:2: qemu.detached: --detached can have no default: scripts rely"],
        ),
        ("[qemu]\nephemeral = true\n", &["config.toml:2: qemu.ephemeral: ", "lose what its VM has written"]),
        ("[qemu\n", &["config.toml:1: "]),
        // of another command: the file is one
        ("[ctl.wait]\ntimeout = \"soon\"\n", &["config.toml:2: ctl.wait.timeout: "]),
    ] {
        write(&sandbox, text);
        start().fails(2, words);
        assert!(!sandbox.file("guest-state").exists() && processes::of(sandbox.path()).is_empty());
    }
    // as JSON for who has asked for it; and by a command that fails with codes of its own
    let told = sandbox.ctl(["--json", "wait", "agent"]);
    let told: Value = serde_json::from_str(&told.fails(2, &[]).stderr).unwrap();
    assert_eq!(told["error"]["code"], "usage", "{told}");
    sandbox.run(["run", image.to_str().unwrap(), "--", "true"]).fails(125, &["config.toml:2"]);
    // commands that have nothing to do with it work
    sandbox.run(["ls"]).ok();
    sandbox.run(["kill", "--all"]).ok();
    let mut missing = sandbox.vmrun();
    missing.args(["qemu", "guest.img"]).env("VMRUN_CONFIG", "missing.toml");
    Done::of(missing.output().unwrap()).fails(2, &["$VMRUN_CONFIG: there is no file missing.toml"]);
}

#[test]
#[cfg_attr(lacks = "root", ignore = "needs root")]
fn a_file_that_others_could_have_written_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::ReactsToButton);
    let file = write(&sandbox, "[qemu]\nqemu = \"/tmp/theirs\"\n");
    let start = || sandbox.run(["qemu", "-d", "guest.img"]);
    let set_mode =
        |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    set_mode(&file, 0o666);
    start().fails(2, &["config.toml can be written by other users (mode 0666)", "chmod go-w"]);
    set_mode(&file, 0o644);
    chown(&file, Some(1234), None).unwrap();
    start().fails(2, &["config.toml belongs to another user (uid 1234)", "`VMRUN_CONFIG=` goes without it"]);
    chown(&file, Some(0), None).unwrap();
    set_mode(file.parent().unwrap(), 0o777);
    start().fails(2, &["which can be written by other users"]);
    set_mode(file.parent().unwrap(), 0o755);
    start().fails(1, &["/tmp/theirs"]);
}

#[test]
fn show_says_where_each_value_comes_from() {
    let sandbox = Sandbox::new();
    let path = sandbox.run(["config", "path"]).line();
    assert_eq!(path, sandbox.config_home().join("vmrun/config.toml").to_str().unwrap());
    assert_eq!(sandbox.run(["config", "path", "--json"]).json(), json!({ "path": path, "exists": false }));
    write(&sandbox, "[qemu]\nmem = \"2G\"\npublish = [\"0:22\", \"0:80\"]\n[shutdown]\ntimeout = \"1m\"\n");
    let mut show = sandbox.vmrun();
    show.args(["config", "show", "--json"]).env("VMRUN_QEMU_CPUS", "2").env("VMRUN_QEMU_UEFI", "true");
    let all = Done::of(show.output().unwrap()).json();
    let of = |key: &str| {
        let row =
            all.as_array().unwrap().iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("{key}"));
        (
            row["value"].clone(),
            row["place"].as_str().unwrap_or("-").to_owned(),
            row["source"].as_str().unwrap().to_owned(),
        )
    };
    let at = |line: u32| format!("{path}:{line}");
    assert_eq!(of("qemu.mem"), (json!("2G"), at(2), "file".to_owned()));
    assert_eq!(of("qemu.publish"), (json!(["0:22", "0:80"]), at(3), "file".to_owned()));
    assert_eq!(of("shutdown.timeout"), (json!("1m"), at(5), "file".to_owned()));
    assert_eq!(of("qemu.cpus"), (json!("2"), "VMRUN_QEMU_CPUS".to_owned(), "variable".to_owned()));
    assert_eq!(of("qemu.uefi"), (json!(true), "VMRUN_QEMU_UEFI".to_owned(), "variable".to_owned()));
    assert_eq!(of("run.mem"), (json!("1G"), "-".to_owned(), "built-in".to_owned()));
    assert_eq!(of("qemu.usb"), (json!(false), "-".to_owned(), "built-in".to_owned()));
    assert_eq!(of("qemu.accel"), (json!("tcg"), "VMRUN_ACCEL".to_owned(), "variable".to_owned()));
    let table = sandbox.run(["config", "show"]).ok().stdout;
    let line = table.lines().find(|line| line.starts_with("qemu.mem ")).unwrap();
    assert!(line.contains("2G") && line.ends_with(&at(2)), "{line}");
    // a slip in a variable is told of, a variable of somebody else's is not
    let mut slip = sandbox.vmrun();
    slip.args(["config", "show"])
        .env("VMRUN_QEMU_MEMM", "1G")
        .env("VMRUN_QEMU_IMAGE_FOLDER", "/x")
        .env("VMRUN_CONFIG", "");
    let told = Done::of(slip.output().unwrap()).ok().stderr;
    assert!(told.contains("did you mean VMRUN_QEMU_MEM?") && !told.contains("IMAGE_FOLDER"), "{told}");
    let mut without = sandbox.vmrun();
    without.args(["config", "path"]).env("VMRUN_CONFIG", "");
    Done::of(without.output().unwrap()).fails(1, &["no configuration file is read: $VMRUN_CONFIG is empty"]);
}
