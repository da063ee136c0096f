//! `--warm`: the first start boots and freezes, each other is a fork.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::boot_sector::{self, Guest};
use crate::support::chance::repetitions;
use crate::support::mounted::Mounted;
use crate::support::orphan::kill;
use crate::support::processes::eventually;
use crate::support::sandbox::{Done, Sandbox, linux_guest};

fn templates(sandbox: &Sandbox) -> Vec<Value> {
    sandbox.run(["templates", "--json"]).json().as_array().unwrap().clone()
}

/// Starts a warm VM of the boot sector that counts, and ends it. Whether it was booted, and not forked.
#[track_caller]
fn boots(sandbox: &Sandbox, words: &[&str]) -> bool {
    let image = sandbox.file("guest.img");
    let start = ["qemu", "-v", "--detached", "--mem", "64", "--warm", "running"];
    let started = sandbox.run(start.iter().chain(words).copied().chain([image.to_str().unwrap()])).ok();
    sandbox.ctl(["--vm", started.stdout.trim(), "shutdown", "--force"]).ok();
    started.stderr.contains("is being frozen into")
}

fn small() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Counts);
    sandbox
}

#[test]
fn the_first_start_boots_and_others_are_forks_of_it() {
    let sandbox = Sandbox::new();
    let guest = linux_guest();
    let start = |name: &str| {
        let words = ["--mem", "256", "--warm", "agent", "--name", name, "--publish", "0:80"];
        sandbox.detached(words.into_iter().chain([guest.to_str().unwrap()]))
    };
    assert_eq!(start("a"), "a");
    assert_eq!(start("b"), "b");
    for vm in ["a", "b"] {
        let words = sandbox.ctl(["--vm", vm, "exec", "--", "dmesg"]).ok().stdout;
        assert!(words.contains("reseeded due to virtual machine fork"), "{vm}: {words}");
    }
    let found = templates(&sandbox);
    assert_eq!((found.len(), &found[0]["forks"]), (1, &Value::from(2)), "{found:?}");
    assert!(found[0]["source"].as_str().unwrap().ends_with("guest-kernel"), "{found:?}");
    let ports = ["a", "b"].map(|vm| sandbox.ctl_json(["--vm", vm, "port-list"])[0]["host_port"].clone());
    assert_ne!(ports[0], ports[1]);
    // what is in use stays
    sandbox.run(["templates", "prune", "--all"]).ok();
    assert_eq!(templates(&sandbox).len(), 1);
    for vm in ["a", "b"] {
        sandbox.ctl(["--vm", vm, "shutdown"]).ok();
    }
    sandbox.is_clean();
    assert_eq!(templates(&sandbox)[0]["forks"], 0);
    sandbox.run(["templates", "prune", "--older-than", "1h"]).ok();
    assert_eq!(templates(&sandbox).len(), 1);
    let gone = sandbox.run(["templates", "prune", "--all"]).ok();
    assert!(gone.stdout.starts_with("1 removed"), "{gone:?}");
    assert!(templates(&sandbox).is_empty());
}

