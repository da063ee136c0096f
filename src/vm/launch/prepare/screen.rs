//! The display of a request: whether this host can show it, and the socket of a VNC or SPICE server.

use std::path::Path;

use crate::spec::Display;
use crate::spec::display::Endpoint;

use crate::vm::start_error::{StartError, system};

/// Environment variables that show that there is a desktop, or that a toolkit needs none.
const DESKTOPS: [&str; 4] = ["DISPLAY", "WAYLAND_DISPLAY", "GDK_BACKEND", "SDL_VIDEODRIVER"];

/// The display with its socket's path made absolute.
pub(super) fn resolve(display: &Display) -> Result<Display, StartError> {
    let resolved = display.clone().with_socket(|path| {
        let path = std::path::absolute(path).map_err(system("the working directory"))?;
        let text =
            path.to_str().ok_or_else(|| StartError::usage("the display's socket: the path is not UTF-8"))?;
        Ok::<_, StartError>(text.to_owned())
    })?;
    // checked again: an absolute path is longer
    resolved.to_string().parse().map_err(|error| StartError::usage(format!("--display: {error}")))
}

/// Refuses a window without a desktop, and a socket path where another file is: QEMU would delete that file.
pub(super) fn check(display: &Display) -> Result<(), StartError> {
    let no_desktop =
        || DESKTOPS.iter().all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty()));
    if display.is_window() && no_desktop() {
        return Err(StartError::Usage {
            message: "there is no desktop to open a window on: neither DISPLAY nor WAYLAND_DISPLAY is set"
                .to_owned(),
            hint: Some(
                "`--display headless` with `vmrun ctl screenshot`, or `--display vnc=unix:PATH`, need none"
                    .to_owned(),
            ),
        });
    }
    let Some(Endpoint::Unix(path)) = display.endpoint() else { return Ok(()) };
    let path = Path::new(path);
    match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(_) => Err(StartError::File {
            what: "display socket",
            path: path.to_owned(),
            why: "something has that name already".to_owned(),
            hint: Some("remove it, or choose another path".to_owned()),
        }),
    }
}
