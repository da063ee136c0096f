//! The options of a saved VM's start that the file does not restore.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use crate::qemu::quote;
use crate::spec::{Display, OnPanic, Request, Size, duration};

use crate::vm::changes::saving::Saved;
use crate::vm::state::facts::DEFAULT_LOG_CAP;

/// The missing options, quoted for a shell; `None` if this command line has all.
pub(super) fn missing(saved: &Saved, request: &Request, state: &Path, qemu: &Path) -> Option<String> {
    let (spec, facts) = (&saved.spec, &saved.facts);
    let mut words = Words::default();
    if request.qemu.is_none() && facts.qemu != qemu {
        words.flag("--qemu", &facts.qemu);
    }
    if request.state.is_none() && facts.state_directory != state {
        words.flag("--state", &facts.state_directory);
    }
    if request.publish.is_empty() && spec.networks().any(|(_, network)| network.is_user()) {
        for forward in &spec.publish {
            words.flag("--publish", forward.to_string());
        }
    }
    if spec.display.has_screen() && spec.display != Display::Headless && request.display == Display::None {
        words.flag("--display", spec.display.to_string());
    }
    if request.on_panic == OnPanic::default() && spec.on_panic != OnPanic::default() {
        words.flag("--on-panic", spec.on_panic.to_string());
    }
    if spec.no_reboot && !request.no_reboot {
        words.word("--no-reboot");
    }
    if let Some(resets) = facts.max_resets.filter(|_| request.max_resets.is_none()) {
        words.flag("--max-resets", resets.to_string());
    }
    if let Some(lifetime) = facts.max_lifetime_ms.filter(|_| request.max_lifetime.is_none()) {
        words.flag("--max-lifetime", duration::format(Duration::from_millis(lifetime)));
    }
    if request.log_size.is_none() && facts.log_bytes != DEFAULT_LOG_CAP {
        words.flag("--log-size", Size(facts.log_bytes).to_string());
    }
    if let Some(folder) = facts.keep_logs.as_ref().filter(|_| request.keep_logs.is_none()) {
        words.flag("--keep-logs", folder);
    }
    // on a bridge there are no forwards
    if request.sandbox && !spec.sandbox && !spec.uses_bridge() {
        words.word("--no-sandbox");
    }
    if request.extra.is_empty() && !spec.extra.is_empty() {
        words.word("--");
        spec.extra.iter().for_each(|argument| words.word(argument));
    }
    words.joined()
}

#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn word(&mut self, word: impl AsRef<OsStr>) {
        self.0.push(word.as_ref().to_owned());
    }

    fn flag(&mut self, flag: &str, value: impl AsRef<OsStr>) {
        self.word(flag);
        self.word(value);
    }

    fn joined(self) -> Option<String> {
        let words: Vec<String> = self.0.iter().map(|word| quote::word(word)).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }
}
