//! Completion in real shells: bash, zsh and fish, each with the script that vmrun prints for it, beside running VMs.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::boot_sector::Guest;
use crate::support::processes::{self, eventually, has_ended};
use crate::support::sandbox::{Done, Sandbox};

/// A shell without its user's configuration.
#[derive(Debug, Clone, Copy)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Types the line with all that bash knows of it into the completion function, and prints what that offers, one a line.
const BASH: &str = r#"
source <(vmrun completions bash)
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_KEY=9
# as readline splits it: at blanks, and = and : are words of their own
read -ra COMP_WORDS <<< "$(sed 's/[=:]\+/ & /g' <<< "$1")"
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_vmrun vmrun "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
((${#COMPREPLY[@]} == 0)) || printf '%s\n' "${COMPREPLY[@]}"
"#;

/// Types the line into an interactive zsh on a terminal of its own, presses TAB, and prints the line that is there then.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty shell "zsh -f -i"
zpty -w shell "autoload -Uz compinit; compinit -D -u; source <(vmrun completions zsh)"
zpty -w shell 'dump() { print -rn -- "$BUFFER" > line.new; mv line.new line }; zle -N dump; bindkey "^X" dump; bindkey "^I" complete-word'
zpty -w shell 'print ready > ready'
drain() { zpty -r -t shell > /dev/null }
until [[ -e ready ]]; do drain; sleep 0.02; done
zpty -w -n shell "$1"$'\t\x18'
until [[ -e line ]]; do drain; sleep 0.02; done
cat line
rm -f line ready
zpty -d shell
"#;

const FISH: &str = "vmrun completions fish | source; complete --do-complete $argv[1]";

impl Shell {
    fn run(self, sandbox: &Sandbox, line: &str) -> Done {
        let (program, options, script) = match self {
            Self::Bash => ("bash", &["--norc", "-c"][..], BASH),
            Self::Zsh => ("zsh", &["-f", "-c"][..], ZSH),
            Self::Fish => ("fish", &["--no-config", "-c"][..], FISH),
        };
        let mut command = sandbox.program(program);
        let folder = Path::new(env!("CARGO_BIN_EXE_vmrun")).parent().unwrap().to_str().unwrap();
        command.args(options).arg(script);
        if !matches!(self, Self::Fish) {
            command.arg(program);
        }
        command.arg(line).env("HOME", sandbox.path()).env("TERM", "xterm");
        command.env("PATH", format!("{folder}:{}", std::env::var("PATH").unwrap()));
        Done::of(command.output().unwrap())
    }

    /// What the last word of a line becomes, where that is clear; else empty.
    #[track_caller]
    fn completes(self, sandbox: &Sandbox, line: &str) -> String {
        let done = self.run(sandbox, line);
        // an error would be printed into the line that is being typed
        assert_eq!(done.stderr, "", "{self:?} {line}");
        let last = line.rsplit(' ').next().unwrap();
        match self {
            // it replaces what follows the last = or :
            Self::Bash => {
                let kept = last.rfind(['=', ':']).map_or("", |at| &last[..=at]);
                let mut all = done.stdout.lines();
                all.next()
                    .filter(|_| all.next().is_none())
                    .map(|word| format!("{kept}{word}"))
                    .unwrap_or_default()
            }
            Self::Zsh => {
                let typed = done.stdout.strip_prefix(line.strip_suffix(last).unwrap());
                let typed = typed.unwrap_or_else(|| panic!("{line}: {done:#?}")).trim_end();
                if typed == last { String::new() } else { typed.to_owned() }
            }
            Self::Fish => {
                let mut all = done.stdout.lines().map(|line| line.split('\t').next().unwrap());
                all.next().filter(|_| all.next().is_none()).unwrap_or_default().to_owned()
            }
        }
    }
}

/// Two VMs: `busy` with a disk, a keyboard, a forward and a snapshot, and `idle`.
fn two_vms(sandbox: &Sandbox) -> String {
    let mut make = Command::new("qemu-img");
    make.args(["create", "-q", "-f", "qcow2"]).arg(sandbox.file("busy.qcow2")).arg("8M");
    assert!(make.status().unwrap().success());
    let busy =
        ["--name", "busy", "--mem", "32", "--publish", "0:22", "--disk", "data.qcow2,size=8M,id=scratch"];
    sandbox.detached(busy.iter().chain(&["busy.qcow2"]));
    let idle = sandbox.boot_sector(Guest::ReactsToButton);
    sandbox.detached(["--name", "idle", "--mem", "32", "--ephemeral", idle.to_str().unwrap()]);
    let of_busy = |arguments: &[&str]| sandbox.ctl(["--vm", "busy"].iter().chain(arguments)).ok();
    of_busy(&["usb-add", "usb-kbd", "--id", "keyboard"]);
    of_busy(&["snapshot-save", "before-update"]);
    let forwards = sandbox.ctl_json(["--vm", "busy", "port-list"]);
    let forward = &forwards[0];
    format!("{}:22/tcp", forward["host_port"])
}

#[test]
#[cfg_attr(lacks = "zsh", ignore = "needs zsh")]
#[cfg_attr(lacks = "fish", ignore = "needs fish")]
fn every_shell_completes_what_there_is_at_the_moment() {
    let sandbox = Sandbox::new();
    let forward = two_vms(&sandbox);
    let port = &forward[..4];
    for shell in SHELLS {
        for (line, word) in [
            // the grammar
            ("vmrun completio", "completions"),
            ("vmrun ctl disk-thr", "disk-throttle"),
            ("vmrun qemu --on-panic=po", "--on-panic=poweroff"),
            ("vmrun ctl wait port", "port="),
            // names
            ("vmrun ctl --vm bu", "busy"),
            ("vmrun ctl --vm=bu", "--vm=busy"),
            ("vmrun stop bu", "busy"),
            ("vmrun kill busy id", "idle"),
            ("vmrun exec id", "idle"),
            ("vmrun cp idl", "idle:"),
            // what the named VM has
            ("vmrun ctl --vm busy disk-remove scr", "scratch"),
            ("vmrun ctl --vm=busy disk-resize scr", "scratch"),
            ("vmrun ctl usb-remove --vm busy key", "keyboard"),
            ("vmrun ctl --vm busy device-remove key", "keyboard"),
            ("vmrun ctl --vm busy snapshot-load be", "before-update"),
            // the other one does not have it
            ("vmrun ctl --vm idle disk-remove scr", ""),
            ("vmrun ctl --vm nobody disk-remove scr", ""),
            // two are running
            ("vmrun ctl disk-remove scr", ""),
            // files, with what a shell needs around a blank
            ("vmrun qemu gue", "guest.img"),
            ("vmrun qemu --disk data.", "data.qcow2"),
        ] {
            assert_eq!(shell.completes(&sandbox, line), word, "{shell:?}: {line}");
        }
        let removed = shell.completes(&sandbox, &format!("vmrun ctl --vm busy port-remove {port}"));
        assert_eq!(removed, forward, "{shell:?}");
        std::fs::write(sandbox.file("some disk.img"), "").unwrap();
        let blank = shell.completes(&sandbox, "vmrun qemu some");
        assert!(["some\\ disk.img", "some disk.img"].contains(&blank.as_str()), "{shell:?}: {blank}");
    }
    // a list, with what each is
    let all = Shell::Fish.run(&sandbox, "vmrun ctl --vm ").ok().stdout;
    assert_eq!(all, "busy\trunning\nidle\trunning\n");
}

#[test]
fn completion_names_the_ended_and_the_variables_vm() {
    let sandbox = Sandbox::new();
    two_vms(&sandbox);
    sandbox.run(["kill", "idle"]).ok();
    let values = |words: &[&str], vm: &str| {
        let mut command = sandbox.vmrun();
        command.args(["__complete", "--"]).args(words).env("VMRUN_VM", vm);
        let done = Done::of(command.output().unwrap()).ok();
        assert_eq!(done.stderr, "", "{words:?}");
        done.stdout.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(values(&["vmrun", "rm", ""], "").first().map(String::as_str), Some("idle"));
    assert!(!values(&["vmrun", "stop", ""], "").contains(&"idle".to_owned()));
    assert!(values(&["vmrun", "logs", ""], "").contains(&"idle".to_owned()));
    // only one is left; a variable may name another
    assert_eq!(values(&["vmrun", "ctl", "disk-remove", "scr"], ""), ["scratch"]);
    assert_eq!(values(&["vmrun", "ctl", "disk-remove", "scr"], "busy"), ["scratch"]);
    assert!(values(&["vmrun", "ctl", "disk-remove", "scr"], "idle").is_empty());
}

#[test]
fn completion_neither_hangs_nor_complains_nor_changes_anything() {
    let sandbox = Sandbox::new();
    two_vms(&sandbox);
    let complete = |words: &[&str]| {
        let began = Instant::now();
        let done = Done::of(sandbox.vmrun().args(["__complete", "--"]).args(words).output().unwrap()).ok();
        assert_eq!(done.stderr, "", "{words:?}");
        (done.stdout, began.elapsed())
    };
    let status = sandbox.ctl_json(["--vm", "busy", "status"]);
    let supervisor = i32::try_from(status["supervisor_pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(supervisor), Signal::SIGSTOP).unwrap();
    let (none, took) = complete(&["vmrun", "ctl", "--vm", "busy", "disk-remove", "scr"]);
    assert_eq!(none, "");
    // its limit is a second; the machine may be busy
    assert!(took < Duration::from_secs(10), "{took:?}");
    // the names are known without it
    assert!(complete(&["vmrun", "stop", "bu"]).0.starts_with("busy"));
    kill(Pid::from_raw(supervisor), Signal::SIGCONT).unwrap();
    // a VM without a supervisor is named, and not taken over: that is for commands that somebody has entered
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    eventually("the supervisor ends", || has_ended(supervisor));
    let supervisors = || processes::of(sandbox.path()).iter().filter(|process| !process.is_qemu()).count();
    assert_eq!(supervisors(), 1);
    assert!(complete(&["vmrun", "stop", "bu"]).0.starts_with("busy"));
    assert_eq!(complete(&["vmrun", "ctl", "--vm", "busy", "disk-remove", "scr"]).0, "");
    assert_eq!(supervisors(), 1, "it was taken over");
    // nonsense is no error either, and nothing is made
    let empty = Sandbox::new();
    for words in
        [&["vmrun", "nonsense", "--x", ""][..], &["vmrun", "ctl", "--vm", "\u{1b}", "disk-remove", ""], &[]]
    {
        let done = Done::of(empty.vmrun().args(["__complete", "--"]).args(words).output().unwrap()).ok();
        assert_eq!(done.stderr, "", "{words:?}");
    }
    assert!(!empty.state_home().exists() && !empty.cache().exists());
}
