//! Durations as typed: `30s`, `1m 30s`, `500ms`, plain numbers are seconds.

use std::time::Duration;

use thiserror::Error;

/// No wait is longer: what comes of a wrong unit should be seen at once.
pub const MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Why a text is not a duration.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Nothing was given.
    #[error("the duration is empty")]
    Empty,
    /// No time at all.
    #[error("the duration must be more than 0")]
    Zero,
    /// Less than 0.
    #[error("duration '{0}' is negative")]
    Negative(String),
    /// More than [`MAX`].
    #[error("duration '{0}' is longer than a year")]
    TooLong(String),
    /// Numbers and units are not to be made out.
    #[error("'{text}' is not a duration like 30s, 1m 30s or 500ms: {reason}")]
    Syntax {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads a duration: more than 0, at most [`MAX`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(DurationError::Empty);
    }
    if trimmed.starts_with('-') {
        return Err(DurationError::Negative(text.to_owned()));
    }
    let plain = trimmed.chars().all(|c| c.is_ascii_digit() || c == '.');
    let with_unit = if plain { format!("{trimmed}s") } else { trimmed.to_owned() };
    let too_long = || DurationError::TooLong(text.to_owned());
    let mut sum = Duration::ZERO;
    for term in terms(&with_unit) {
        let duration = humantime::parse_duration(term).map_err(|error| match error {
            humantime::DurationError::NumberOverflow if !term.contains('.') => too_long(),
            _ => DurationError::Syntax { text: text.to_owned(), reason: error.to_string() },
        })?;
        sum = sum.checked_add(duration).filter(|sum| *sum <= MAX).ok_or_else(too_long)?;
    }
    if sum.is_zero() { Err(DurationError::Zero) } else { Ok(sum) }
}

/// Cuts `1m 30s` into `1m ` and `30s`. humantime could add them up, but 2.4 panics when the sum is over `u64::MAX` seconds.
fn terms(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let unit = rest.find(char::is_alphabetic).unwrap_or(rest.len());
        let next = rest[unit..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |digit| unit + digit);
        let (term, after) = rest.split_at(next);
        rest = after;
        Some(term).filter(|term| !term.is_empty())
    })
}

/// Writes a duration as [`parse`] reads it, e.g. `1m 30s`.
pub fn format(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_units_and_plain_seconds() {
        let table = [
            ("30s", 30_000),
            ("500ms", 500),
            ("1m 30s", 90_000),
            ("1m30s", 90_000),
            ("1.5", 1_500),
            ("30", 30_000),
            (" 2h ", 7_200_000),
            ("0h 1s", 1_000),
        ];
        for (text, milliseconds) in table {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(error(" "), "the duration is empty");
        assert_eq!(error("0"), "the duration must be more than 0");
        assert_eq!(error("0ms"), "the duration must be more than 0");
        assert_eq!(error("-5s"), "duration '-5s' is negative");
        assert_eq!(error("2years"), "duration '2years' is longer than a year");
        assert_eq!(error("99999999999999999999"), "duration '99999999999999999999' is longer than a year");
        assert_eq!(
            error("18446744073709551615s 1000ms"),
            "duration '18446744073709551615s 1000ms' is longer than a year"
        );
        assert_eq!(error("s"), "'s' is not a duration like 30s, 1m 30s or 500ms: expected number at 0");
        assert_eq!(
            error("1m 30"),
            "'1m 30' is not a duration like 30s, 1m 30s or 500ms: time unit needed, for example 30sec or 30ms"
        );
        for text in ["1.", ".5", "5x", "1s-", "1 s 2", "+1s", "1,5s", "..", "١s", "0.5ns"] {
            assert!(matches!(parse(text), Err(DurationError::Syntax { .. })), "{text}: {:?}", parse(text));
        }
    }

    proptest! {
        #[test]
        fn round_trips(nanoseconds in 1..=MAX.as_nanos() as u64, precision in 0..10u32) {
            let unit = 10u64.pow(precision);
            let duration = Duration::from_nanos((nanoseconds / unit * unit).max(1));
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), terms in "([0-9]{1,20}(\\.[0-9]{1,20})? ?(ns|ms|s|m|h|y|) ?){0,4}") {
            let _ = parse(&text);
            let _ = parse(&terms);
        }
    }
}
