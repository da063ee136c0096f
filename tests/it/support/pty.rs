//! A terminal of the test's own, with a program on it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use nix::fcntl::{FcntlArg, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices, tcgetattr, tcsetattr};

use super::sandbox::{PATIENCE, wait_with_patience};

/// Written behind the last that a program has written, to know when all of it has been read.
const END: &str = "~1~";

/// A program on a terminal.
pub(crate) struct OnTerminal {
    child: Child,
    slave: OwnedFd,
    master: File,
    output: mpsc::Receiver<Vec<u8>>,
    seen: String,
    before: String,
}

impl OnTerminal {
    /// Starts it with this terminal as its controlling one.
    pub(crate) fn start(command: &Command) -> Self {
        Self::start_with_size(command, 24, 80)
    }

    /// The same on a terminal of another size.
    pub(crate) fn start_with_size(command: &Command, rows: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        // unusual settings, so that restoring defaults would be noticed
        let mut settings = tcgetattr(&pty.slave).unwrap();
        settings.local_flags.remove(LocalFlags::ECHOK);
        settings.output_flags.insert(OutputFlags::OLCUC);
        settings.control_chars[SpecialCharacterIndices::VERASE as usize] = 8;
        tcsetattr(&pty.slave, SetArg::TCSANOW, &settings).unwrap();
        let before = settings_of(&pty.slave);
        let stdio = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut on_it = Command::new("setsid");
        on_it.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => on_it.env(name, value),
                None => on_it.env_remove(name),
            };
        }
        on_it.current_dir(command.get_current_dir().unwrap());
        let child = on_it.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        let master = File::from(pty.master);
        let (send, output) = mpsc::channel();
        let mut reader = master.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = reader.read(&mut buffer) {
                if count == 0 || send.send(buffer[..count].to_owned()).is_err() {
                    return;
                }
            }
        });
        Self { child, slave: pty.slave, master, output, seen: String::new(), before }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for this text; returns what was shown up to its end, which is not looked at again.
    #[track_caller]
    pub(crate) fn shows(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        // in raw mode, too, the terminal of this test may print capitals: see OLCUC
        loop {
            if let Some(at) = self.seen.to_lowercase().find(&text.to_lowercase()) {
                return self.seen.drain(..at + text.len()).collect();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(bytes) = self.output.recv_timeout(left) else { panic!("no '{text}' in {:?}", self.seen) };
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Gives it another size, of which its foreground processes hear.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
    }

    /// Whether it is in raw mode now.
    pub(crate) fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ICANON)
    }

    /// Waits for its end and checks that the terminal is as it was.
    #[track_caller]
    pub(crate) fn end(mut self) -> ExitStatus {
        let status = wait_with_patience(&mut self.child);
        assert_eq!(settings_of(&self.slave), self.before, "the terminal's settings");
        status
    }

    /// The same; with all bytes that it showed and [`Self::shows`] has not taken.
    #[track_caller]
    pub(crate) fn end_with_output(mut self) -> (ExitStatus, String) {
        let status = wait_with_patience(&mut self.child);
        assert_eq!(settings_of(&self.slave), self.before, "the terminal's settings");
        // what was written is in the terminal already, and no other process writes to it: this mark comes after it
        File::from(self.slave.try_clone().unwrap()).write_all(END.as_bytes()).unwrap();
        while !self.seen.ends_with(END) {
            let bytes = self.output.recv_timeout(PATIENCE).expect("the terminal's last bytes");
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        (status, self.seen.trim_end_matches(END).to_owned())
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Settings of the terminal and flags of its open file, as text.
fn settings_of(terminal: impl AsFd) -> String {
    let all = tcgetattr(&terminal).unwrap();
    let flags = fcntl(&terminal, FcntlArg::F_GETFL).unwrap();
    format!(
        "{:?} {:?} {:?} {:?} {:?} file {flags:o}",
        all.input_flags, all.output_flags, all.control_flags, all.local_flags, all.control_chars
    )
}
