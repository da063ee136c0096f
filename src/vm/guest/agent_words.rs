//! The guest agent's own words, where it gives nothing better: qemu-ga answers almost every error with the class `GenericError` and a text
//! (qga/commands-posix.c, qga/commands.c, glib's `g_spawn`). All texts that something depends on stand here, with where they come from.

/// A file or program is not there: `strerror(ENOENT)`, in qemu-ga's own words and in glib's.
pub(super) fn is_missing(words: &str) -> bool {
    words.contains("No such file or directory")
}

/// The command is switched off: by `--blacklist` and `--block-rpcs` (QEMU's qapi/qmp-dispatch.c, with the class `CommandNotFound` since
/// QEMU 6.0, and before with a text of its own), or as the file systems are frozen.
pub(super) fn is_blocked(class: &str, words: &str) -> bool {
    class == "CommandNotFound" || words.contains("has been disabled") || words.contains("not allowed")
}

/// The command is switched off as long as the file systems are frozen ("the agent is in frozen state", qga/main.c).
pub(super) fn is_frozen(words: &str) -> bool {
    words.contains("has been disabled") && words.contains("frozen")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What qemu-ga has said: the versions as they come with Debian 10 to 13.
    #[test]
    fn samples_are_understood() {
        for words in [
            "Failed to execute child process “nothing” (No such file or directory)",
            "Failed to execute child process \"nothing\" (No such file or directory)",
            "failed to open file '/nothing' (mode: 'r'): No such file or directory",
        ] {
            assert!(is_missing(words) && !is_blocked("GenericError", words), "{words}");
        }
        for (class, words) in [
            ("CommandNotFound", "Command guest-exec has been disabled"),
            ("CommandNotFound", "Command guest-exec has been disabled: the command is not allowed"),
            ("CommandNotFound", "The command guest-nothing has not been found"),
            ("GenericError", "The command guest-exec has been disabled for this instance"),
            (
                "GenericError",
                "Command guest-file-open has been disabled: not allowed while file systems are frozen",
            ),
        ] {
            assert!(is_blocked(class, words) && !is_missing(words), "{words}");
        }
        for words in [
            "Failed to execute child process “x” (Permission denied)",
            "failed to open file '/': Is a directory",
            "Invalid parameter 'path'",
        ] {
            assert!(!is_missing(words) && !is_blocked("GenericError", words), "{words}");
        }
    }
    #[test]
    fn frozen_is_told_from_disabled() {
        assert!(is_frozen("Command guest-exec has been disabled: the agent is in frozen state"));
        assert!(!is_frozen("Command guest-exec has been disabled"));
        assert!(!is_frozen("failed to open file '/frozen' (mode: 'r'): Permission denied"));
    }
}
