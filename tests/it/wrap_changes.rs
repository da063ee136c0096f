//! VMs that the user has put together, changed by `vmrun ctl` and by their own owners at once.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::boot_sector::Guest;
use crate::support::http;
use crate::support::processes;
use crate::support::sandbox::{Foreground, PATIENCE, Sandbox, linux_guest};

/// A wrapped QEMU, with a monitor of its owner's.
struct Wrapped {
    vm: Foreground,
    sandbox: Sandbox,
}

/// The owner's own client.
struct Owner(BufReader<UnixStream>);

impl Wrapped {
    #[track_caller]
    fn start(sandbox: Sandbox, arguments: &[&str]) -> Self {
        let mut command = sandbox.vmrun();
        command.args([
            "wrap",
            "--name",
            "vm",
            "--",
            "qemu-system-x86_64",
            "-display",
            "none",
            "-monitor",
            "none",
        ]);
        let vm = Foreground::start(wrap_with(command, arguments));
        let wrapped = Self { vm, sandbox };
        processes::eventually("it is found", || wrapped.sandbox.ctl(["status"]).code == 0);
        wrapped
    }

    #[track_caller]
    fn ctl(&self, arguments: &[&str]) -> String {
        self.sandbox.ctl(arguments).line()
    }

    #[track_caller]
    fn ids(&self, list: &str) -> Vec<String> {
        let all: Vec<Value> = serde_json::from_value(self.sandbox.ctl_json([list])).unwrap();
        all.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    }

    fn owner(&self) -> Owner {
        let socket = UnixStream::connect(self.sandbox.file("own-qmp")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut owner = Owner(BufReader::new(socket));
        owner.line();
        owner.ask("qmp_capabilities", json!({}));
        owner
    }

    /// Ends it; QEMU's own exit code, and nothing is left.
    #[track_caller]
    fn ended(self) -> i32 {
        let Self { vm, sandbox } = self;
        let code = vm.end().code();
        sandbox.is_clean();
        code
    }
}

fn wrap_with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments).args(["-qmp", "unix:own-qmp,server=on,wait=off"]);
    command
}

impl Owner {
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// A command's answer; events are skipped.
    #[track_caller]
    fn ask(&mut self, execute: &str, arguments: Value) -> Value {
        let command = json!({ "execute": execute, "arguments": arguments });
        self.0.get_mut().write_all(command.to_string().as_bytes()).unwrap();
        loop {
            let line = self.line();
            assert!(line.get("error").is_none(), "{command}: {line}");
            if let Some(value) = line.get("return") {
                return value.clone();
            }
        }
    }

    #[track_caller]
    fn hears(&mut self, event: &str) {
        while self.line()["event"] != event {}
    }
}

const PORTS: [&str; 4] = [
    "-device",
    "pcie-root-port,id=rp1,chassis=1,slot=1",
    "-device",
    "pcie-root-port,id=rp2,chassis=2,slot=2",
];

fn image(sandbox: &Sandbox, name: &str) {
    std::fs::File::create(sandbox.file(name)).unwrap().set_len(1 << 20).unwrap();
}

