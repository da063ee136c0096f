//! Where QEMU shows what the guest's video device shows.

use std::ffi::OsString;

use crate::spec::Display;
use crate::spec::display::{Endpoint, WindowOptions};

/// The arguments for a display.
///
/// The kind is always named: by itself QEMU would open what it has built in, at worst VNC on a network port.
pub(super) fn arguments(display: &Display) -> Vec<OsString> {
    let (kind, server) = match display {
        Display::None | Display::Headless => ("none".to_owned(), None),
        Display::Gui => (window("gtk", &WindowOptions::default()), None),
        Display::Gtk(options) => (window("gtk", options), None),
        Display::Sdl(options) => (window("sdl", options), None),
        Display::Vnc(endpoint) => ("none".to_owned(), Some(["-vnc", &vnc(endpoint)].map(OsString::from))),
        Display::Spice(endpoint) => {
            ("none".to_owned(), Some(["-spice", &spice(endpoint)].map(OsString::from)))
        }
    };
    ["-display".into(), kind.into()].into_iter().chain(server.into_iter().flatten()).collect()
}

/// QEMU takes the closing of its window for `quit`, which is like pulling the plug: a guest must not lose data by it. No event reports
/// the closing, so the power button is in the window's menu (Machine, Power Down), and the button of the frame does nothing.
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

    fn joined(display: &str) -> String {
        let arguments = arguments(&display.parse().unwrap());
        arguments.iter().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn no_path_ends_an_option_and_nothing_listens_to_the_network() {
        assert_eq!(joined("headless"), "-display none");
        assert_eq!(joined("vnc=unix:/a,to=9"), "-display none -vnc unix:/a,,to=9");
        assert_eq!(joined("vnc=:1"), "-display none -vnc 127.0.0.1:1");
        assert_eq!(joined("vnc=[::1]:1"), "-display none -vnc [::1]:1");
        assert_eq!(
            joined("spice=:5930"),
            "-display none -spice disable-ticketing=on,addr=127.0.0.1,port=5930"
        );
        assert_eq!(joined("spice=unix:/a,b"), "-display none -spice disable-ticketing=on,unix=on,addr=/a,,b");
    }

    #[test]
    fn closing_a_window_does_not_pull_the_plug_unless_that_is_asked_for() {
        assert_eq!(joined("gui"), "-display gtk,window-close=off");
        assert_eq!(joined("sdl,gl=off"), "-display sdl,window-close=off,gl=off");
        assert_eq!(joined("gtk,window-close=on"), "-display gtk,window-close=on");
    }
}