/// A test suite is started from many folders: only relative paths mean something else in each.
#[test]
fn the_working_directory_counts_where_a_path_is_relative() {
    let sandbox = small();
    let elsewhere = sandbox.file("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(sandbox.file("guest.img"), elsewhere.join("guest.img")).unwrap();
    let absolute = sandbox.file("guest.img");
    let mut templates_after = Vec::new();
    for (folder, image) in [
        (sandbox.path(), absolute.as_path()),
        (&elsewhere, &absolute),
        (&elsewhere, "guest.img".as_ref()),
        (sandbox.path(), "guest.img".as_ref()),
    ] {
        let mut command = sandbox.vmrun();
        command.current_dir(folder).args(["qemu", "--detached", "--mem", "64", "--warm", "running"]);
        let name = Done::of(command.arg(image).output().unwrap()).ok();
        sandbox.ctl(["--vm", name.stdout.trim(), "shutdown", "--force"]).ok();
        templates_after.push(templates(&sandbox).len());
    }
    assert_eq!(templates_after, [1, 1, 2, 3]);
}

#[test]
fn what_a_boot_depends_on_makes_a_new_template_and_nothing_else_does() {
    let sandbox = small();
    assert!(boots(&sandbox, &[]));
    assert!(!boots(&sandbox, &[]));
    // the fork's own
    for words in [&["--name", "x"][..], &["--paused"], &["--max-resets", "3"], &["--stop-timeout", "5s"]] {
        assert!(!boots(&sandbox, words), "{words:?}");
    }
    for words in [&["--cpus", "2"][..], &["--usb"], &["--data", "x"], &["--hotplug-slots", "1"]] {
        assert!(boots(&sandbox, words), "{words:?}");
        assert!(!boots(&sandbox, words), "{words:?}");
    }
    // another image under the same name
    let image = sandbox.file("guest.img");
    fs::remove_file(&image).unwrap();
    boot_sector::write(Guest::Counts, &image);
    assert!(boots(&sandbox, &[]));
    // a template that is damaged is made anew
    for damage in ["memory", "machine"] {
        let folder = templates(&sandbox).last().unwrap()["path"].as_str().map(PathBuf::from).unwrap();
        let file = fs::File::options().write(true).open(folder.join(damage)).unwrap();
        file.set_len(4096).unwrap();
        assert!(boots(&sandbox, &[]), "{damage}");
        assert!(!boots(&sandbox, &[]), "{damage}");
    }
    sandbox.is_clean();
}

#[test]
fn many_at_once_make_one_template() {
    let sandbox = small();
    let image = sandbox.file("guest.img");
    let started: Vec<_> = (0..6)
        .map(|_| {
            let mut command = sandbox.vmrun();
            command.args(["qemu", "-v", "--detached", "--mem", "64", "--warm", "running"]).arg(&image);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let done: Vec<Done> =
        started.into_iter().map(|started| Done::of(started.wait_with_output().unwrap()).ok()).collect();
    let booted = done.iter().filter(|done| done.stderr.contains("is being frozen into")).count();
    assert_eq!(booted, 1, "{done:#?}");
    let found = templates(&sandbox);
    assert_eq!((found.len(), &found[0]["forks"]), (1, &Value::from(6)), "{found:?}");
    for done in done {
        sandbox.ctl(["--vm", done.stdout.trim(), "shutdown", "--force"]).ok();
    }
    sandbox.is_clean();
}

#[test]
fn a_template_that_is_not_made_leaves_nothing() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let cached = |sandbox: &Sandbox| {
        let names = fs::read_dir(sandbox.cache().join("vmrun/templates")).into_iter().flatten().flatten();
        names.count()
    };
    // it ends before the condition is met: its console is shown
    let start = ["qemu", "--detached", "--mem", "64", "--warm"];
    let ends = sandbox.file("ends.img");
    boot_sector::write(Guest::PowersOff, &ends);
    let failed = sandbox.run(start.into_iter().chain(["agent", ends.to_str().unwrap()]));
    failed.fails(3, &["no template was made", "its console ends with"]);
    sandbox.is_clean();
    assert_eq!(cached(&sandbox), 0);
    // a signal, and a death, while it boots
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let vm = sandbox.foreground(["--mem", "64", "--warm", "console=never", image.to_str().unwrap()]);
        eventually("it boots", || sandbox.ctl(["status"]).code == 0);
        match signal {
            Signal::SIGKILL => kill(vm.pid()),
            signal => vm.signal(signal),
        }
        vm.end();
        sandbox.run(["ls"]).ok();
        sandbox.is_clean();
        // the lock of one that was killed
        sandbox.run(["templates", "prune", "--older-than", "1h"]).ok();
        assert_eq!(cached(&sandbox), 0);
    }
    // a cache that cannot be written to, or is open to others
    let folder = sandbox.cache().join("vmrun/templates");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = sandbox.run(start.into_iter().chain(["running", image.to_str().unwrap()]));
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("templates"), "{refused:?}");
    sandbox.is_clean();
    // a foreign file in a template: it stays, and so does all that is beside it
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let vm = sandbox.detached(start[2..].iter().copied().chain(["running", image.to_str().unwrap()]));
    sandbox.ctl(["--vm", &vm, "shutdown", "--force"]).ok();
    let template = templates(&sandbox)[0]["path"].as_str().map(PathBuf::from).unwrap();
    fs::write(template.join("thesis"), "x").unwrap();
    sandbox.run(["templates", "prune", "--all"]).ok();
    assert!(template.join("thesis").exists() && template.join("memory").exists());
}