#[test]
fn what_it_has_is_found_and_has_its_own_names() {
    let sandbox = Sandbox::new();
    for name in ["named.img", "plain.img", "cd.iso"] {
        image(&sandbox, name);
    }
    let rest = [
        "-M",
        "q35",
        "-m",
        "64",
        "-smp",
        "2",
        "-uuid",
        "00112233-4455-6677-8899-aabbccddeeff",
        "-blockdev",
        "raw,node-name=node,file.driver=file,file.filename=named.img",
        "-device",
        "virtio-blk-pci,id=named,drive=node,bus=rp1,serial=S1",
        "-drive",
        "file=plain.img,format=raw,if=virtio",
        "-cdrom",
        "cd.iso",
        "-device",
        "qemu-xhci,id=myusb",
        "-device",
        "usb-tablet,id=pen",
        "-device",
        "usb-kbd",
        "-nic",
        "user,mac=52:54:00:aa:bb:cc,hostfwd=tcp:127.0.0.1:0-:22",
        "-sandbox",
        "on,spawn=deny",
    ];
    let vm = Wrapped::start(sandbox, &[&PORTS[..], &rest].concat());
    let status = vm.sandbox.ctl_json(["status"]);
    for (key, expected) in [
        ("uuid", json!("00112233-4455-6677-8899-aabbccddeeff")),
        ("arch", json!("x86_64")),
        ("cpus", json!(2)),
        ("memory_bytes", json!(64 << 20)),
        ("accel", json!("tcg")),
        ("sandbox", json!(true)),
        ("wrapped", json!(true)),
        ("networking", json!("user")),
        ("mac", json!("52:54:00:aa:bb:cc")),
        ("slots_total", json!(2)),
        ("slots_used", json!(1)),
        ("slots", json!([{ "name": "rp1", "device": "named" }, { "name": "rp2" }])),
    ] {
        assert_eq!(status[key], expected, "{key}: {status:#}");
    }
    assert!(status["machine"].as_str().unwrap().starts_with("pc-q35-"), "{status:#}");
    assert_eq!(status["forwards"][0]["guest_port"], 22);
    assert_eq!(vm.ids("disk-list"), ["ide2-cd0", "named", "virtio0"]);
    assert_eq!(status["disks"][1]["serial"], "S1");
    assert_eq!(status["disks"][2]["file"], "plain.img");
    assert_eq!(vm.ids("usb-list"), ["pen", "usb-kbd.0"]);

    // its only controller takes what comes; the spare port stays
    let mouse = vm.ctl(&["usb-add", "usb-mouse"]);
    assert!(vm.ctl(&["hmp", "info qtree"]).contains(&format!("dev: usb-mouse, id \"{mouse}\"")));
    assert_eq!(vm.sandbox.ctl_json(["status"])["slots_used"], 1);
    vm.ctl(&["usb-remove", "pen"]);
    assert_eq!(vm.ids("usb-list"), ["usb-kbd.0", mouse.as_str()]);
    vm.sandbox.ctl(["usb-remove", "usb-kbd.0"]).fails(4, &["'usb-kbd.0' was given no id", "id=ID"]);
    vm.sandbox.ctl(["disk-remove", "virtio0"]).fails(4, &["'virtio0' was given no id"]);

    let host = vm.ctl(&["port-add", "0:80"]);
    let forwards = vm.ctl(&["hmp", "info usernet"]);
    assert!(forwards.contains(&host), "{forwards}");
    vm.ctl(&["port-remove", &host]);
    assert!(!vm.ctl(&["hmp", "info usernet"]).contains(&host));

    // the one spare slot takes one, and the drive another medium
    assert_eq!(vm.ctl(&["disk-add", "new.img,size=1M,id=new"]), "new");
    vm.sandbox.ctl(["disk-add", "more.img,size=1M"]).fails(4, &["all 2 hot-plug slots", "pcie-root-port"]);
    vm.sandbox.ctl(["disk-add", "file=named.img,bus=usb"]).fails(4, &["in use already, by 'named'"]);
    image(&vm.sandbox, "other.iso");
    vm.ctl(&["media-change", "ide2-cd0", "other.iso"]);
    let disks = vm.sandbox.ctl_json(["disk-list"]);
    assert!(disks[0]["file"].as_str().unwrap().ends_with("other.iso"), "{disks:#}");

    for refused in [
        &["console"][..],
        &["logs"],
        &["ctl", "exec", "--", "true"],
        &["ctl", "wait", "agent"],
        &["ctl", "wait", "console=x"],
    ] {
        vm.sandbox.run(refused).fails(4, &["this VM was not started by `vmrun qemu`"]);
    }
    vm.ctl(&["screenshot", "picture.png"]);
    vm.sandbox.ctl(["shutdown", "--force"]).ok();
    assert_eq!(vm.ended(), 0);
}

