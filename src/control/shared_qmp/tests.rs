//! Commands are found however the input is split.

use proptest::prelude::*;

use super::*;

fn shown(input: Input) -> String {
    match input {
        Input::Command(value) => value.to_string(),
        Input::Garbage(_) => "garbage".to_owned(),
    }
}

/// All values found in a stream of these pieces.
fn understood<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let (mut scan, mut buffer, mut all) = (Scan::default(), Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(input) = scan.next(&mut buffer) {
            all.push(shown(input));
        }
    }
    all
}

fn command() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<i32>().prop_map(|number| json!(number)),
        "[\"\\\\{}\\[\\]\n a]{0,6}".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[\"\\\\{}a]{0,3}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
    .prop_filter("a command is not a number", |value| value.is_object() || value.is_array())
}

proptest! {
    #[test]
    fn commands_are_understood_however_they_are_cut(
        commands in prop::collection::vec((command(), any::<bool>(), prop::sample::select(&["", "\n", "\r\n", " "][..])), 0..6),
        size in 1usize..40,
    ) {
        let mut stream = Vec::new();
        for (command, pretty, between) in &commands {
            let text = if *pretty { serde_json::to_vec_pretty(command) } else { serde_json::to_vec(command) };
            stream.extend(text.unwrap());
            stream.extend(between.as_bytes());
        }
        let expected: Vec<String> = commands.iter().map(|(command, ..)| command.to_string()).collect();
        prop_assert_eq!(understood(stream.chunks(size)), expected);
    }

    #[test]
    fn after_any_garbage_the_next_line_is_understood(garbage in "[a-z{}\\[\\],: 0-9]{1,20}", size in 1usize..9) {
        prop_assume!(serde_json::from_str::<Value>(&garbage).is_err());
        let stream = format!("{garbage}\n\n{}\n{{\"execute\": \"x\"}}\n", "]}".repeat(20));
        let last = understood(stream.as_bytes().chunks(size)).pop();
        prop_assert_eq!(last, Some("{\"execute\":\"x\"}".to_owned()));
    }
}

/// The replies to a stream, however it is split.
#[track_caller]
fn is_understood_as(stream: &str, expected: &[&str]) {
    for size in 1..=stream.len() {
        let mut all = understood(stream.as_bytes().chunks(size));
        all.retain(|shown| !shown.is_empty());
        assert_eq!(all, expected, "{stream:?} in pieces of {size}");
    }
}

#[test]
fn one_bad_line_has_one_answer() {
    let good = "{\"execute\":\"x\"}";
    for bad in ["nonsense", "{\"a\": nonsense}", "\"\u{1}\"", "}", "nonsense {}", "[1, 2", "\"open"] {
        // the newline before it is there already when it arrives; `[1, 2` continues in the next line
        let broken = if bad == "[1, 2" {
            format!("{good}\r\n{bad}\r\n]]\r\n")
        } else {
            format!("{good}\r\n\r\n{bad}\r\n")
        };
        let stream = format!("{broken}{good}\r\n");
        match bad {
            "[1, 2" => is_understood_as(&stream, &[good, "[1,2]", "garbage", good]),
            _ => is_understood_as(&stream, &[good, "garbage", good]),
        }
    }
    is_understood_as(&format!("{{\n\"a\":\n nonsense}}\n{good}\n"), &["garbage", good]);
}

#[test]
fn what_has_no_end_of_its_line_is_answered_at_the_end_of_the_stream() {
    let rest = |text: &str| {
        let (mut scan, mut buffer) = (Scan::default(), text.as_bytes().to_vec());
        assert!(scan.next(&mut buffer).is_none(), "{text}");
        scan.rest(&mut buffer).map(shown)
    };
    assert_eq!(rest(" \r\n"), None);
    assert_eq!(rest("nonsense").as_deref(), Some("garbage"));
    assert_eq!(rest("{\"execute\": ").as_deref(), Some("garbage"));
    assert_eq!(rest("5").as_deref(), Some("5"));
}

/// A mebibyte byte by byte, in which a value could end at each byte.
#[test]
fn what_comes_byte_by_byte_is_hardly_ever_parsed_in_vain() {
    for (start, again) in [
        ("{\"a\":[", "{},"),
        ("{\"a\":", "\n"),
        ("[\"", "\\\"}"),
        ("]", "]"),
        ("[", "[}"),
        ("[}", "[}"),
        ("\n", " \n"),
    ] {
        let stream = [start.as_bytes(), &again.as_bytes().repeat(MAX_MESSAGE / again.len())].concat();
        let (mut scan, mut buffer, mut vain) = (Scan::default(), Vec::new(), 0);
        for byte in stream {
            buffer.push(byte);
            while let Some(end) = scan.look(&buffer) {
                vain += 1;
                assert!(parsed(&mut buffer).is_none(), "{start}{again}");
                scan.in_vain(end, &buffer);
            }
        }
        assert!(vain <= 21, "{start}{again}…: {vain} times");
    }
}
