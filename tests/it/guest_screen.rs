//! The display, and what QEMU takes for its keyboard.

use crate::support::linux::Linux;

/// Writes down what the guest's USB keyboard says, from now on.
const LISTEN: &str = "
    for name in /sys/class/input/event*/device/name; do
        case $(cat $name) in *'USB Keyboard'*) node=${name#/sys/class/input/}; node=${node%%/*} ;; esac
    done
    cat /dev/input/$node > /tmp/keys 2> /dev/null &
    # it listens once it has the device open
    until ls -l /proc/$!/fd | grep -q input/$node; do :; done
";

/// The keys so far, as Linux's code and 1 for a press, 0 for a release; see `struct input_event` of a 64-bit kernel.
fn keys(vm: &Linux) -> Vec<(u16, i32)> {
    let dump = vm.run("od -v -An -tu1 /tmp/keys");
    let bytes: Vec<u8> = dump.split_whitespace().map(|byte| byte.parse().unwrap()).collect();
    let events = bytes.chunks_exact(24).filter(|event| u16::from_le_bytes([event[16], event[17]]) == 1);
    events
        .map(|event| {
            let value = i32::from_le_bytes([event[20], event[21], event[22], event[23]]);
            (u16::from_le_bytes([event[18], event[19]]), value)
        })
        .filter(|(_, value)| *value != 2)
        .collect()
}

#[test]
fn the_screen_is_seen_and_keys_are_taken() {
    let vm = Linux::boot(["--display", "headless"]);
    let facts = vm.sandbox.ctl_json(["screenshot", "screen.png"]);
    let (width, height) = (facts["width"].as_u64().unwrap(), facts["height"].as_u64().unwrap());
    assert!(width >= 320 && height >= 200, "{facts}");
    let png = std::fs::read(vm.file("screen.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG") && png[16..20] == u32::try_from(width).unwrap().to_be_bytes());
    assert!(vm.ctl(["screenshot", "screen.png"]).contains(&format!("{width} x {height}")));
    vm.try_ctl(["screenshot", "no/such/screen.png"])
        .fails(1, &["no/such/screen.png", "there is no directory no/such"]);
    vm.try_ctl(["screenshot", "screen.jpg"])
        .fails(2, &["is a PNG file, and no .jpg", "hint: name it screen.png"]);
    assert!(!vm.file("screen.jpg").exists());
    let run_directory = vm.status()["run_directory"].as_str().unwrap().to_owned();
    let left = std::fs::read_dir(run_directory).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().contains("screenshot")));

    // the display came with a keyboard; QEMU gives what is typed to the one that was plugged last
    vm.sees("add input QEMU QEMU USB Keyboard");
    vm.ctl(["usb-add", "usb-kbd"]);
    vm.sees("add input QEMU QEMU USB Keyboard");
    // Linux's key codes (input-event-codes.h)
    let [a, b, minus, enter, shift, ctrl, x, f5] = [30, 48, 12, 28, 42, 29, 45, 63];
    vm.run(LISTEN);
    vm.ctl(["type", "aB_\n"]);
    vm.ctl(["send-key", "ctrl-x", "f5"]);
    vm.until("the last key was released", |vm| keys(vm).iter().filter(|key| key.1 == 0).count() >= 9);
    let keys = keys(&vm);
    let pressed =
        |wanted: i32| keys.iter().filter(|key| key.1 == wanted).map(|key| key.0).collect::<Vec<_>>();
    assert_eq!(pressed(1), [a, shift, b, shift, minus, enter, ctrl, x, f5], "{keys:?}");
    let (mut down, mut up) = (pressed(1), pressed(0));
    down.sort_unstable();
    up.sort_unstable();
    assert_eq!(down, up, "a key is stuck: {keys:?}");
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
