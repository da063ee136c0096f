//! All files that vmrun makes in its own folders have names of its closed list: otherwise the next clean-up takes them for foreign
//! files, and stops.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::support::boot_sector::Guest;
use crate::support::orphan::{kill, kill_supervisor};
use crate::support::processes::qemu_of;
use crate::support::sandbox::{Done, Sandbox};

/// The names that anything was given in a folder, for however short a time: the kernel tells.
struct Names(Inotify);

impl Names {
    fn of(folder: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
        let given = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(folder, given | AddWatchFlags::IN_ONLYDIR).unwrap();
        Self(inotify)
    }

    /// With whether it was a folder.
    fn seen(&self) -> BTreeMap<OsString, bool> {
        let mut names = BTreeMap::new();
        while let Ok(events) = self.0.read_events() {
            for event in events {
                assert!(!event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW), "some are lost");
                let is_folder = event.mask.contains(AddWatchFlags::IN_ISDIR);
                names.extend(event.name.map(|name| (name, is_folder)));
            }
        }
        names
    }
}

fn kill_both(sandbox: &Sandbox) {
    let qemu = qemu_of(sandbox.path());
    kill_supervisor(sandbox);
    kill(qemu);
}

/// Whatever a VM with every flag that makes files has made, is put back after its death: a look at the VMs removes all of it.
#[test]
fn every_name_that_a_vm_makes_is_in_the_closed_list() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::ReactsToButton);
    std::fs::create_dir(sandbox.file("shared")).unwrap();
    let run = sandbox.runtime().join("vm");
    // the run directory of a dead VM is used again: so it can be watched from the start
    sandbox.detached(["--name", "vm", "guest.img"]);
    kill_both(&sandbox);
    let names = Names::of(&run);

    let strange = |name: &[u8]| OsString::from_vec(name.to_vec());
    let virtiofsd = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];
    let virtiofsd = virtiofsd.into_iter().find(|path| Path::new(path).exists()).expect("a virtiofsd");
    let mut command = sandbox.vmrun();
    command.args([
        "qemu",
        "--detached",
        "--name",
        "vm",
        "--ephemeral",
        "--uefi",
        "--display",
        "headless",
        "--usb",
    ]);
    command.args(["--data", "config", "--publish", "0:22", "--qmp", "own.sock", "--qmp-log", "qmp.log"]);
    command.args(["--virtiofs", "shared", "--virtiofsd", virtiofsd, "--disk", "size=1M", "--disk"]);
    command.arg(strange(b"\xff.img,size=1M")).arg("guest.img");
    Done::of(command.output().unwrap()).ok();
    let [state] = &sandbox.ephemeral_states()[..] else { panic!("not one state directory") };
    let state_names = Names::of(state);

    let changes = |round: &str| {
        let added = strange(format!("{round}.img,size=1M,id=d{round}").as_bytes());
        for change in [
            vec!["usb-add".into(), "usb-kbd".into()],
            vec!["disk-add".into(), added],
            vec!["nic-add".into(), format!("user,id=n{round}").into()],
            vec!["link".into(), "down".into(), "nic0".into()],
            vec!["screenshot".into(), "screen.png".into()],
            vec!["port-add".into(), "0:80".into()],
            vec!["media-eject".into(), "metadata".into(), "--force".into()],
            vec!["media-change".into(), "metadata".into(), "guest.img".into()],
        ] {
            sandbox.ctl(change).ok();
        }
        // this guest never lets go of it: it stays pending
        sandbox.ctl(["disk-remove", &format!("d{round}"), "--timeout", "10ms"]).fails(5, &[]);
    };
    changes("1");
    kill_supervisor(&sandbox);
    changes("2");
    kill_both(&sandbox);

    let (seen, mut seen_in_state) = (names.seen(), state_names.seen());
    let there = std::fs::read_dir(state).unwrap().map(|entry| (entry.unwrap().file_name(), false));
    seen_in_state.extend(there);
    for (expected, all) in [
        (
            &["control", "qmp", "qmp-shared", "agent", "vm.json", "pending.json", "share0", "image-0"][..],
            &seen,
        ),
        (&["console.log", "metadata.iso", "uefi-vars.fd", "overlay-disk0.qcow2"], &seen_in_state),
    ] {
        for name in expected {
            assert!(all.contains_key(OsStr::new(name)), "no {name} among {all:?}");
        }
    }
    for (prefix, kind) in [("screenshot-", "a picture"), (".vm.json.", "a file that is written in one step")]
    {
        let has = |name: &OsString| name.to_string_lossy().starts_with(prefix);
        assert!(seen.keys().any(has), "no name of {kind} among {seen:?}");
    }
    for (folder, names) in [(run.as_path(), &seen), (state, &seen_in_state)] {
        for (name, is_folder) in names {
            let path = folder.join(name);
            match (path.symlink_metadata().is_ok(), is_folder) {
                (true, _) => {}
                (false, true) => std::fs::create_dir(path).unwrap(),
                (false, false) => std::fs::write(path, "").unwrap(),
            }
        }
    }
    let listed = sandbox.run(["ls", "--json"]).ok();
    assert_eq!(listed.stdout.trim(), "[]", "{listed:#?}");
    assert!(!run.exists(), "{listed:#?}, seen: {seen:?}");
    assert!(!state.exists(), "{listed:#?}, seen: {seen_in_state:?}");
}
