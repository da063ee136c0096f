//! Shows a person at a terminal what the guest's console printed last, while a call takes long.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

use crate::control::client::Client;
use crate::control::verbs::{ConsoleReply, ReadConsole};
use crate::vm::console::LastLine;

use super::output::{Line, stderr_is_terminal};

/// How long a call may take before it is told what happens.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often that is updated.
const PAUSE: Duration = Duration::from_millis(500);

/// Makes a call; from 10 s on, `what` and the console's last line are shown until it ends.
pub(super) fn while_shown<T>(client: &mut Client, what: &str, call: impl FnOnce(&mut Client) -> T) -> T {
    let second = match stderr_is_terminal() {
        true => client.another().and_then(Result::ok),
        false => None,
    };
    let Some(second) = second else { return call(client) };
    let (ended, watched) = channel::<()>();
    let what = what.to_owned();
    let shower = thread::spawn(move || show(&what, second, &watched));
    let result = call(client);
    drop(ended);
    // it has erased its line when it ends
    let _ = shower.join();
    result
}

fn show(what: &str, client: Client, ended: &Receiver<()>) {
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
