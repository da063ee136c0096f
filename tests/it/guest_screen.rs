//! The display and the keyboard.

use crate::support::linux::Linux;

/// Presses and releases as the guest's kernel reports them, `CODE/VALUE`, without those that repeat.
const READ_KEYS: &str =
    r#"timeout 60 od -v -An -tu2 -w24 < "$(ls /dev/input/event* | tail -n 1)" > /tmp/keys &"#;
const KEYS: &str = r#"awk '$9 == 1 { printf "%s/%s ", $10, $11 }' /tmp/keys"#;

#[test]
fn the_screen_is_seen_and_keys_arrive() {
    let vm = Linux::boot(["--display", "headless"]);
    let facts = vm.sandbox.ctl_json(["screenshot", "screen.png"]);
    let (width, height) = (facts["width"].as_u64().unwrap(), facts["height"].as_u64().unwrap());
    assert!(width >= 320 && height >= 200, "{facts}");
    let png = std::fs::read(vm.file("screen.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG") && png[16..20] == u32::try_from(width).unwrap().to_be_bytes());
    assert!(vm.ctl(["screenshot", "screen.png"]).contains(&format!("{width} x {height}")));
    vm.try_ctl(["screenshot", "no/such/screen.png"]).fails(1, &["no/such/screen.png", "No such file"]);
    let run_directory = vm.status()["run_directory"].as_str().unwrap().to_owned();
    let left = std::fs::read_dir(run_directory).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().contains("screenshot")));

    vm.ctl(["usb-add", "usb-kbd"]);
    vm.sees("add input QEMU QEMU USB Keyboard");
    vm.run(READ_KEYS);
    vm.ctl(["type", "aB_\n"]);
    vm.ctl(["send-key", "ctrl-x", "f5"]);
    // a 30, shift 42, b 48, minus 12, enter 28, ctrl 29, x 45, F5 63
    let wanted = "30/1 30/0 42/1 48/1 48/0 42/0 42/1 12/1 12/0 42/0 28/1 28/0 29/1 45/1 45/0 29/0 63/1 63/0";
    vm.until("all keys have arrived", |vm| {
        vm.run("wc -c < /tmp/keys").trim() != "0" && {
            let seen = vm.run(KEYS);
            seen.matches('/').count() >= 18
        }
    });
    assert_eq!(vm.run(KEYS), wanted);

    vm.try_ctl(["send-key", "ctrl-delte"]).fails(2, &["delte", "did you mean 'delete'"]);
    vm.try_ctl(["type", "naïve"]).fails(2, &["US keyboard", "'ï'"]);
    vm.quit();
}

#[test]
fn without_a_display_there_is_no_picture() {
    let sandbox = crate::support::sandbox::Sandbox::new();
    let image = sandbox.boot_sector(crate::support::boot_sector::Guest::IgnoresButton);
    sandbox.detached([image.to_str().unwrap()]);
    sandbox.ctl(["screenshot", "x.png"]).fails(4, &["no display", "hint: ", "--display headless"]);
    assert!(!sandbox.file("x.png").exists());
}
