//! Sizes of disks and memory.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// QEMU keeps sizes of images in an `int64_t`.
const MAX: u64 = i64::MAX as u64;
const MIB: u64 = 1 << 20;

/// Letters of the units, each 1024 times the one before it.
const UNITS: &str = "KMGTP";

/// A size in bytes, more than 0. Typed `512M`, `10G`, `1T`, `64K`, `1048576B`; a plain number is MB (MiB), as in linuxkit's `--mem`;
/// of a disk's size see [`Size::of_disk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Size(pub(crate) u64);

/// Why a text (or number) is not a size.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum SizeError {
    /// Nothing was given.
    #[error("the size is empty")]
    Empty,
    /// 0 of whatever unit.
    #[error("the size must be more than 0")]
    Zero,
    /// Less than 0.
    #[error("size '{0}' is negative")]
    Negative(String),
    /// Not a whole number.
    #[error("size '{0}' is not a whole number; use a smaller unit")]
    Fraction(String),
    /// No number at the start.
    #[error("size '{0}' does not start with a number")]
    NotANumber(String),
    /// An unknown unit.
    #[error("size '{text}' has the unknown unit '{unit}' (known: B, K, M, G, T, P)")]
    Unit {
        /// The text.
        text: String,
        /// What follows the number.
        unit: String,
    },
    /// More than QEMU can count.
    #[error("size '{0}' is too large (at most {MAX} bytes)")]
    TooLarge(String),
}

impl Size {
    /// A size of so many bytes; none for 0 and for more than `i64::MAX`.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        if bytes == 0 || bytes > MAX { None } else { Some(Self(bytes)) }
    }

    /// A size of so many MiB, for constants.
    ///
    /// # Panics
    /// For 0 and for more than `i64::MAX` bytes: a mistake in the program, not for what a user typed.
    pub const fn mib(count: u64) -> Self {
        assert!(count > 0 && count <= MAX / MIB, "a size must be more than 0 and less than 8 EiB");
        Self(count * MIB)
    }

    /// The size of a disk, as it is typed: a plain number is GiB, as in linuxkit's `--disk`.
    ///
    /// # Errors
    /// As for any size.
    pub fn of_disk(text: &str) -> Result<Self, SizeError> {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if plain { format!("{text}G").parse() } else { text.parse() }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// How many bytes a unit has, as typed: `K`, `kb`, `KiB`, `B`; all binary, as in QEMU. An empty one is MiB, as in linuxkit.
fn unit_bytes(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_uppercase();
    match unit.as_str() {
        "" => return Some(MIB),
        "B" => return Some(1),
        _ => {}
    }
    let letter = unit.strip_suffix("IB").or(unit.strip_suffix('B')).unwrap_or(&unit);
    let power = UNITS.find(letter).filter(|_| letter.len() == 1)?;
    Some(1 << (10 * (power + 1)))
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        if text.is_empty() {
            return Err(SizeError::Empty);
        }
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        if text.starts_with('-') {
            return Err(SizeError::Negative(text.to_owned()));
        }
        if unit.starts_with(['.', ',']) {
            return Err(SizeError::Fraction(text.to_owned()));
        }
        if number.is_empty() {
            return Err(SizeError::NotANumber(text.to_owned()));
        }
        let unit_bytes = unit_bytes(unit)
            .ok_or_else(|| SizeError::Unit { text: text.to_owned(), unit: unit.to_owned() })?;
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_bytes));
        match bytes {
            Some(0) => Err(SizeError::Zero),
            Some(bytes) => Self::from_bytes(bytes).ok_or_else(|| SizeError::TooLarge(text.to_owned())),
            None => Err(SizeError::TooLarge(text.to_owned())),
        }
    }
}

impl fmt::Display for Size {
    /// In the largest unit that gives a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut number, mut unit) = (self.0, 'B');
        for larger in UNITS.chars() {
            if number % 1024 != 0 {
                break;
            }
            (number, unit) = (number / 1024, larger);
        }
        f.pad(&format!("{number}{unit}"))
    }
}

