//! What `flags.txt` says of the commands of `vmrun ctl`.

const LIST: &str = include_str!("../flags.txt");

/// The commands, each with what stands in a column of its line: `prints`, `prints last` or `soak`.
pub(crate) fn column(name: &str) -> Vec<(&'static str, Vec<&'static str>)> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#'));
    let columns = lines.map(|line| line.split("  ").collect::<Vec<_>>());
    let mut found = Vec::new();
    for columns in columns {
        let Some(command) = columns[0].strip_prefix("ctl ").filter(|rest| !rest.contains(' ')) else {
            continue;
        };
        let head = format!("{name}: ");
        let entries = columns.iter().find_map(|column| column.strip_prefix(head.as_str())).unwrap_or("-");
        let entries = entries.split(" | ").filter(|entry| *entry != "-");
        found.push((command, entries.collect()));
    }
    assert!(found.len() > 40, "{found:?}");
    found
}

/// All that stands in a column, as words.
pub(crate) fn all(name: &str) -> Vec<Vec<&'static str>> {
    column(name)
        .into_iter()
        .flat_map(|(_, entries)| entries)
        .map(|entry| entry.split(' ').collect())
        .collect()
}

#[test]
fn every_command_says_what_it_prints_and_what_the_soak_does_with_it() {
    for line in LIST.lines().filter(|line| line.starts_with("ctl ")) {
        let columns: Vec<&str> = line.split("  ").collect();
        if columns[0].matches(' ').count() > 1 || columns[0].contains("--") {
            continue;
        }
        let [_, _, prints, soak] = columns[..] else { panic!("{line}: it needs `prints: …  soak: …`") };
        assert!(prints.starts_with("prints: ") || prints.starts_with("prints last: "), "{line}");
        assert!(soak.starts_with("soak: "), "{line}");
    }
}