#[test]
fn what_its_owner_does_is_seen() {
    let sandbox = Sandbox::new();
    image(&sandbox, "owners.img");
    // a node of the owner's with vmrun's own way of naming
    let blocks = [
        "-blockdev",
        "file,node-name=disk0.file,filename=owners.img",
        "-blockdev",
        "raw,node-name=disk0,file=disk0.file",
        "-device",
        "virtio-scsi-pci,id=hba",
        "-device",
        "scsi-hd,id=disk0,drive=disk0,bus=hba.0",
        // what nothing uses yet is theirs all the same, whatever it is called
        "-blockdev",
        "null-co,node-name=medium1",
        "-blockdev",
        "null-co,node-name=medium-of-mine",
    ];
    let vm = Wrapped::start(sandbox, &blocks);
    let told = vm.sandbox.ctl(["status"]).ok().stdout.clone();
    assert!(told.contains("off (QEMU's command line has no `-sandbox on`)"), "{told}");
    let mut owner = vm.owner();
    owner.ask("stop", json!({}));
    assert_eq!(vm.sandbox.ctl_json(["status"])["state"], "paused");
    vm.ctl(&["resume"]);
    owner.hears("RESUME");

    // neither plugging nor forwarding has an event
    owner.ask("device_add", json!({ "driver": "qemu-xhci", "id": "own" }));
    owner.ask("device_add", json!({ "driver": "usb-kbd", "id": "keys" }));
    owner.ask("human-monitor-command", json!({ "command-line": "hostfwd_add tcp:127.0.0.1:0-:8080" }));
    assert_eq!(vm.ids("usb-list"), ["keys"]);
    assert_eq!(vm.sandbox.ctl_json(["port-list"])[0]["guest_port"], 8080);
    vm.sandbox.ctl(["usb-add", "usb-mouse", "--id", "keys"]).fails(4, &["'keys' is taken"]);
    owner.ask("device_del", json!({ "id": "keys" }));
    owner.hears("DEVICE_DELETED");
    assert!(vm.ids("usb-list").is_empty());

    // what vmrun removes of theirs keeps its image open for them
    vm.ctl(&["disk-remove", "disk0"]);
    owner.hears("DEVICE_DELETED");
    owner.ask("device_add", json!({ "driver": "scsi-hd", "id": "disk0", "drive": "disk0", "bus": "hba.0" }));
    assert_eq!(vm.ids("disk-list")[0], "disk0");

    // and what it has plugged itself it cleans up, also under another supervisor
    vm.ctl(&["disk-add", "ours.img,size=1M,bus=scsi,id=ours"]);
    let supervisor = vm.sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
    processes::send(i32::try_from(supervisor).unwrap(), nix::sys::signal::Signal::SIGKILL);
    processes::eventually("a new one", || vm.sandbox.ctl(["status"]).code == 0);
    let nodes = owner.ask("query-named-block-nodes", json!({ "flat": true })).to_string();
    for node in ["medium1", "medium-of-mine", "disk0"] {
        assert!(nodes.contains(&format!("\"{node}\"")), "{node} is gone: {nodes}");
    }
    vm.ctl(&["disk-remove", "disk0"]);
    vm.ctl(&["disk-remove", "ours"]);
    let nodes = owner.ask("query-named-block-nodes", json!({ "flat": true }));
    let names: Vec<&str> =
        nodes.as_array().unwrap().iter().filter_map(|node| node["node-name"].as_str()).collect();
    assert!(names.contains(&"disk0") && names.contains(&"disk0.file"), "{names:?}");
    assert!(!names.contains(&"ours") && !names.contains(&"ours.file"), "{names:?}");

    owner.ask("quit", json!({}));
    assert_eq!(vm.ended(), 0);
}

/// Its disk is moved, and another file takes its name. Which file it is tell QEMU's descriptors, also to the next supervisor.
#[test]
fn a_disk_is_the_file_that_qemu_has_open_whatever_has_its_name() {
    let sandbox = Sandbox::new();
    image(&sandbox, "disk.img");
    let drive = ["-M", "q35", "-drive", "file=disk.img,format=raw,if=virtio"];
    let vm = Wrapped::start(sandbox, &[&drive[..], &PORTS].concat());
    let is_marked = |name: &str| xattr::get(vm.sandbox.file(name), "user.vmrun.format").unwrap().is_some();
    processes::eventually("its disk is known to be raw", || is_marked("disk.img"));
    std::fs::rename(vm.sandbox.file("disk.img"), vm.sandbox.file("moved.img")).unwrap();
    image(&vm.sandbox, "disk.img");
    for life in ["first", "second"] {
        let taken =
            vm.sandbox.ctl(["disk-add", "moved.img,id=twice"]).fails(4, &["in use already, by 'virtio0'"]);
        assert!(!taken.stderr.contains("QEMU"), "{life}: {taken:#?}");
        let supervisor = vm.sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
        processes::send(i32::try_from(supervisor).unwrap(), nix::sys::signal::Signal::SIGKILL);
        processes::eventually("a new one", || vm.sandbox.ctl(["status"]).code == 0);
    }
    // another file has the name, of which vmrun knows nothing
    assert!(is_marked("moved.img") && !is_marked("disk.img"));
    vm.ctl(&["disk-add", "disk.img,id=new,format=raw"]);
    vm.owner().ask("quit", json!({}));
    assert_eq!(vm.ended(), 0);
}

