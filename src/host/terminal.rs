//! The terminal that another program has, and may leave in raw mode when it is killed.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::termios::{InputFlags, LocalFlags, OutputFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// A terminal as it was.
#[derive(Debug)]
pub struct Terminal {
    terminal: File,
    settings: Termios,
    flags: OFlag,
}

impl Terminal {
    /// Standard input with its present settings, if it is a terminal.
    pub fn of_stdin() -> Option<Self> {
        let stdin = io::stdin();
        let settings = tcgetattr(&stdin).ok()?;
        let terminal = File::from(stdin.as_fd().try_clone_to_owned().ok()?);
        let flags = OFlag::from_bits_retain(fcntl(&terminal, FcntlArg::F_GETFL).ok()?);
        Some(Self { terminal, settings, flags })
    }

    /// Gives it its settings back, if they are those that a QEMU that was killed has left. Somebody who has taken the terminal
    /// since (a shell) has settings of their own, which stay.
    pub fn restore(self) {
        let Ok(now) = tcgetattr(&self.terminal) else { return };
        if !is_qemus(&self.settings, &now) {
            return;
        }
        if let Err(error) = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.settings) {
            log::warn!("the terminal could not be restored: {error}");
        }
        let _ = fcntl(&self.terminal, FcntlArg::F_SETFL(self.flags));
    }
}

/// Whether these are the settings that QEMU makes of others (`qemu_chr_set_echo_stdio`, chardev/char-stdio.c).
fn is_qemus(before: &Termios, now: &Termios) -> bool {
    let input = before.input_flags
        - (InputFlags::IGNBRK
            | InputFlags::BRKINT
            | InputFlags::PARMRK
            | InputFlags::ISTRIP
            | InputFlags::INLCR
            | InputFlags::IGNCR
            | InputFlags::ICRNL
            | InputFlags::IXON);
    let local = before.local_flags
        - (LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::IEXTEN);
    now.input_flags == input
        && now.output_flags == before.output_flags | OutputFlags::OPOST
        // the keys that send signals work or not, as `signal=` says
        && [local, local - LocalFlags::ISIG].contains(&now.local_flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_qemu_leaves_is_taken_back() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let mut raw = before.clone();
        raw.input_flags -= InputFlags::ICRNL | InputFlags::IXON | InputFlags::BRKINT;
        raw.local_flags -= LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::IEXTEN | LocalFlags::ISIG;
        let terminal = || Terminal {
            terminal: File::from(pty.slave.try_clone().unwrap()),
            settings: before.clone(),
            flags: OFlag::O_RDWR,
        };
        tcsetattr(&pty.slave, SetArg::TCSANOW, &raw).unwrap();
        terminal().restore();
        assert_eq!(tcgetattr(&pty.slave).unwrap().local_flags, before.local_flags);
        // a shell's own: not echoed, but with its signals and its extensions
        let mut shells = before.clone();
        shells.local_flags -= LocalFlags::ECHO | LocalFlags::ICANON;
        tcsetattr(&pty.slave, SetArg::TCSANOW, &shells).unwrap();
        terminal().restore();
        assert_eq!(tcgetattr(&pty.slave).unwrap().local_flags, shells.local_flags);
    }
}