impl TryFrom<u64> for Size {
    type Error = SizeError;

    fn try_from(bytes: u64) -> Result<Self, SizeError> {
        let too_large =
            || if bytes == 0 { SizeError::Zero } else { SizeError::TooLarge(format!("{bytes}B")) };
        Self::from_bytes(bytes).ok_or_else(too_large)
    }
}

impl From<Size> for u64 {
    fn from(size: Size) -> u64 {
        size.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_every_unit() {
        let bytes = |text: &str| text.parse::<Size>().unwrap().bytes();
        assert_eq!(bytes("1024"), 1 << 30);
        assert_eq!(bytes("1048576B"), 1 << 20);
        assert_eq!(bytes("512M"), 512 << 20);
        for (text, shift) in
            [("1k", 10), ("1K", 10), ("1MB", 20), ("1mib", 20), ("1GiB", 30), ("1gb", 30), ("1T", 40)]
        {
            assert_eq!(bytes(text), 1 << shift, "{text}");
        }
        assert_eq!(bytes("9223372036854775807B"), MAX);
    }

    #[test]
    fn says_what_is_wrong() {
        let error = |text: &str| text.parse::<Size>().unwrap_err().to_string();
        assert_eq!(error(""), "the size is empty");
        assert_eq!(error("0"), "the size must be more than 0");
        assert_eq!(error("0G"), "the size must be more than 0");
        assert_eq!(error("-1G"), "size '-1G' is negative");
        assert_eq!(error("1.5G"), "size '1.5G' is not a whole number; use a smaller unit");
        assert_eq!(error("G"), "size 'G' does not start with a number");
        assert_eq!(error("+1"), "size '+1' does not start with a number");
        assert_eq!(error("10X"), "size '10X' has the unknown unit 'X' (known: B, K, M, G, T, P)");
        for unit in [" G", "Gi", "iB", "KM", "BB", "١"] {
            let text = format!("10{unit}");
            assert_eq!(text.parse::<Size>(), Err(SizeError::Unit { text, unit: unit.to_owned() }));
        }
        for text in ["8192P", "9223372036854775808B", "99999999999999999999999"] {
            assert_eq!(
                error(text),
                format!("size '{text}' is too large (at most 9223372036854775807 bytes)")
            );
        }
    }

    #[test]
    fn a_plain_number_is_of_linuxkits_unit() {
        assert_eq!("10".parse::<Size>().unwrap(), Size::mib(10));
        for (text, gib) in [("10", 10), ("010", 10), ("10G", 10), ("1T", 1024)] {
            assert_eq!(Size::of_disk(text).unwrap(), Size::mib(gib * 1024), "{text}");
        }
        assert_eq!(Size::of_disk("10M").unwrap(), Size::mib(10));
        assert_eq!(Size::of_disk("0").unwrap_err(), SizeError::Zero);
        assert_eq!(Size::of_disk("").unwrap_err(), SizeError::Empty);
        assert_eq!(Size::of_disk("-1").unwrap_err(), SizeError::Negative("-1".to_owned()));
    }

    #[test]
    fn prints_the_largest_whole_unit() {
        for text in ["1B", "1023B", "1K", "1025K", "1536M", "10G", "1T", "1P", "2048P"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!(Size::mib(1024).to_string(), "1G");
    }

    #[test]
    fn json_is_a_number_of_bytes_and_checked() {
        assert_eq!(serde_json::to_string(&Size::mib(1)).unwrap(), "1048576");
        assert!(serde_json::from_str::<Size>("0").is_err());
    }

    proptest! {
        #[test]
        fn round_trips(number in 1..=MAX, shift in 0..40u32) {
            let size = Size::from_bytes(((number >> shift) << shift).max(1)).unwrap();
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), digits in "[0-9]{0,25}[KMGTPkmgtpiBb.-]{0,4}") {
            let _ = text.parse::<Size>();
            let _ = digits.parse::<Size>();
        }
    }
}
