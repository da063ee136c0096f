//! Ways to boot, and what else a VM can be given at its start.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::support::boot_sector::Guest;
use crate::support::cd;
use crate::support::linux::Linux;
use crate::support::sandbox::{PATIENCE, Sandbox, linux_guest};

#[test]
fn a_disk_image_and_a_cd_boot() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::PowersOff);
    let iso = sandbox.file("guest.iso");
    cd::write(Guest::PowersOff, &iso);
    for arguments in [vec![image.clone()], vec![iso.clone()], vec!["--iso".into(), iso]] {
        let vm = sandbox.foreground(&arguments);
        vm.wait_for(Guest::PowersOff.greeting());
        let ended = vm.end();
        assert_eq!(ended.code(), 0, "{arguments:?}: {ended:#?}");
    }
}

#[test]
fn uefi_boots_and_keeps_its_variables() {
    // firmware starts no ELF kernel
    let prefix = linux_guest().with_file_name("bzimage");
    let vm = Linux::boot_in(Sandbox::new(), &prefix, ["--uefi", "--name", "uefi"]);
    vm.run("test -d /sys/firmware/efi");
    assert_eq!(vm.run("cat /sys/class/dmi/id/product_uuid"), vm.status()["uuid"].as_str().unwrap());
    let names = || std::fs::read_dir(vm.file("state")).unwrap().map(|entry| entry.unwrap().file_name());
    let is_variables = |name: &std::ffi::OsString| name.to_string_lossy().to_lowercase().contains("vars");
    assert!(names().any(|name| is_variables(&name)), "{:?}", names().collect::<Vec<_>>());
    vm.quit();
}

#[test]
fn a_pc_takes_devices_as_well() {
    let vm = Linux::boot(["--machine", "pc", "--data", "for a pc"]);
    assert!(vm.run("cat /sys/class/dmi/id/product_name").contains("i440FX"));
    vm.sees("vmrun-guest: metadata");
    assert_eq!(vm.run("cat /metadata/config"), "for a pc");
    vm.ctl(["disk-add", "a.qcow2,size=8M,serial=PC,id=a"]);
    let (disk, _) = vm.sees_disk("PC");
    vm.run(&format!("echo x > /dev/{disk}"));
    vm.ctl(["usb-add", "usb-tablet"]);
    vm.sees("add input QEMU QEMU USB Tablet");
    vm.ctl(["disk-remove", "a"]);
    vm.sees(&format!("remove block {disk}"));
    vm.quit();
}

#[test]
fn shared_folder_screen_and_own_monitor() {
    let sandbox = Sandbox::new();
    let shared = sandbox.file("shared, one");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("from-host"), "hello guest\n").unwrap();
    // a comma in a value is typed twice
    let share = format!("{},tag=files", shared.display().to_string().replace(',', ",,"));
    let options =
        ["--virtiofs", &share, "--display", "headless", "--qmp", "own.sock", "--qmp-log", "qmp.log"];
    let vm = Linux::boot_in(sandbox, &linux_guest(), options);

    vm.run("mkdir /tmp/files && mount -t virtiofs files /tmp/files");
    assert_eq!(vm.run("cat /tmp/files/from-host"), "hello guest");
    vm.run("echo hello host > /tmp/files/from-guest");
    assert_eq!(std::fs::read_to_string(shared.join("from-guest")).unwrap(), "hello host\n");

    assert!(vm.run("cat /sys/bus/pci/devices/*/class").lines().any(|class| class.starts_with("0x03")));
    let shot = vm.file("screen.ppm");
    vm.ctl([
        "qmp",
        &serde_json::json!({ "execute": "screendump", "arguments": { "filename": shot } }).to_string(),
    ]);
    assert!(std::fs::read(&shot).unwrap().starts_with(b"P6"));

    // vmrun's own session goes on beside a client of the user's
    let mut monitor = Monitor::connect(&vm.file("own.sock"));
    assert!(monitor.next()["QMP"].is_object());
    assert_eq!(monitor.run(r#"{"execute": "qmp_capabilities"}"#), serde_json::json!({}));
    assert_eq!(monitor.run(r#"{"execute": "query-status"}"#)["running"], true);
    vm.ctl(["pause"]);
    assert_eq!(monitor.run(r#"{"execute": "query-status"}"#)["status"], "paused");
    assert_eq!(monitor.run(r#"{"execute": "cont"}"#), serde_json::json!({}));
    vm.until("the books follow", |vm| vm.status()["state"] == "running");

    let log = std::fs::read_to_string(vm.file("qmp.log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        assert!(line["at"].is_number() && (line["dir"] == "in" || line["dir"] == "out"), "{line}");
        // the guest agent marks the beginning of its first answer with a byte that is no JSON
        assert!(line["msg"].is_object() || line["msg"].is_string(), "{line}");
    }
    let executed =
        |name: &str| lines.iter().any(|line| line["msg"]["execute"] == name && line["dir"] == "out");
    assert!(executed("qmp_capabilities") && executed("screendump") && executed("stop"));
    assert!(!executed("query-status"), "that was on the other monitor");
    let own = vm.file("own.sock");
    vm.quit();
    assert!(!own.exists());
}

/// A raw client of QEMU's monitor.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Sends a command; its result, past all events.
    fn run(&mut self, command: &str) -> Value {
        self.0.get_mut().write_all(command.as_bytes()).unwrap();
        loop {
            let mut message = self.next();
            if message.get("event").is_none() {
                return message["return"].take();
            }
        }
    }
}
