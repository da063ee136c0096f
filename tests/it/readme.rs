//! The README's first page does what it says, command by command, and what it names exists.

use std::path::Path;
use std::process::Command;

use crate::support::boot_sector::Guest;
use crate::support::pty::OnTerminal;
use crate::support::sandbox::{Done, Sandbox, linux_guest};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The commands of a section.
fn commands(section: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let text = readme.split(&format!("## {section}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    lines.map(str::to_owned).collect()
}

/// In an interactive zsh `#` begins no comment, and an apostrophe behind it a text.
#[test]
fn no_command_has_a_comment() {
    for page in ["README.md", "docs/install.md", "docs/scripts.md", "docs/forks.md", "docs/first-vm.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let with_comments: Vec<&str> =
            text.lines().filter(|line| line.starts_with("    ") && line.contains(" # ")).collect();
        assert_eq!(with_comments, <[&str; 0]>::default(), "{page}");
    }
}

#[test]
fn the_quick_start_can_be_typed_as_it_stands() {
    let commands = commands("Quick start");
    let (make, rest): (Vec<&String>, Vec<&String>) =
        commands.iter().partition(|line| line.starts_with("make "));
    assert!(make.len() == 2 && rest.len() >= 6, "{commands:#?}");
    // the targets exist; what they build is under test here
    for line in make {
        let words = line.split(' ').skip(1);
        let done = Done::of(Command::new("make").arg("-n").args(words).current_dir(root()).output().unwrap());
        assert_eq!(done.code, 0, "{line}: {done:#?}");
    }
    let sandbox = Sandbox::new();
    let guest = sandbox.file("target/guest");
    std::fs::create_dir_all(&guest).unwrap();
    for part in ["kernel", "initrd.img", "cmdline"] {
        let built = format!("{}-{part}", linux_guest().display());
        std::os::unix::fs::symlink(built, guest.join(format!("guest-{part}"))).unwrap();
    }
    let (first, rest) = rest.split_first().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_vmrun")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let shell = |line: &str| {
        let mut shell = sandbox.program("sh");
        shell.args(["-c", line]).env("PATH", &path);
        shell
    };
    let mut terminal = OnTerminal::start(&shell(first));
    terminal.shows("'guest' runs: Ctrl-a x shuts it down");
    terminal.shows("vmrun-guest: ready");
    for line in rest {
        let done = Done::of(shell(line).output().unwrap());
        assert_eq!(done.code, 0, "{line}: {done:#?}");
        // each prints what came of it
        assert!(!done.stdout.is_empty(), "{line}: {done:#?}");
    }
    assert_eq!(terminal.end().code(), Some(0));
    sandbox.is_clean();
}

#[test]
fn state_without_an_image_is_listed_before_it_is_removed() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::PowersOff);
    let vmrun = |words: &[&str]| sandbox.run(words);
    let run = |options: &[&str]| vmrun(&[&["qemu", image.to_str().unwrap()], options].concat()).ok();
    run(&[]);
    let state = sandbox.file("guest-state");
    let nothing = vmrun(&["clean", "."]).ok();
    assert!(nothing.stdout.is_empty() && nothing.stderr.contains("no state directory"), "{nothing:#?}");
    std::fs::remove_file(&image).unwrap();
    let listed = vmrun(&["clean", "."]).ok();
    assert!(listed.stdout.contains("guest-state") && listed.stdout.contains("kept"), "{listed:#?}");
    assert!(listed.stderr.contains("hint: `--yes` removes them"), "{listed:#?}");
    assert!(state.join("uuid").exists());
    // a disk in it may be the only copy
    std::fs::write(state.join("disk.img"), "data").unwrap();
    let kept = vmrun(&["clean", ".", "--yes", "--json"]).json();
    assert_eq!((&kept[0]["state"], &kept[0]["disks"][0]), (&"kept".into(), &"disk.img".into()), "{kept}");
    assert!(state.join("disk.img").exists());
    let gone = vmrun(&["clean", ".", "--yes", "--disks"]).ok();
    assert!(gone.stdout.contains("removed") && !state.exists(), "{gone:#?}");
    vmrun(&["clean", "no/such"]).fails(1, &["no/such"]);
    vmrun(&["clean", ".", "--disks"]).fails(2, &["--yes"]);
}
