//! An invisible desktop: an X server without a screen, with clients that look at it and click.

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use x11rb::connection::Connection;
use x11rb::protocol::xproto::{
    AtomEnum, ClientMessageEvent, ConfigureWindowAux, ConnectionExt as _, EventMask, ImageFormat, InputFocus,
    KEY_PRESS_EVENT, KEY_RELEASE_EVENT, MOTION_NOTIFY_EVENT, MapState, Window,
};
use x11rb::protocol::xtest::ConnectionExt as _;
use x11rb::rust_connection::RustConnection;

use super::processes::eventually;

/// An X server, and a client of it.
pub(crate) struct Desktop {
    server: Child,
    client: RustConnection,
    root: Window,
    /// As in `$DISPLAY`.
    pub(crate) name: String,
}

/// Pixels, row by row: red, green, blue.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Desktop {
    /// Starts the server; it listens when this returns.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        // std's pipes are closed in children, and this one is for the server
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let server = Command::new("Xvfb")
            .args(["-displayfd", &writer.as_raw_fd().to_string(), "-screen", "0", "1280x1024x24"])
            .args(["-nolisten", "tcp", "-noreset"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb is there: tests/setup/install.sh installs it");
        drop(writer);
        let mut number = String::new();
        let mut byte = [0];
        // the end of the line, since other children may have the pipe as well
        while reader.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            number.push(byte[0].into());
        }
        let name = format!(":{number}");
        let (client, screen) = x11rb::connect(Some(&name)).unwrap();
        let root = client.setup().roots[screen].root;
        Self { server, client, root, name }
    }

    /// Waits for QEMU's window, and gives it the keyboard, since there is no window manager that does.
    #[track_caller]
    pub(crate) fn window(&self) -> Window {
        let mut found = None;
        eventually("QEMU's window is there", || {
            found = self.windows().into_iter().find(|window| self.is_qemu(*window));
            found.is_some()
        });
        let window = found.unwrap();
        self.client
            .set_input_focus(InputFocus::PARENT, window, x11rb::CURRENT_TIME)
            .unwrap()
            .check()
            .unwrap();
        window
    }

    fn windows(&self) -> Vec<Window> {
        self.client.query_tree(self.root).unwrap().reply().unwrap().children
    }

    /// Whether a window is seen and named as QEMU names its own.
    fn is_qemu(&self, window: Window) -> bool {
        // it may be gone by now
        let seen = self.client.get_window_attributes(window).unwrap().reply();
        let name =
            self.client.get_property(false, window, AtomEnum::WM_NAME, AtomEnum::ANY, 0, 64).unwrap().reply();
        seen.is_ok_and(|seen| seen.map_state == MapState::VIEWABLE)
            && name.is_ok_and(|name| String::from_utf8_lossy(&name.value).starts_with("QEMU"))
    }

    /// What a window shows.
    pub(crate) fn picture(&self, window: Window) -> Picture {
        let size = self.client.get_geometry(window).unwrap().reply().unwrap();
        let image = self
            .client
            .get_image(ImageFormat::Z_PIXMAP, window, 0, 0, size.width, size.height, u32::MAX)
            .unwrap()
            .reply()
            .unwrap();
        // 24 bits of colour in little-endian words of 32
        let pixels = image.data.chunks_exact(4).map(|pixel| [pixel[2], pixel[1], pixel[0]]).collect();
        Picture { width: size.width.into(), height: size.height.into(), pixels }
    }

    /// Gives a window another size, as who drags its frame.
    pub(crate) fn resize(&self, window: Window, width: usize, height: usize) {
        let size = ConfigureWindowAux::new()
            .width(u32::try_from(width).unwrap())
            .height(u32::try_from(height).unwrap());
        self.client.configure_window(window, &size).unwrap().check().unwrap();
    }

    /// Presses a key and lets it go. `code`: Linux's, of which X has each 8 higher.
    pub(crate) fn key(&self, code: u8) {
        for kind in [KEY_PRESS_EVENT, KEY_RELEASE_EVENT] {
            self.client.xtest_fake_input(kind, code + 8, 0, self.root, 0, 0, 0).unwrap().check().unwrap();
        }
    }

    /// Moves the pointer.
    pub(crate) fn point(&self, x: i16, y: i16) {
        self.client.xtest_fake_input(MOTION_NOTIFY_EVENT, 0, 0, self.root, x, y, 0).unwrap().check().unwrap();
    }

    /// What a window manager sends when the close button of the window's frame is clicked (ICCCM 4.2.8.1).
    pub(crate) fn close(&self, window: Window) {
        let atom =
            |name: &str| self.client.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom;
        let event = ClientMessageEvent::new(
            32,
            window,
            atom("WM_PROTOCOLS"),
            [atom("WM_DELETE_WINDOW"), x11rb::CURRENT_TIME, 0, 0, 0],
        );
        self.client.send_event(false, window, EventMask::NO_EVENT, event).unwrap().check().unwrap();
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Picture {
    /// Reads what QEMU's `screendump` writes (PPM, P6).
    pub(crate) fn of_ppm(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.splitn(5, |byte| byte.is_ascii_whitespace());
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<usize>().ok();
        if !bytes.starts_with(b"P6") {
            return None;
        }
        let (_, width, height, _) = (number(), number()?, number()?, number()?);
        let pixels: Vec<_> =
            fields.next()?.chunks_exact(3).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        (pixels.len() == width * height).then_some(Self { width, height, pixels })
    }

    fn row(&self, y: usize) -> &[[u8; 3]] {
        &self.pixels[y * self.width..][..self.width]
    }

    /// Whether the other picture is somewhere in this one, pixel by pixel.
    pub(crate) fn has(&self, other: &Self) -> bool {
        if other.width > self.width || other.height > self.height {
            return false;
        }
        let fits = |x: usize, y: usize| {
            (0..other.height).all(|line| self.row(y + line)[x..][..other.width] == *other.row(line))
        };
        (0..=self.height - other.height).any(|y| (0..=self.width - other.width).any(|x| fits(x, y)))
    }

    /// How many colours it has.
    pub(crate) fn colours(&self) -> usize {
        self.pixels.iter().collect::<std::collections::BTreeSet<_>>().len()
    }
}