#[test]
fn a_cache_has_a_size() {
    let sandbox = small();
    for cpus in ["1", "2", "3"] {
        assert!(boots(&sandbox, &["--cpus", cpus]));
    }
    // the first is used again: the second is the one that was not used for longest
    assert!(!boots(&sandbox, &["--cpus", "1"]));
    let found = templates(&sandbox);
    assert_eq!(found.len(), 3);
    let size = |template: &Value| template["disk_bytes"].as_u64().unwrap();
    let most = format!("{}K", found[1..].iter().map(size).sum::<u64>().div_ceil(1024) + 4);
    let gone = sandbox.run(["templates", "prune", "--max-size", &most]).ok();
    assert!(gone.stdout.starts_with("1 removed"), "{gone:?}");
    let left: Vec<Value> = templates(&sandbox).iter().map(|template| template["key"].clone()).collect();
    assert_eq!(left, found[1..].iter().map(|template| template["key"].clone()).collect::<Vec<_>>());
    assert!(!boots(&sandbox, &["--cpus", "1"]) && boots(&sandbox, &["--cpus", "2"]));
    sandbox.run(["templates", "prune"]).fails(2, &[]);
}

#[test]
fn what_cannot_be_frozen_is_refused_before_anything_is_booted() {
    let sandbox = small();
    let shared = format!("{},tag=t", sandbox.path().display());
    for (words, what) in [
        (&["guest.img,bus=nvme"][..], "NVMe"),
        (&["guest.img", "--disk", "new.img,size=1M,bus=nvme"], "--disk new.img"),
        (&["guest.img", "--device", "usb-host,vendorid=0x1,productid=0x2"], "usb-host"),
        (&["guest.img", "--device", "virtio-blk-pci,drive=x,share-rw=on"], "share-rw"),
        (&["guest.img", "--virtiofs", &shared], "--virtiofs"),
    ] {
        let start = ["qemu", "--detached", "--mem", "64", "--warm", "running"];
        let refused = sandbox.run(start.iter().chain(words)).fails(2, &[what, "without `--warm`"]);
        assert!(!refused.stderr.contains("booting once"), "{refused:?}");
        sandbox.is_clean();
    }
    assert!(!sandbox.cache().exists() && !sandbox.file("new.img").exists());
}

#[test]
fn a_disk_that_the_first_start_makes_belongs_to_the_template() {
    let sandbox = small();
    let disk = ["--disk", "data.img,size=8M"];
    assert!(boots(&sandbox, &disk));
    assert!(!boots(&sandbox, &disk));
    assert_eq!(templates(&sandbox).len(), 1);
    // another disk of that name is noticed
    fs::write(sandbox.file("data.img"), vec![1; 8 << 20]).unwrap();
    assert!(boots(&sandbox, &disk));
    assert!(!boots(&sandbox, &disk));
    // one without a path is in the template
    let own = ["--disk", "size=8M"];
    assert!(boots(&sandbox, &own));
    assert!(!boots(&sandbox, &own));
    sandbox.is_clean();
}

/// One that fits no more and cannot be removed: a VM uses it, or it has a foreign file.
#[test]
fn a_template_in_the_way_is_left_alone() {
    let sandbox = small();
    let image = sandbox.file("guest.img");
    let disk = ["--disk", "data.img,size=8M"];
    let start = ["--mem", "64", "--warm", "running", "--name", "first"];
    sandbox.detached(start.iter().chain(&disk).copied().chain([image.to_str().unwrap()]));
    fs::write(sandbox.file("data.img"), vec![1; 8 << 20]).unwrap();
    assert!(boots(&sandbox, &disk));
    assert!(!boots(&sandbox, &disk));
    assert_eq!(sandbox.ctl_json(["--vm", "first", "status"])["state"], "running");
    sandbox.ctl(["--vm", "first", "shutdown", "--force"]).ok();
    let found = templates(&sandbox);
    assert_eq!(found.len(), 2, "{found:?}");
    for template in &found {
        fs::write(PathBuf::from(template["path"].as_str().unwrap()).join("thesis"), "x").unwrap();
    }
    fs::write(sandbox.file("data.img"), vec![2; 8 << 20]).unwrap();
    assert!(boots(&sandbox, &disk));
    assert!(!boots(&sandbox, &disk));
    assert_eq!(templates(&sandbox).len(), 3);
    sandbox.is_clean();
}

