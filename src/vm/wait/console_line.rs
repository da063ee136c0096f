//! Finds a line of the console's output.

use std::time::Duration;

use anstream::adapter::strip_str;
use regex_lite::Regex;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::vm::console::Reader;

/// The longest piece of console output without a newline that is matched as a line, in bytes.
const MAX_LINE: usize = 64 << 10;
/// How long to wait for the rest of a line that matches already; a prompt has none.
const REST_OF_LINE: Duration = Duration::from_millis(100);

/// The first matching line. An unfinished line counts, too, since it may be a prompt; if its rest may still arrive, this waits for
/// it.
pub(in crate::vm) async fn find_line(mut reader: Reader, regex: Regex) -> Option<Value> {
    let mut search = Search { regex, unfinished: None };
    loop {
        let is_ready = match &search.unfinished {
            Some((_, until)) => timeout_at(*until, reader.ready()).await.unwrap_or(false),
            None => reader.ready().await,
        };
        if !is_ready {
            return search.unfinished.map(|(found, _)| found);
        }
        let found;
        (reader, (search, found)) = reader
            .search(move |reader| {
                let found = search.next_of(reader);
                (search, found)
            })
            .await?;
        if found.is_some() {
            return found;
        }
    }
}

/// The search for a line. Between two pieces of output it keeps no text: an unfinished line is read once more.
struct Search {
    regex: Regex,
    /// The unfinished line matches already; wait for its rest until then.
    unfinished: Option<(Value, Instant)>,
}

impl Search {
    /// Searches the next piece of output; returns the match, if it is final.
    fn next_of(&mut self, reader: &mut Reader) -> Option<Value> {
        let Self { regex, unfinished } = self;
        let text = reader.try_next()?.bytes;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            if line.ends_with(b"\n") || line.len() > MAX_LINE {
                let found = matching(line, regex, true).or_else(|| unfinished.take().map(|(found, _)| found));
                if found.is_some() {
                    return found;
                }
            } else {
                reader.read_again(line.len());
                if unfinished.is_none() {
                    *unfinished =
                        matching(line, regex, false).map(|found| (found, Instant::now() + REST_OF_LINE));
                }
            }
        }
        None
    }
}

/// A line is matched as it was printed, and as it appears on a terminal: without escape sequences, and without text that carriage
/// returns overwrote. Returns the text that matched.
fn matching(line: &[u8], regex: &Regex, ended: bool) -> Option<Value> {
    let printed = String::from_utf8_lossy(line);
    let printed = printed.trim_end_matches(['\r', '\n']);
    let report = |text: &str| {
        let captures = regex.captures(text)?;
        let groups: Vec<Option<&str>> =
            captures.iter().skip(1).map(|group| group.map(|group| group.as_str())).collect();
        Some(json!({ "line": text, "groups": groups, "ended": ended }))
    };
    report(printed).or_else(|| {
        if !printed.contains(['\x1b', '\r']) {
            return None;
        }
        let seen = strip_str(printed).to_string();
        report(&seen).or_else(|| seen.rsplit('\r').find_map(report))
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::vm::console::{From, Hub};

    async fn found(pieces: &[&str], pattern: &str) -> Option<Value> {
        let hub = Hub::default();
        let reader = hub.reader(From::Start);
        let regex = Regex::new(pattern).unwrap();
        let writing = async {
            for piece in pieces {
                hub.push(piece.as_bytes());
                // read by now: in paused time this sleep ends only when nothing else is left to do
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::join!(find_line(reader, regex), writing).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_whole_and_a_prompt_needs_no_end() {
        let whole = found(&["ip=10.0", ".2.15\r\n"], "ip=([0-9.]+)").await.unwrap();
        assert_eq!(whole, json!({ "line": "ip=10.0.2.15", "groups": ["10.0.2.15"], "ended": true }));
        let prompt = found(&["boot\r\nlog", "in: "], "login: $").await.unwrap();
        assert_eq!(prompt, json!({ "line": "login: ", "groups": [], "ended": false }));
        // a line that was printed matches, whatever follows it
        let echoed = found(&["login: ", "root\r\n"], "login: $").await.unwrap();
        assert_eq!(echoed["line"], "login: ");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_of_any_pieces_is_one_line() {
        let line = format!("begin {} end\r\n", "-".repeat(40 << 10));
        let pieces: Vec<&str> =
            line.as_bytes().chunks(5000).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
        assert!(found(&pieces, "^begin -* end$").await.is_some());
        assert!(found(&[&line], "^begin -* end$").await.is_some());
        // a line also ends at a carriage return or with the output
        let long = format!("begin {}", "-".repeat(MAX_LINE));
        let pieces = [long.as_str(), "-- end\n"];
        assert!(timeout(Duration::from_secs(60), found(&pieces, "^begin -* end$")).await.is_err());
    }

    /// 16 MiB that are searched with a hundred expressions do not block other tasks.
    #[tokio::test]
    async fn others_have_their_turn_while_much_output_is_searched() {
        let hub = Hub::default();
        for _ in 0..16 {
            hub.push(b"nothing of what is searched for\n".repeat(512).as_slice());
        }
        let searches: Vec<_> = (0..100)
            .map(|number| {
                // slow, and without a match
                let regex = Regex::new(&format!("(a?){{40}}(nothing|of|what)* x{number}$")).unwrap();
                tokio::spawn(find_line(hub.reader(From::Start), regex))
            })
            .collect();
        // each turn of the runtime gives this task one, too
        let (mut turns, began) = (0, std::time::Instant::now());
        while began.elapsed() < Duration::from_millis(500) {
            tokio::task::yield_now().await;
            turns += 1;
        }
        assert!(turns > 1000, "{turns} turns in {:?}", began.elapsed());
        searches.into_iter().for_each(|search| search.abort());
    }

    #[tokio::test(start_paused = true)]
    async fn colours_and_overwritten_text_hide_no_line() {
        let systemd = "\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mmulti-user.target\x1b[0m - x.\r\n";
        let line = found(&[systemd], "Reached target (multi-user)").await.unwrap();
        let seen = "  OK  ] Reached target multi-user.target - x.";
        assert_eq!(line, json!({ "line": seen, "groups": ["multi-user"], "ended": true }));
        // an expression for the escape sequences themselves still matches
        let raw = found(&[systemd], "\\x1b\\[0;1;39m(multi)").await.unwrap();
        assert_eq!(raw["groups"], json!(["multi"]));
        let title = "\x1b]0;user@host: ~\x07\x1b[01;32muser@host\x1b[00m:~$ ";
        assert_eq!(found(&[title], "^user@host:~\\$ $").await.unwrap()["line"], "user@host:~$ ");
        let progress = found(&["10%\r50%\rdone\n"], "^done$").await.unwrap();
        assert_eq!(progress["line"], "done");
        // split anywhere
        let pieces: Vec<&str> = systemd.split_inclusive('[').collect();
        assert_eq!(found(&pieces, "target multi-user").await.unwrap()["line"], seen);
    }
}
