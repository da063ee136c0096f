//! How long a wait may take.

use std::str::FromStr;
use std::time::Duration;

use crate::spec::Condition;
use crate::spec::duration::{self, DurationError};

/// The limit of waits for what a guest may never do: several times as long as a large guest takes to boot with KVM.
const DEFAULT: Duration = Duration::from_secs(5 * 60);

/// The limit of a wait, as typed: a duration, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit(Option<Duration>);

impl FromStr for Limit {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        match text {
            "none" => Ok(Self(None)),
            _ => duration::parse(text).map(|limit| Self(Some(limit))),
        }
    }
}

impl Limit {
    /// The limit that was typed, else the default one. The end of a VM may be awaited for as long as it runs: nothing is wrong with
    /// a VM that does not end.
    pub(super) fn of(typed: Option<Self>, conditions: &[Condition]) -> Option<Duration> {
        match typed {
            Some(Self(limit)) => limit,
            None if conditions.contains(&Condition::Exit) => None,
            None => Some(DEFAULT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_has_a_limit_unless_it_is_for_the_end() {
        let of = |typed: &str, conditions: &[Condition]| {
            Limit::of((!typed.is_empty()).then(|| typed.parse().unwrap()), conditions)
        };
        assert_eq!(of("", &[Condition::Agent]), Some(Duration::from_secs(300)));
        assert_eq!(of("", &[Condition::Agent, Condition::Exit]), None);
        assert_eq!(of("2s", &[Condition::Exit]), Some(Duration::from_secs(2)));
        assert_eq!(of("none", &[Condition::Agent]), None);
        assert!("never".parse::<Limit>().is_err());
    }
}
