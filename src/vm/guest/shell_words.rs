//! What a guest's shell says of a file, without how each shell says it: `sh: line 10: can't create /a/b: Permission denied`.

/// What shells say, and what is told of it. The C library's texts (`strerror`) are known to everybody.
const TEXTS: &[(&[&str], &str)] = &[
    // dash, and busybox; the scripts look for directories themselves, so this one has just gone
    (&["nonexistent directory", "directory nonexistent"], "its directory does not exist"),
    (&["no such file or directory"], "No such file or directory"),
    (&["permission denied"], "Permission denied"),
    (&["operation not permitted"], "Operation not permitted"),
    (&["read-only file system"], "Read-only file system"),
    (&["no space left on device"], "No space left on device"),
    (&["disk quota exceeded"], "Disk quota exceeded"),
    (&["is a directory"], "it is a directory"),
    (&["not a directory"], "Not a directory"),
    (&["file name too long"], "File name too long"),
    (&["too many levels of symbolic links"], "Too many levels of symbolic links"),
    (&["input/output error", "i/o error"], "Input/output error"),
    (&["text file busy"], "Text file busy"),
];

/// The reason in an error text; a text that is not known stays as it is.
pub(super) fn reason(text: &str) -> String {
    let lower = text.to_lowercase();
    let is_message = lower.contains(": ");
    let known = TEXTS.iter().find(|(texts, _)| texts.iter().any(|known| lower.ends_with(known)));
    known.filter(|_| is_message).map_or_else(|| text.to_owned(), |(_, reason)| (*reason).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_and_tools_are_understood() {
        for (text, expected) in [
            ("sh: line 10: can't create /a/b: nonexistent directory", "its directory does not exist"),
            ("/bin/sh: 3: cannot create /a/b: Directory nonexistent", "its directory does not exist"),
            ("bash: line 1: /a/b: Read-only file system", "Read-only file system"),
            ("stat: can't stat '/a': No such file or directory", "No such file or directory"),
            ("cat: write error: No space left on device", "No space left on device"),
            ("mv: cannot move 'a': Permission denied", "Permission denied"),
            ("/a/b is a directory", "/a/b is a directory"),
            ("something else", "something else"),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
    }
}
