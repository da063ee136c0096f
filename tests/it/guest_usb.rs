//! USB devices that come and go while the guest runs.

use std::os::unix::fs::FileExt;

use crate::support::linux::Linux;

const PRODUCTS: &str = "cat /sys/bus/usb/devices/*/product";
const STICK_SIZE: usize = 1 << 20;

/// A keyboard and a stick, with `slots` slots taken for it in the end.
fn keyboard_and_stick(options: &[&str], slots: u64) {
    let vm = Linux::boot(options);
    assert_eq!(vm.status()["slots_used"], 0);

    let keyboard = vm.ctl(["usb-add", "usb-kbd"]);
    vm.sees("add input QEMU QEMU USB Keyboard");
    assert!(vm.run(PRODUCTS).contains("QEMU USB Keyboard"));
    assert_eq!(vm.ids("usb-list"), [keyboard.as_str()]);
    vm.ctl(["usb-remove", &keyboard]);
    vm.sees("remove input QEMU QEMU USB Keyboard");
    assert!(!vm.run(PRODUCTS).contains("Keyboard"));
    assert!(vm.ids("usb-list").is_empty());

    // a name that QEMU's own option syntax would split
    let image = vm.file("my,stick=1.img");
    let contents: Vec<u8> = (0..STICK_SIZE).map(|at| u8::try_from(at / 512 % 251).unwrap()).collect();
    std::fs::write(&image, &contents).unwrap();
    // a comma in a value is typed twice
    let selector = format!("file={}", image.display().to_string().replace(',', ",,"));
    assert_eq!(vm.ctl(["usb-add", &selector, "--id", "stick"]), "stick");
    vm.sees("add usb 46f4:0001");
    let line = vm.sees(&format!("size={STICK_SIZE}"));
    let disk = line.split("add block ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let sum = std::process::Command::new("sha256sum").arg(&image).output().unwrap().stdout;
    let sum = String::from_utf8(sum).unwrap();
    let inside = vm.run(&format!("sha256sum < /dev/{disk}"));
    assert_eq!(inside.split(' ').next(), sum.trim_start_matches('\\').split(' ').next());
    vm.run(&format!("printf 'written inside' | dd of=/dev/{disk} bs=512 seek=9 conv=notrunc,fsync"));
    vm.ctl(["usb-remove", "stick"]);
    vm.sees(&format!("remove block {disk}"));
    let mut written = [0; 14];
    std::fs::File::open(&image).unwrap().read_exact_at(&mut written, 9 * 512).unwrap();
    assert_eq!(&written, b"written inside");

    // its image is closed: it can be plugged again, under the same id
    vm.ctl(["usb-add", &selector, "--id", "stick"]);
    vm.sees("add usb 46f4:0001");
    vm.try_ctl(["usb-add", "usb-kbd", "--id", "stick"]).fails(4, &["stick", "taken"]);
    vm.try_ctl(["usb-add", "usb-nothing"]).fails(4, &["usb-nothing"]);
    assert_eq!(vm.ids("usb-list"), ["stick"]);
    assert_eq!(vm.status()["slots_used"], slots);
    vm.quit();
}

#[test]
fn usb_without_the_flag_gets_its_controller_first() {
    keyboard_and_stick(&[], 1);
}

#[test]
fn usb_with_the_flag_takes_no_slot() {
    keyboard_and_stick(&["--usb"], 0);
}