#[test]
fn a_plugged_card_is_one_under_another_supervisor_too() {
    let port = ["-M", "q35", "-device", "pcie-root-port,id=rp1,chassis=1"];
    let vm = Wrapped::start(Sandbox::new(), &port);
    vm.ctl(&["nic-add", "user,id=lan"]);
    vm.ctl(&["port-add", "0:80", "--nic", "lan"]);
    let forwards = vm.sandbox.ctl_json(["port-list"]);
    assert_eq!(forwards[0]["nic"], "lan", "{forwards}");
    vm.ctl(&["link", "down", "lan"]);
    // the new supervisor does not look whether the guest has taken it
    let cards = || {
        let mut cards = vm.sandbox.ctl_json(["nic-list"]);
        for card in cards.as_array_mut().unwrap() {
            card.as_object_mut().unwrap().remove("taken");
        }
        cards
    };
    let before = cards();
    assert_eq!(before.as_array().unwrap().last().unwrap()["link_up"], false, "{before}");
    let supervisor = vm.sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
    processes::send(i32::try_from(supervisor).unwrap(), nix::sys::signal::Signal::SIGKILL);
    processes::eventually("a new one", || vm.sandbox.ctl(["status"]).code == 0);
    assert_eq!(cards(), before);
    assert_eq!(vm.sandbox.ctl_json(["port-list"]), forwards);
    vm.owner().ask("quit", json!({}));
    assert_eq!(vm.ended(), 0);
}

#[test]
fn a_disk_under_a_temporary_file_is_told_by_its_own() {
    let sandbox = Sandbox::new();
    image(&sandbox, "plain.img");
    let vm = Wrapped::start(
        sandbox,
        &["-M", "q35", PORTS[0], PORTS[1], "-snapshot", "-drive", "file=plain.img,format=raw,if=virtio"],
    );
    let nodes: Value = serde_json::from_str(&vm.ctl(&["qmp", "query-block"])).unwrap();
    let opened = nodes[0]["inserted"]["file"].as_str().unwrap();
    assert!(opened.starts_with("json:"), "QEMU has put nothing on top: {opened}");
    let disks = vm.sandbox.ctl_json(["disk-list"]);
    let disk = disks.as_array().unwrap().iter().find(|disk| disk["id"] == "virtio0").unwrap();
    assert_eq!((&disk["file"], &disk["format"]), (&json!("plain.img"), &json!("raw")), "{disk:#}");
    // the image is in use, whatever is on top of it
    vm.sandbox.ctl(["disk-add", "plain.img,id=twice"]).fails(4, &["in use already, by 'virtio0'"]);
    vm.owner().ask("quit", json!({}));
    assert_eq!(vm.ended(), 0);
}

#[test]
fn cards_without_an_id_are_listed_and_driven() {
    // the second back-end has the id of a device, and the third card is on no user network
    let cards = [
        "-M",
        "q35",
        "-nic",
        "user,mac=52:54:00:aa:bb:01",
        "-device",
        "virtio-rng-pci,id=wan",
        "-netdev",
        "user,id=wan",
        "-device",
        "pcie-root-port,id=rp1,chassis=1",
        "-device",
        "e1000,bus=rp1,netdev=wan,mac=52:54:00:aa:bb:02",
        "-netdev",
        "socket,id=tie,listen=127.0.0.1:0",
        "-device",
        "virtio-net-pci,netdev=tie,mac=52:54:00:aa:bb:03",
    ];
    let vm = Wrapped::start(Sandbox::new(), &cards);
    let list = vm.sandbox.ctl_json(["nic-list"]);
    let id_of = |mac: &str| {
        let card = list.as_array().unwrap().iter().find(|card| card["mac"] == mac);
        card.unwrap_or_else(|| panic!("{mac}: {list:#}"))["id"].as_str().unwrap().to_owned()
    };
    let ids = ["52:54:00:aa:bb:01", "52:54:00:aa:bb:02", "52:54:00:aa:bb:03"].map(id_of);
    assert_eq!((ids[1].as_str(), ids[2].as_str()), ("e1000.0", "tie"), "{list:#}");
    assert_eq!(list.as_array().unwrap().len(), 3, "{list:#}");

    // each rule lands in the network of the card that was named
    vm.ctl(&["port-add", "0:81", "--nic", &ids[1]]);
    let networks = vm.ctl(&["hmp", "info usernet"]);
    let (_, of_wan) = networks.split_once("(wan)").unwrap();
    assert!(of_wan.split("Hub").next().unwrap().contains(" 81 "), "{networks}");
    let refusal = vm.sandbox.ctl(["port-add", "0:82", "--nic", &ids[2]]);
    refusal.fails(4, &["network card 'tie' is not on user networking"]);

    for id in &ids {
        vm.ctl(&["link", "down", id]);
    }
    let list = vm.sandbox.ctl_json(["nic-list"]);
    assert!(list.as_array().unwrap().iter().all(|card| card["link_up"] == false), "{list:#}");
    vm.sandbox.ctl(["nic-remove", "tie"]).fails(4, &["'tie' was given no id", "id=ID"]);
    vm.owner().ask("quit", json!({}));
    assert_eq!(vm.ended(), 0);
}

