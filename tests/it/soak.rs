//! Everything at once, at random: VMs are started in every way there is, changed, attacked, killed and taken over. Whatever
//! happens, `status` says what QEMU says; at the end nothing is left, and who lived through it has not grown.
//!
//! 15 seconds in the suite; `make soak SECONDS=3600 SEED=n` is the long form. What is done depends on the printed seed alone, when
//! it meets what does not.

mod attacks;
mod changes;
mod curve;
mod vms;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::chance::Chance;
use crate::support::orphan::forget_taken;
use crate::support::processes::eventually;
use crate::support::sandbox::{Done, Sandbox};

use curve::Curve;
use vms::{Kind, Vm};

/// Of VMs at once, apart from the one that lives through all of it.
const MOST: usize = 3;
/// The name of the one that is never killed.
const ELDER: &str = "elder";

struct Soak {
    sandbox: Sandbox,
    chance: Chance,
    runtime: tokio::runtime::Runtime,
    elder: Vm,
    others: Vec<Vm>,
    started: usize,
    counts: BTreeMap<&'static str, u64>,
    /// The last operations, printed on a failure.
    trail: Vec<String>,
}

/// How many operations are kept.
const TOLD: usize = 40;

impl Drop for Soak {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = self.trail.len().saturating_sub(TOLD);
            println!("{:?}\n{}", self.counts, self.trail[last..].join("\n"));
        }
    }
}

