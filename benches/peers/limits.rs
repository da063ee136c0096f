//! Small programs that do the same as vmrun and nothing else: nobody can be quicker.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::line::Line;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/limits");

/// A static C program that connects to a socket (its first argument), writes its second one and reads the answer.
pub(crate) fn c_client(folder: &Path) -> PathBuf {
    c_program(folder, "client")
}

/// The same in Rust, linked as vmrun is.
pub(crate) fn rust_client(folder: &Path) -> PathBuf {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let mut compiler = Command::new(rustc);
    compiler.args(["--edition", "2024", "-O"]);
    // build.rs has found it
    if let Some(folder) = option_env!("UNWINDER_FOLDER") {
        compiler.args(["-l", "static=gcc_eh", "-L", folder]);
    }
    built(&mut compiler, folder, "client", "rs")
}

/// A connection to a static C program, which ends with it.
pub(crate) struct Served {
    program: Child,
    pub(crate) line: Line,
}

impl Served {
    /// QEMU's monitor through a program that only copies bytes.
    pub(crate) fn relay(folder: &Path, monitor: &Path) -> Self {
        let mut relay = Self::start(folder, "relay", monitor.as_os_str(), Line::qmp);
        relay.line.negotiate();
        relay
    }

    /// A program that answers every message with the same text.
    pub(crate) fn answer(folder: &Path, text: &str) -> Self {
        Self::start(folder, "answer", text.as_ref(), Line::control)
    }

    fn start(folder: &Path, name: &str, argument: &OsStr, connect: impl FnOnce(&Path) -> Line) -> Self {
        let socket = folder.join(format!("{name}.socket"));
        let mut command = Command::new(c_program(folder, name));
        let mut program = command.arg(&socket).arg(argument).stdout(Stdio::piped()).spawn().unwrap();
        let said = std::io::read_to_string(program.stdout.take().unwrap()).unwrap();
        assert_eq!(said, "ready\n");
        Self { program, line: connect(&socket) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn c_program(folder: &Path, name: &str) -> PathBuf {
    built(Command::new("cc").args(["-O2", "-static"]), folder, name, "c")
}

fn built(compiler: &mut Command, folder: &Path, name: &str, language: &str) -> PathBuf {
    let program = folder.join(format!("{name}-{language}"));
    let status = compiler.arg("-o").arg(&program).arg(format!("{SOURCES}/{name}.{language}")).status();
    assert!(status.is_ok_and(|status| status.success()), "{compiler:?} failed");
    program
}
