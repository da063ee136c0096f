//! The display, and what QEMU takes for its keyboard.

use crate::support::linux::Linux;

#[test]
fn the_screen_is_seen_and_keys_are_taken() {
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
    vm.ctl(["type", "aB_\n"]);
    vm.ctl(["send-key", "ctrl-x", "f5"]);
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
