//! What shows the guest's screen: real windows on an X server, and servers of pictures.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use serde_json::json;

use crate::support::boot_sector::Guest;
use crate::support::desktop::{Desktop, Picture};
use crate::support::linux::Linux;
use crate::support::processes::{eventually, qemu_of};
use crate::support::sandbox::{Sandbox, linux_guest};

/// What the guest's video device shows, by QEMU's own word.
fn guest_screen(sandbox: &Sandbox) -> Option<Picture> {
    let path = sandbox.file("screen.ppm");
    let dump = json!({ "execute": "screendump", "arguments": { "filename": path } });
    sandbox.ctl(["qmp", &dump.to_string()]).ok();
    Picture::of_ppm(&std::fs::read(path).unwrap())
}

/// That QEMU runs under seccomp filters, by the kernel's word.
#[track_caller]
fn is_sandboxed(sandbox: &Sandbox) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", qemu_of(sandbox.path()))).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
}

#[test]
fn a_window_shows_what_the_guest_shows() {
    let desktop = Desktop::start();
    for display in ["--gui", "--display=gtk,zoom-to-fit=off", "--display=sdl"] {
        let sandbox = Sandbox::on(&desktop.name);
        let image = sandbox.boot_sector(Guest::ReactsToButton);
        sandbox.detached([display, image.to_str().unwrap()]);
        is_sandboxed(&sandbox);
        sandbox.booted("guest");
        let window = desktop.window();
        // the cursor blinks, so two pictures of different moments may differ
        eventually("the window shows the guest's screen", || {
            let Some(screen) = guest_screen(&sandbox) else { return false };
            let picture = desktop.picture(window);
            if picture.width != screen.width {
                // GTK scales the screen to the window; as wide as this, and higher for the menu, it shows every pixel
                desktop.resize(window, screen.width, screen.height + 100);
            }
            screen.colours() > 1 && picture.has(&screen)
        });
        sandbox.ctl(["shutdown"]).ok();
        sandbox.is_clean();
    }
}

/// Writes down what the input devices say that QEMU has plugged, from now on.
const LISTEN: &str = "
    for name in /sys/class/input/event*/device/name; do
        node=${name#/sys/class/input/}; node=${node%%/*}
        case $(cat $name) in
            *'USB Keyboard'*) cat /dev/input/$node > /tmp/keys 2> /dev/null & ;;
            *'USB Tablet'*) cat /dev/input/$node > /tmp/pointer 2> /dev/null & ;;
            *) continue ;;
        esac
        until ls -l /proc/$!/fd | grep -q input/$node; do :; done
    done
";

/// The events of one type in a file of [`LISTEN`]: code and value; see `struct input_event` of a 64-bit kernel.
fn events(vm: &Linux, file: &str, wanted: u16) -> Vec<(u16, i32)> {
    let dump = vm.run(&format!("od -v -An -tu1 /tmp/{file}"));
    let bytes: Vec<u8> = dump.split_whitespace().map(|byte| byte.parse().unwrap()).collect();
    bytes
        .chunks_exact(24)
        .filter(|event| u16::from_le_bytes([event[16], event[17]]) == wanted)
        .map(|event| {
            let value = i32::from_le_bytes([event[20], event[21], event[22], event[23]]);
            (u16::from_le_bytes([event[18], event[19]]), value)
        })
        .collect()
}

#[test]
fn keys_and_pointer_of_a_window_reach_the_guest_and_its_close_button_ends_nothing() {
    // Linux's codes (input-event-codes.h)
    const KEY: u16 = 1;
    const ABSOLUTE: u16 = 3;
    const A: u8 = 30;
    const B: u8 = 48;
    let desktop = Desktop::start();
    let vm = Linux::boot_in(Sandbox::on(&desktop.name), &linux_guest(), ["--gui"]);
    for device in ["Keyboard", "Tablet"] {
        vm.sees(&format!("add input QEMU QEMU USB {device}"));
    }
    let window = desktop.window();
    vm.run(LISTEN);
    desktop.point(100, 200);
    desktop.key(A);
    let pressed = |vm: &Linux, key: u8| events(vm, "keys", KEY).contains(&(key.into(), 1));
    vm.until("the key was pressed", |vm| pressed(vm, A));
    vm.until("the pointer has moved", |_| {
        // two places, since one where the pointer is already is no movement
        desktop.point(110, 210);
        desktop.point(100, 200);
        !events(&vm, "pointer", ABSOLUTE).is_empty()
    });
    desktop.close(window);
    // a window's events are dealt with in their order: what is typed afterwards arrives after the closing has been dealt with
    desktop.key(B);
    vm.until("the next key was pressed", |vm| pressed(vm, B));
    assert_eq!(vm.status()["state"], "running");
    vm.quit().is_clean();
}

#[test]
fn a_window_needs_a_desktop() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let image = image.to_str().unwrap();
    sandbox
        .run(["qemu", "--gui", image])
        .fails(2, &["no desktop", "DISPLAY", "hint: ", "--display headless"]);
    // one that is not there is QEMU's to notice
    let sandbox = Sandbox::on(":987654");
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let image = image.to_str().unwrap();
    sandbox
        .run(["qemu", "--gui", image])
        .fails(1, &["QEMU did not start", "gtk initialization failed", "hint: "]);
    sandbox.is_clean();
}

#[test]
fn a_picture_server_listens_on_a_socket_of_ours_alone_and_leaves_none() {
    for (kind, greets) in [("vnc", true), ("spice", false)] {
        let sandbox = Sandbox::new();
        let image = sandbox.boot_sector(Guest::ReactsToButton);
        let image = image.to_str().unwrap();
        std::fs::write(sandbox.file("taken"), "mine").unwrap();
        let taken = format!("--display={kind}=unix:taken");
        sandbox.run(["qemu", &taken, image]).fails(1, &["taken", "something has that name already"]);
        assert_eq!(std::fs::read(sandbox.file("taken")).unwrap(), b"mine");

        sandbox.detached([&format!("--display={kind}=unix:a,b"), image]);
        is_sandboxed(&sandbox);
        let socket = sandbox.file("a,b");
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o700);
        let mut stream = UnixStream::connect(&socket).unwrap();
        if greets {
            let mut greeting = [0; 4];
            stream.read_exact(&mut greeting).unwrap();
            assert_eq!(&greeting, b"RFB ");
        }
        drop(stream);
        sandbox.booted("guest");
        sandbox.ctl(["shutdown"]).ok();
        sandbox.is_clean();
        assert!(!socket.exists());
    }
}

#[test]
fn a_picture_server_on_a_port_listens_to_this_machine_alone() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let image = image.to_str().unwrap();
    for address in ["0.0.0.0", "[::]", "192.0.2.1"] {
        let display = format!("--display=vnc={address}:1");
        sandbox.run(["qemu", &display, image]).fails(2, &["not this machine alone", "ssh -L"]);
    }
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for kind in ["vnc", "spice"] {
        let port = free();
        let number = if kind == "vnc" { port - 5900 } else { port };
        sandbox.detached([&format!("--display={kind}=:{number}"), image]);
        let listening = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let row = listening.lines().find(|row| row.contains(&format!(":{port:04X} 00000000:0000 0A")));
        assert!(row.is_some_and(|row| row.contains("0100007F:")), "{port:04X}: {listening}");
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        sandbox.ctl(["shutdown", "--force"]).ok();
        sandbox.is_clean();
    }
}
