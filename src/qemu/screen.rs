//! Where QEMU shows what the guest's video device shows.

use std::ffi::OsString;

use crate::spec::display::{Endpoint, WindowOptions};
use crate::spec::{Display, Os};

/// The arguments for a display.
///
/// The kind is always named: by itself QEMU would open what it has built in, at worst VNC on a network port.
pub(super) fn arguments(display: &Display, os: Os) -> Vec<OsString> {
    let (kind, server) = match (display, os) {
        (Display::None | Display::Headless, _) => ("none".to_owned(), None),
        (Display::Gui, Os::Linux) => (window("gtk", &WindowOptions::default()), None),
        (Display::Gui, Os::Macos) => ("cocoa".to_owned(), None),
        (Display::Gtk(options), _) => (window("gtk", options), None),
        (Display::Sdl(options), _) => (window("sdl", options), None),
        (Display::Vnc(endpoint), _) => {
            ("none".to_owned(), Some(["-vnc", &vnc(endpoint)].map(OsString::from)))
        }
        (Display::Spice(endpoint), _) => {
            ("none".to_owned(), Some(["-spice", &spice(endpoint)].map(OsString::from)))
        }
    };
    ["-display".into(), kind.into()].into_iter().chain(server.into_iter().flatten()).collect()
}

/// QEMU takes the closing of its window for `quit`, which is to pull the plug: nobody's guest should lose data by it. No event tells
/// of the closing, so the power button is in the window's menu (Machine, Power Down), and the button of the frame does nothing.
fn window(toolkit: &str, options: &WindowOptions) -> String {
    let close = if options.has("window-close") { "" } else { ",window-close=off" };
    format!("{toolkit}{close}{}", options.as_text())
}

fn vnc(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Unix(path) => format!("unix:{}", commas_doubled(path)),
        Endpoint::V4(address, port) => format!("{address}:{}", Endpoint::vnc_display(*port)),
        Endpoint::V6(port) => format!("[::1]:{}", Endpoint::vnc_display(*port)),
    }
}

/// Without tickets, which are SPICE's passwords: the socket's permissions, or the loopback address, decide.
fn spice(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Unix(path) => format!("disable-ticketing=on,unix=on,addr={}", commas_doubled(path)),
        Endpoint::V4(address, port) => format!("disable-ticketing=on,addr={address},port={port}"),
        Endpoint::V6(port) => format!("disable-ticketing=on,addr=::1,port={port}"),
    }
}

/// A value in a list of QEMU's options that has no JSON form.
fn commas_doubled(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_linux(display: &str) -> String {
        let arguments = arguments(&display.parse().unwrap(), Os::Linux);
        arguments.iter().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn no_path_ends_an_option_and_nothing_listens_to_the_network() {
        assert_eq!(on_linux("headless"), "-display none");
        assert_eq!(on_linux("vnc=unix:/a,to=9"), "-display none -vnc unix:/a,,to=9");
        assert_eq!(on_linux("vnc=:1"), "-display none -vnc 127.0.0.1:1");
        assert_eq!(on_linux("vnc=[::1]:1"), "-display none -vnc [::1]:1");
        assert_eq!(
            on_linux("spice=:5930"),
            "-display none -spice disable-ticketing=on,addr=127.0.0.1,port=5930"
        );
        assert_eq!(
            on_linux("spice=unix:/a,b"),
            "-display none -spice disable-ticketing=on,unix=on,addr=/a,,b"
        );
    }

    #[test]
    fn closing_a_window_does_not_pull_the_plug_unless_that_is_asked_for() {
        assert_eq!(on_linux("gui"), "-display gtk,window-close=off");
        assert_eq!(on_linux("sdl,gl=off"), "-display sdl,window-close=off,gl=off");
        assert_eq!(on_linux("gtk,window-close=on"), "-display gtk,window-close=on");
        let cocoa = arguments(&Display::Gui, Os::Macos);
        assert_eq!(cocoa, ["-display", "cocoa"]);
    }
}