#[test]
fn a_machine_can_go_on_after_its_end() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::ReactsToButton);
    let disk = ["-drive", "file=guest.img,format=raw", "-serial", "stdio"];
    let vm = Wrapped::start(sandbox, &[&["-no-shutdown", "-M", "q35"], &disk[..]].concat());
    vm.vm.wait_for(Guest::ReactsToButton.greeting());
    let mut owner = vm.owner();
    owner.ask("system_powerdown", json!({}));
    owner.hears("SHUTDOWN");
    assert_eq!(vm.sandbox.ctl_json(["status"])["state"], "stopping");
    owner.ask("system_reset", json!({}));
    owner.ask("cont", json!({}));
    processes::eventually("it runs again", || vm.sandbox.ctl_json(["status"])["state"] == "running");
    vm.ctl(&["pause"]);
    assert_eq!(vm.sandbox.ctl_json(["status"])["state"], "paused");
    owner.ask("quit", json!({}));
    assert_eq!(vm.ended(), 0);
}

/// A guest that says what it sees, on QEMU's own standard output.
fn a_guest_sees_it(machine: &[&str]) {
    let guest = linux_guest();
    let file = |end: &str| format!("{}-{end}", guest.display());
    let cmdline = std::fs::read_to_string(file("cmdline")).unwrap();
    let (kernel, initrd) = (file("kernel"), file("initrd.img"));
    let boot =
        ["-m", "256", "-serial", "stdio", "-kernel", &kernel, "-initrd", &initrd, "-append", cmdline.trim()];
    let net = ["-nic", "user,model=virtio-net-pci"];
    let vm = Wrapped::start(Sandbox::new(), &[machine, &boot, &net].concat());
    vm.vm.wait_for("vmrun-guest: ready");
    vm.ctl(&["usb-add", "usb-kbd", "--id", "keys"]);
    vm.vm.wait_for("add input QEMU QEMU USB Keyboard");
    vm.ctl(&["disk-add", "data.img,size=3M,serial=data,id=data"]);
    assert!(vm.vm.wait_for(" serial=data ").ends_with("size=3145728"));
    vm.ctl(&["disk-remove", "data"]);
    vm.vm.wait_for("remove block vda");
    vm.ctl(&["usb-remove", "keys"]);
    vm.vm.wait_for("remove input QEMU QEMU USB Keyboard");
    let host = vm.ctl(&["port-add", "0:80"]).parse().unwrap();
    vm.ctl(&["wait", "port=80", "--timeout", "1m"]);
    let deadline = Instant::now() + PATIENCE;
    let page = loop {
        match http::send(host, "GET", "/", "").and_then(|sent| sent.answer(PATIENCE)) {
            Ok(page) => break page,
            Err(error) if Instant::now() > deadline => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(30)),
        }
    };
    assert!(page.contains("vmrun guest"), "{page}");
    vm.sandbox.ctl(["shutdown", "--timeout", "1m"]).fails(0, &[]);
    assert_eq!(vm.ended(), 0);
}

#[test]
fn a_guest_on_q35_sees_changes() {
    a_guest_sees_it(&[&["-M", "q35"], &PORTS[..]].concat());
}

#[test]
fn a_guest_on_pc_sees_changes() {
    a_guest_sees_it(&["-M", "pc"]);
}
