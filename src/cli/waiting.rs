//! Shows a person at a terminal what is waited for, and for how long already.
//!
//! Everything that can take longer than half a second says so: [`Progress`] for what is done here and for calls, [`while_shown`] for
//! waits for the guest, with what its console printed last.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

use crate::control::client::Client;
use crate::control::verbs::{ConsoleReply, ReadConsole};
use crate::vm::console::LastLine;

use super::output::{Line, bytes};

/// How long something may take before it is told what happens: a shorter wait is not felt as one.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often that is updated.
const PAUSE: Duration = Duration::from_millis(250);

/// The thread that shows the line; one at a time.
static SHOWER: Mutex<Option<Shower>> = Mutex::new(None);

struct Shower {
    ended: Sender<()>,
    thread: JoinHandle<()>,
}

/// Shows a line by a function that returns, with its line erased, when the channel's other end is closed.
fn start(show: impl FnOnce(&Receiver<()>) + Send + 'static) {
    end();
    let (ended, watched) = channel();
    let thread = thread::spawn(move || show(&watched));
    *SHOWER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Shower { ended, thread });
}

/// Ends the line, if there is one: before something else is printed, and before this process is forked, which it cannot be with a
/// second thread.
pub(super) fn end() {
    let shower = SHOWER.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(Shower { ended, thread }) = shower {
        drop(ended);
        let _ = thread.join();
    }
}

/// A line on the terminal, from half a second on, until it is dropped. Nothing else must be printed meanwhile.
#[derive(Debug)]
pub(super) struct Progress {
    /// How far it is.
    detail: Arc<Mutex<Option<String>>>,
    /// There is a terminal.
    is_shown: bool,
}

impl Progress {
    /// `what` is waited for, or done: "waiting for the guest agent".
    pub(super) fn new(what: impl Into<String>) -> Self {
        let detail = Arc::new(Mutex::new(None));
        let is_shown = Line::is_possible();
        if is_shown {
            let (what, shown) = (what.into(), Arc::clone(&detail));
            start(move |ended| show(&what, &shown, ended));
        }
        Self { detail, is_shown }
    }

    /// How far it is now; the text is made only if it can be shown.
    pub(super) fn detail(&self, text: impl FnOnce() -> String) {
        if self.is_shown {
            *self.detail.lock().unwrap_or_else(PoisonError::into_inner) = Some(text());
        }
    }

    /// The same in bytes, if they are known; `total` is an upper bound.
    pub(super) fn bytes(&self, done: Option<u64>, total: Option<u64>) {
        if let (Some(done), Some(total)) = (done, total) {
            self.detail(|| format!("{} of at most {}", bytes(done), bytes(total)));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            end();
        }
    }
}

fn show(what: &str, detail: &Mutex<Option<String>>, ended: &Receiver<()>) {
    let began = Instant::now();
    let mut pause = PATIENCE;
    let mut line = Line::new();
    while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let detail = detail.lock().unwrap_or_else(PoisonError::into_inner).clone();
        line.show(|| text(what, detail.as_deref(), began.elapsed()));
        pause = PAUSE;
    }
}

fn text(what: &str, detail: Option<&str>, taken: Duration) -> String {
    let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{what}{detail} ({:.1} s)", taken.as_secs_f64())
}

/// Makes a call; from half a second on, `what` and the console's last line are shown until it ends.
pub(super) fn while_shown<T>(client: &mut Client, what: &str, call: impl FnOnce(&mut Client) -> T) -> T {
    let second = match Line::is_possible() {
        true => client.another().and_then(Result::ok),
        false => None,
    };
    let Some(second) = second else { return call(client) };
    let what = what.to_owned();
    start(move |ended| show_with_console(&what, second, ended));
    let result = call(client);
    end();
    result
}

fn show_with_console(what: &str, client: Client, ended: &Receiver<()>) {
    let began = Instant::now();
    if ended.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    let last = Arc::new(Mutex::new(LastLine::default()));
    let followed = Arc::clone(&last);
    // ends with the VM, or with this process
    thread::spawn(move || follow(client, &followed));
    let mut line = Line::new();
    loop {
        let printed = last.lock().unwrap_or_else(PoisonError::into_inner).text();
        line.show(|| crate::vm::console::progress(what, began.elapsed(), printed.as_deref()));
        if ended.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn follow(mut client: Client, last: &Mutex<LastLine>) {
    let call = ReadConsole { from: Some("recent".to_owned()), follow: Some(true) };
    // a VM without a console of vmrun's has nothing to show
    let _ = client.stream(call, |reply: ConsoleReply| {
        let bytes = BASE64.decode(&reply.data).unwrap_or_default();
        last.lock().unwrap_or_else(PoisonError::into_inner).take(&bytes);
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_how_far_and_how_long() {
        let taken = Duration::from_millis(1260);
        assert_eq!(text("saving the VM", None, taken), "saving the VM (1.3 s)");
        assert_eq!(
            text("saving the VM", Some("1 MiB of at most 2 MiB"), taken),
            "saving the VM: 1 MiB of at most 2 MiB (1.3 s)"
        );
    }
}
