//! What a person at the console is told, and what the console's escape key does.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::spec::{VmName, duration};
use crate::vm::console::{ANSWER, Attached, EscapeKey, is_watched};
use crate::vm::{Handle, ResizedBy, ShutdownOptions};

/// How often it is told how long the guest still has to shut down.
const TOLD_AGAIN: Duration = Duration::from_secs(5);

/// Tells a person at a terminal, which may stay blank for a while, that the VM runs and which keys there are.
pub(super) fn tell_of_keys(name: &VmName, escape: EscapeKey) {
    if !is_watched() {
        return;
    }
    match escape {
        EscapeKey::None => log::warn!(target: ANSWER, "'{name}' runs: `vmrun shutdown {name}` shuts it down"),
        key => log::warn!(target: ANSWER, "'{name}' runs: {key} x shuts it down, {key} h helps"),
    }
}

/// Executes the requests of the console's escape key.
pub(super) async fn obey(
    mut asked: mpsc::Receiver<Attached>,
    vm: Handle,
    timeout: Duration,
    escape: EscapeKey,
) {
    let mut asked_before = false;
    while let Some(request) = asked.recv().await {
        match request {
            Attached::Shutdown => {
                let options = ShutdownOptions { timeout, force: asked_before, no_repeat: false };
                log::warn!(target: ANSWER, "{}", shutting_down(escape, timeout, asked_before));
                asked_before = true;
                tokio::spawn(shut_down(vm.clone(), options));
            }
            Attached::Detach => log::warn!(
                target: ANSWER,
                "this VM ends with its terminal; start it with `--detached` to leave it running. {escape} x shuts it down"
            ),
            Attached::Size { rows, columns } => {
                let vm = vm.clone();
                tokio::spawn(async move {
                    match vm.resize_console(rows, columns).await {
                        Ok(by) => log::warn!(target: ANSWER, "{}", resized(rows, columns, by)),
                        Err(error) => {
                            log::warn!("the console's size could not be set in the guest: {error}")
                        }
                    }
                });
            }
            Attached::Status => {
                if let Ok(status) = vm.status().await {
                    let uptime = status.uptime().as_secs();
                    log::warn!(target: ANSWER, "{}: {}, up {uptime} s", status.origin.name(), status.run_state);
                }
            }
        }
    }
}

async fn shut_down(vm: Handle, options: ShutdownOptions) {
    let mut countdown = Countdown::new(options.timeout);
    let shutdown = vm.shutdown(options);
    tokio::pin!(shutdown);
    loop {
        tokio::select! { biased;
            _ = &mut shutdown => return,
            text = countdown.next(), if !options.force => log::warn!(target: ANSWER, "{text}"),
        }
    }
}

/// The answer to the key that shuts down.
pub fn shutting_down(escape: EscapeKey, timeout: Duration, asked_before: bool) -> String {
    match asked_before {
        true => "QEMU is told to quit".to_owned(),
        false => format!(
            "the guest is asked to shut down, and has {} for it; {escape} x again ends it at once",
            duration::format(timeout)
        ),
    }
}

/// Tells from time to time how long a guest still has to shut down.
#[derive(Debug)]
pub struct Countdown {
    end: Instant,
    next: Option<Instant>,
}

impl Countdown {
    /// It has this much time from now on.
    pub fn new(left: Duration) -> Self {
        let now = Instant::now();
        let mut countdown = Self { end: now + left, next: None };
        countdown.go_on(now);
        countdown
    }

    /// At a multiple of the interval before the end.
    fn go_on(&mut self, now: Instant) {
        let left = self.end.saturating_duration_since(now).as_millis();
        let told = TOLD_AGAIN.as_millis();
        let rest = if left.is_multiple_of(told) { told } else { left % told };
        let rest = Duration::from_millis(u64::try_from(rest).unwrap_or(0));
        self.next = (left > 0).then(|| (now + rest).min(self.end));
    }

    /// The next text, when it is time for it. Cancellation-safe; does not resolve after the end.
    pub async fn next(&mut self) -> String {
        let Some(next) = self.next else { return std::future::pending().await };
        sleep_until(next).await;
        self.go_on(next);
        let left = self.end.saturating_duration_since(next);
        match left.is_zero() {
            true => "the guest did not shut down in time: QEMU is told to quit".to_owned(),
            false => format!("the guest has {} s left to shut down", left.as_secs_f64().round()),
        }
    }
}

/// The message after setting the console's size.
pub fn resized(rows: u16, columns: u16, by: ResizedBy) -> String {
    match by {
        ResizedBy::Agent => format!("the guest's console has {rows} rows and {columns} columns now"),
        ResizedBy::Typing => {
            format!(
                "`stty rows {rows} cols {columns}` was typed, since no guest agent answers: for a shell that is right"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_that_is_left_is_told_every_five_seconds() {
        let began = Instant::now();
        let mut countdown = Countdown::new(Duration::from_secs(12));
        let mut told = Vec::new();
        while told.len() < 3 {
            let text = countdown.next().await;
            told.push((began.elapsed().as_secs(), text));
        }
        let left = |seconds| format!("the guest has {seconds} s left to shut down");
        let end = "the guest did not shut down in time: QEMU is told to quit".to_owned();
        assert_eq!(told, [(2, left(10)), (7, left(5)), (12, end)]);
        let more = tokio::time::timeout(Duration::from_secs(60), countdown.next()).await;
        assert!(more.is_err());
    }

    #[test]
    fn the_key_is_acknowledged() {
        let text = |before| shutting_down(EscapeKey::default(), Duration::from_secs(30), before);
        assert_eq!(
            text(false),
            "the guest is asked to shut down, and has 30s for it; Ctrl-a x again ends it at once"
        );
        assert_eq!(text(true), "QEMU is told to quit");
    }
}