impl Soak {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let chance = Chance::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let elder = Vm::start(&sandbox, &runtime, ELDER, Kind::Detached);
        Self {
            sandbox,
            chance,
            runtime,
            elder,
            others: Vec::new(),
            started: 1,
            counts: BTreeMap::new(),
            trail: Vec::new(),
        }
    }

    /// Notes what is about to be done.
    fn note(&mut self, whom: usize, what: &str) {
        let line = format!("{} ({:?}): {what}", self.vm(whom).name, self.vm(whom).kind);
        self.trail.push(line);
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// One thing, whatever it is.
    fn step(&mut self) {
        if self.others.len() < MOST && self.chance.below(4) == 0 {
            return self.start();
        }
        let whom = self.chance.below(self.others.len() as u64 + 1) as usize;
        match self.chance.below(100) {
            0..64 => self.change(whom),
            64..80 => self.attack(whom),
            80..86 => self.look(whom),
            86..92 => self.kill_supervisor(whom),
            92..96 => self.kill_qemu(whom),
            _ => self.shut_down(whom),
        }
    }

    fn vm(&self, whom: usize) -> &Vm {
        self.others.get(whom).unwrap_or(&self.elder)
    }

    fn start(&mut self) {
        let kinds = [Kind::Detached, Kind::Detached, Kind::Foreground, Kind::Wrapped, Kind::Library];
        let kind = kinds[self.chance.below(kinds.len() as u64) as usize];
        self.launch(kind);
    }

    fn launch(&mut self, kind: Kind) {
        // an earlier one's images and state are met again
        let name = format!("vm{}", self.started % 7);
        self.started += 1;
        if self.others.iter().any(|vm| vm.name == name) {
            return;
        }
        self.others.push(Vm::start(&self.sandbox, &self.runtime, &name, kind));
        self.note(self.others.len() - 1, "started");
        self.count("VMs started");
    }

    fn change(&mut self, whom: usize) {
        let arguments = changes::any(&mut self.chance);
        let done = self.ctl(whom, &arguments);
        let said = if done.code == 0 { "" } else { done.stderr.lines().next().unwrap_or_default() };
        self.note(whom, &format!("{} → {} {said}", arguments.join(" "), done.code));
        // ambiguous as things are, refused by QEMU or the state it is in, or not done in time by a guest that does not know how
        assert!(matches!(done.code, 0 | 2 | 4 | 5), "{arguments:?}: {done:#?}");
        assert!(!done.stderr.contains("panicked"), "{done:#?}");
        if done.stderr.contains("QEMU did not answer") && whom < self.others.len() {
            return self.bury(whom);
        }
        self.count(if done.code == 0 { "changes made" } else { "changes refused" });
    }

    /// One whose QEMU hangs.
    fn bury(&mut self, whom: usize) {
        let file = self.sandbox.runtime().join(&self.vm(whom).name).join("vm.json");
        let known: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let pid = known["facts"]["qemu_pid"].as_i64().unwrap();
        assert!(vms::hangs(pid), "QEMU waits for commands and vmrun for an answer");
        self.note(whom, "kill QEMU, which hangs");
        vms::kill(pid);
        self.count("QEMUs that hung");
        self.others.remove(whom).ended(&self.sandbox);
    }

    fn attack(&mut self, whom: usize) {
        let folder = self.sandbox.runtime().join(&self.vm(whom).name);
        let attack = attacks::any(&mut self.chance, &folder);
        self.note(whom, &format!("attack {attack}"));
        self.count("attacks");
        self.look(whom);
    }

    fn ctl(&self, whom: usize, arguments: &[String]) -> Done {
        let name = self.vm(whom).name.clone();
        self.sandbox.ctl(["--vm".to_owned(), name].iter().chain(arguments))
    }

    fn json(&self, whom: usize, arguments: &[&str]) -> Value {
        let name = &self.vm(whom).name;
        self.sandbox.ctl_json([&["--vm", name], arguments].concat())
    }

    /// What vmrun says is what QEMU says.
    fn look(&mut self, whom: usize) {
        let status = self.json(whom, &["status"]);
        let run = self.json(whom, &["qmp", "query-status"]);
        let (said, is) = (status["state"].as_str().unwrap(), run["status"].as_str().unwrap());
        // a reset makes `prelaunch` of QEMU's `paused`
        let same = said == is || (["starting", "paused"].contains(&said) && is == "prelaunch");
        assert!(same, "vmrun says {said}, QEMU {is}");
        let listed = r#"{"execute": "qom-list", "arguments": {"path": "/machine/peripheral"}}"#;
        let listed = self.json(whom, &["qmp", listed]);
        let there: Vec<&str> =
            listed.as_array().unwrap().iter().filter_map(|device| device["name"].as_str()).collect();
        for kind in ["usb", "disks", "nics"] {
            for device in status[kind].as_array().unwrap() {
                let id = device["id"].as_str().unwrap();
                // what a wrapped QEMU has by itself may have no id, and then has no place in this list
                let own = id.contains('#') || id.contains('/') || self.vm(whom).kind == Kind::Wrapped;
                if own || there.contains(&id) {
                    continue;
                }
                // a guest may let go of it, or be reset, between the two looks
                assert_eq!(device["phase"], "removing", "{id} is not in QEMU: {there:?}");
                eventually(&format!("{id} is gone from the books"), || {
                    let now = self.json(whom, &["status"]);
                    now[kind].as_array().unwrap().iter().all(|device| device["id"] != id)
                });
            }
        }
        for id in there.iter().filter(|id| id.starts_with("soak-")) {
            let known = ["usb", "disks", "nics", "devices"]
                .iter()
                .any(|kind| status[kind].as_array().unwrap().iter().any(|device| device["id"] == *id));
            assert!(known, "{id} is in QEMU only: {status:#}");
        }
        let usernet = self.json(whom, &["hmp", "info usernet"]);
        let forwards = usernet["text"].as_str().unwrap_or_default().matches("HOST_FORWARD").count();
        assert_eq!(status["forwards"].as_array().unwrap().len(), forwards, "{usernet}");
        self.count("looks");
    }

    /// A detached or wrapped QEMU continues, and the next command takes it over as it was.
    fn kill_supervisor(&mut self, whom: usize) {
        if whom >= self.others.len() || self.vm(whom).kind == Kind::Library {
            return;
        }
        let mut before = self.json(whom, &["status"]);
        self.note(whom, "kill the supervisor");
        vms::kill(before["supervisor_pid"].as_i64().unwrap());
        self.count("supervisors killed");
        if self.vm(whom).kind == Kind::Foreground {
            let vm = self.others.remove(whom);
            vm.ended(&self.sandbox);
            return;
        }
        let mut after = self.json(whom, &["status"]);
        assert_ne!(before["supervisor_pid"], after["supervisor_pid"]);
        forget_taken(&mut before);
        forget_taken(&mut after);
        for same in ["qemu_pid", "state", "forwards"] {
            assert_eq!(before[same], after[same], "{same}");
        }
        // what the guest is to let go of may go at any moment, and with it its slot
        let lasting = |status: &Value, kind: &str| -> Vec<Value> {
            let all = status[kind].as_array().unwrap();
            all.iter().filter(|device| device["phase"] != "removing").cloned().collect()
        };
        for kind in ["disks", "nics", "devices"] {
            assert_eq!(lasting(&before, kind), lasting(&after, kind), "{kind}");
        }
        let all_last = ["disks", "nics", "devices"]
            .iter()
            .all(|kind| lasting(&before, kind).len() == before[kind].as_array().unwrap().len());
        assert!(!all_last || before["slots"] == after["slots"], "{}, {}", before["slots"], after["slots"]);
        // how a USB device is described is not written down
        let ids = |status: &Value| -> Vec<Value> {
            status["usb"].as_array().unwrap().iter().map(|device| device["id"].clone()).collect()
        };
        assert_eq!(ids(&before), ids(&after));
        self.count("VMs taken over");
        self.look(whom);
    }

    fn kill_qemu(&mut self, whom: usize) {
        if whom >= self.others.len() {
            return;
        }
        let status = self.json(whom, &["status"]);
        self.note(whom, "kill QEMU");
        vms::kill(status["qemu_pid"].as_i64().unwrap());
        self.count("QEMUs killed");
        self.others.remove(whom).ended(&self.sandbox);
    }

    fn shut_down(&mut self, whom: usize) {
        if whom >= self.others.len() {
            return;
        }
        self.note(whom, "shut down");
        let vm = self.others.remove(whom);
        let force = self.chance.below(2) == 0;
        let asked: &[&str] = if force { &["--force"] } else { &["--timeout", "1s"] };
        let done = self.sandbox.ctl([&["--vm", &vm.name, "shutdown"], asked].concat());
        assert!(matches!(done.code, 0 | 12), "{done:#?}");
        self.count("VMs shut down");
        vm.ended(&self.sandbox);
    }

    /// All goes, and nothing is left.
    fn end(mut self) -> BTreeMap<&'static str, u64> {
        while !self.others.is_empty() {
            self.shut_down(0);
        }
        self.sandbox.ctl(["--vm", ELDER, "shutdown", "--force"]).ok();
        self.sandbox.is_clean();
        let part = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|name| name == "part");
        let left: Vec<_> = std::fs::read_dir(self.sandbox.path()).unwrap().flatten().filter(part).collect();
        assert!(left.is_empty(), "{left:?}");
        std::mem::take(&mut self.counts)
    }
}

#[test]
fn nothing_is_left_of_random_lives_and_deaths() {
    let told = std::env::var("VMRUN_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(told.unwrap_or(15));
    let mut soak = Soak::new();
    // what a process has once (tokio's signal pipe) is there from the first VM of the library on
    soak.launch(Kind::Library);
    soak.shut_down(0);
    let descriptors = curve::descriptors("self");
    let began = Instant::now();
    let mut curve = Curve::new(time);
    let mut steps = 0u64;
    while began.elapsed() < time {
        if curve.is_due(began.elapsed()) {
            let elder = soak.json(usize::MAX, &["status"]);
            curve.sample(began.elapsed(), &elder["supervisor_pid"].to_string(), steps);
        }
        soak.step();
        steps += 1;
    }
    let counts = soak.end();
    println!("{steps} steps in {:?}: {counts:?}", began.elapsed());
    curve.print();
    curve.is_stable();
    eventually("no descriptor of this process is left", || curve::descriptors("self") <= descriptors);
}