#[test]
fn a_start_says_once_why_it_boots_and_leaves_no_lock() {
    let sandbox = small();
    let image = sandbox.file("guest.img");
    let start = ["qemu", "-v", "--detached", "--mem", "64", "--warm", "running", image.to_str().unwrap()];
    let started = sandbox.run(start).ok();
    assert_eq!(started.stderr.matches("there is no template").count(), 1, "{started:?}");
    let folder = sandbox.cache().join("vmrun/templates");
    let names = || {
        let names =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    assert!(names().iter().all(|name| !name.ends_with(".lock")), "{:?}", names());
    // that of a maker that was killed goes when others do
    let key = templates(&sandbox)[0]["key"].as_str().unwrap().to_owned();
    let stale = folder.join(format!("{key}.lock"));
    fs::write(&stale, "").unwrap();
    fs::write(folder.join("thesis.lock"), "").unwrap();
    sandbox.run(["templates", "prune", "--older-than", "1h"]).ok();
    assert!(!stale.exists() && folder.join("thesis.lock").exists());
    sandbox.ctl(["--vm", started.stdout.trim(), "shutdown", "--force"]).ok();
    // what cannot be read is called so
    fs::write(folder.join(&key).join("machine"), "x").unwrap();
    assert_eq!(templates(&sandbox)[0]["damaged"], true);
    let listed = sandbox.run(["templates"]).ok();
    assert!(listed.stdout.contains("damaged"), "{listed:?}");
    sandbox.is_clean();
}

#[test]
#[cfg_attr(lacks = "mount", ignore = "needs mount")]
fn a_cache_without_room_or_without_writing_is_told_with_what_can_be_done() {
    let sandbox = small();
    let image = sandbox.file("guest.img");
    let mounted = Mounted::tmpfs(&sandbox.cache(), "size=512k,mode=700");
    let start = ["qemu", "--detached", "--mem", "64", "--warm", "running", image.to_str().unwrap()];
    let refused = sandbox.run(start).fails(1, &["No space left on device", "XDG_CACHE_HOME"]);
    assert!(!refused.stderr.contains("keeps running"), "{refused:?}");
    sandbox.is_clean();
    let left = || fs::read_dir(sandbox.cache().join("vmrun/templates")).unwrap().count();
    assert_eq!(left(), 0);
    // not even a template's folder can be marked
    let filler = fs::write(sandbox.cache().join("filler"), vec![1; 1 << 20]);
    assert_eq!(filler.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let refused = sandbox.run(start).fails(1, &["No space left on device", "XDG_CACHE_HOME"]);
    assert!(!refused.stderr.contains("was not made by vmrun"), "{refused:?}");
    assert_eq!(left(), 0);
    mounted.read_only();
    sandbox.run(start).fails(1, &["Read-only file system", "XDG_CACHE_HOME"]);
    sandbox.is_clean();
}

/// A start that has found a template and one that has just made one keep it from being removed.
#[test]
fn a_template_is_in_use_from_the_moment_it_is_found() {
    let sandbox = small();
    assert!(boots(&sandbox, &[]));
    let stop = Stop(AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.0.load(Ordering::Relaxed) {
                    sandbox.run(["templates", "prune", "--all"]).ok();
                }
            });
        }
        let _stop = StopsAtEnd(&stop);
        // each start works, with a template that was found or with a new one
        for round in 0..repetitions(12) {
            println!("round {round}");
            boots(&sandbox, &[]);
        }
    });
    sandbox.is_clean();
}

struct Stop(AtomicBool);

/// Also if a test fails.
struct StopsAtEnd<'a>(&'a Stop);

impl Drop for StopsAtEnd<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// A template that was made while another VM had the image's name does not give its own to all forks.
#[test]
fn forks_are_named_after_the_image() {
    let sandbox = small();
    let other = sandbox.boot_sector(Guest::Halted);
    sandbox.detached(["--mem", "64", "--name", "guest", "--ephemeral", other.to_str().unwrap()]);
    let start = || {
        sandbox.detached(["--mem", "64", "--warm", "running", sandbox.file("guest.img").to_str().unwrap()])
    };
    assert_eq!(start(), "guest-2");
    for vm in ["guest", "guest-2"] {
        sandbox.ctl(["--vm", vm, "shutdown", "--force"]).ok();
    }
    assert_eq!(start(), "guest");
    sandbox.ctl(["shutdown", "--force"]).ok();
    sandbox.is_clean();
}
