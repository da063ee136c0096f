//! What `ctl` is asked for: the column `soak` of `flags.txt`. Each with ids of a few, so that they meet each other: what is there is
//! added again, what is not is removed.

use std::sync::LazyLock;

use crate::support::chance::Chance;
use crate::support::verbs;

static CHANGES: LazyLock<Vec<Vec<&str>>> = LazyLock::new(|| verbs::all("soak"));

pub(super) fn any(chance: &mut Chance) -> Vec<String> {
    let change = &CHANGES[chance.below(CHANGES.len() as u64) as usize];
    let number = chance.below(3).to_string();
    change.iter().map(|word| word.replace('N', &number)).collect()
}
