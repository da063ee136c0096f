//! A start that ends in the firmware: reported by `status`, `events` and `wait`.

use std::os::unix::fs::FileExt;

use serde_json::Value;

use crate::support::boot_sector::{self, Guest};
use crate::support::sandbox::Sandbox;

/// Why the VM is in its state.
fn reason(sandbox: &Sandbox) -> Value {
    sandbox.ctl_json(["status"])["reason"].clone()
}

#[test]
fn a_bios_that_finds_nothing_says_so_until_a_reset() {
    let sandbox = Sandbox::new();
    let disk = std::fs::File::create(sandbox.file("disk.img")).unwrap();
    disk.set_len(boot_sector::DISK_SIZE).unwrap();
    sandbox.detached(["--networking", "none", "disk.img"]);
    let name = "VMRUN_NOTHING_TO_BOOT";
    // whatever needs a guest waits in vain, and says so long before its time is over
    let waited = sandbox.ctl(["wait", "--any", "agent", "console=login:", "--timeout", "100s"]);
    waited.fails(4, &["'agent' or 'console=login:' cannot be met", "found nothing to boot", "--uefi"]);
    assert_eq!(reason(&sandbox), "the firmware found nothing to boot");
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    let text = sandbox.ctl(["status"]).ok().stdout;
    assert!(text.contains("the firmware found nothing to boot"), "{text}");
    // what the firmware itself has said is there to be waited for
    sandbox.ctl(["wait", "console=No bootable device", "--timeout", "100s"]).ok();
    sandbox.ctl(["wait", "--any", "console=login:", "event=RESET", "--timeout", "10ms"]).fails(5, &[]);
    let mut events = sandbox.vmrun();
    events.args(["ctl", "events", "--filter", name, "--since", "0"]);
    let events = crate::support::sandbox::Foreground::start(events);
    assert!(events.wait_for(name).contains("found nothing to boot"));
    // a pause is none of the firmware's affair
    sandbox.ctl(["pause"]).ok();
    sandbox.ctl(["resume"]).ok();
    assert_eq!(reason(&sandbox), "the firmware found nothing to boot");
    disk.write_all_at(&boot_sector::boot_sector(Guest::IgnoresButton), 0).unwrap();
    sandbox.ctl(["reset"]).ok();
    sandbox.ctl(["wait", &format!("console={}", Guest::IgnoresButton.greeting())]).ok();
    assert_eq!(reason(&sandbox), Value::Null);
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn a_uefi_shell_is_told_as_well() {
    let sandbox = Sandbox::new();
    let flags = ["--uefi", "--networking", "none", "--disk", "size=1M", "--wait", "agent"];
    let start = sandbox.run(["qemu", "--detached"].iter().chain(&flags).chain(&["--keep"]));
    start.fails(4, &["'agent' cannot be met", "found nothing to boot, and shows its shell", "--keep"]);
    let told = reason(&sandbox);
    assert_eq!(told, "the firmware found nothing to boot, and shows its shell");
    // a shell can be used, and is waited for
    sandbox.ctl(["wait", "console=does not come", "--timeout", "500ms"]).fails(5, &[]);
    sandbox.ctl(["shutdown", "--force"]).ok();
}
