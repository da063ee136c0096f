//! Limits on what a disk does per second.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::size::{Size, SizeError};

/// QEMU's `THROTTLE_VALUE_MAX`.
pub const MAX: u64 = 1_000_000_000_000_000;

/// Limits of one kind (operations or bytes a second). QEMU takes a limit on all, or separate ones, not both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// On reads and writes together.
    pub total: Option<u64>,
    /// On reads.
    pub read: Option<u64>,
    /// On writes.
    pub write: Option<u64>,
}

/// All limits of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Operations a second.
    pub operations: Rates,
    /// Bytes a second.
    pub bytes: Rates,
}

/// Why limits make no sense.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum LimitError {
    /// No limit at all.
    #[error("there is no limit to set")]
    Nothing,
    /// 0 is QEMU's word for none.
    #[error("a limit must be more than 0")]
    Zero,
    /// More than QEMU takes.
    #[error("a limit may be at most {MAX} a second")]
    TooLarge,
    /// A limit on all, and one on a part.
    #[error("a limit on all {0} and one on reads or writes cannot be had at the same time")]
    Both(&'static str),
    /// Bytes without a unit could be taken for MB, as elsewhere, or for bytes, as in QEMU.
    #[error("'{0}' has no unit: type 10M, 64K or 4096B")]
    NoUnit(String),
    /// Not a number of bytes.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// Not a number of operations.
    #[error("'{0}' is not a whole number of operations a second")]
    NotANumber(String),
}

impl Rates {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn check(&self, what: &'static str) -> Result<(), LimitError> {
        for limit in [self.total, self.read, self.write].into_iter().flatten() {
            checked(limit)?;
        }
        match self.total.is_some() && (self.read.is_some() || self.write.is_some()) {
            true => Err(LimitError::Both(what)),
            false => Ok(()),
        }
    }
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Limits as they are asked for: at least one, each possible.
    pub fn checked(self) -> Result<Self, LimitError> {
        if self.is_empty() {
            return Err(LimitError::Nothing);
        }
        self.operations.check("operations")?;
        self.bytes.check("bytes")?;
        Ok(self)
    }

    /// These with those in place of them: a kind (operations, bytes) of which nothing is said stays.
    #[must_use]
    pub fn replaced_by(self, new: Self) -> Self {
        let kind = |old: Rates, new: Rates| if new.is_empty() { old } else { new };
        Self { operations: kind(self.operations, new.operations), bytes: kind(self.bytes, new.bytes) }
    }
}

fn checked(limit: u64) -> Result<u64, LimitError> {
    match limit {
        0 => Err(LimitError::Zero),
        _ if limit > MAX => Err(LimitError::TooLarge),
        limit => Ok(limit),
    }
}

/// Bytes a second as typed: `10M`, `64K`, `4096B`; the unit must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRate(pub u64);

impl FromStr for ByteRate {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<Size>() {
            Err(SizeError::Zero) => Err(LimitError::Zero),
            Err(SizeError::TooLarge(_)) => Err(LimitError::TooLarge),
            Ok(_) if plain => Err(LimitError::NoUnit(text.to_owned())),
            size => Ok(Self(checked(size?.bytes())?)),
        }
    }
}

/// Operations a second as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationRate(pub u64);

impl FromStr for OperationRate {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let number = text.parse().map_err(|_| LimitError::NotANumber(text.to_owned()))?;
        checked(number).map(Self)
    }
}

impl fmt::Display for Rates {
    /// `100`, or `read 100, write 50`; nothing where there is no limit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [("", self.total), ("read ", self.read), ("write ", self.write)];
        let parts = named.into_iter().filter_map(|(name, limit)| limit.map(|limit| format!("{name}{limit}")));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_have_units() {
        assert_eq!("10M".parse(), Ok(ByteRate(10 << 20)));
        assert_eq!("4096B".parse(), Ok(ByteRate(4096)));
        assert_eq!("100".parse(), Ok(OperationRate(100)));
        let bytes = |text: &str| text.parse::<ByteRate>().unwrap_err().to_string();
        assert_eq!(bytes("4096"), "'4096' has no unit: type 10M, 64K or 4096B");
        assert_eq!(bytes("0"), "a limit must be more than 0");
        assert_eq!(bytes("0M"), "a limit must be more than 0");
        assert_eq!(bytes("-1M"), "size '-1M' is negative");
        assert_eq!(bytes("2P"), "a limit may be at most 1000000000000000 a second");
        let operations = |text: &str| text.parse::<OperationRate>().unwrap_err().to_string();
        assert_eq!(operations("0"), "a limit must be more than 0");
        assert_eq!(operations("-5"), "'-5' is not a whole number of operations a second");
        assert_eq!(operations("1M"), "'1M' is not a whole number of operations a second");
        assert_eq!(operations("1000000000000001"), "a limit may be at most 1000000000000000 a second");
    }

    #[test]
    fn what_is_not_said_stays() {
        let rates = |total| Rates { total, ..Rates::default() };
        let old = Limits { operations: rates(Some(5)), bytes: rates(Some(7)) };
        let read = Rates { read: Some(9), ..Rates::default() };
        let new = Limits { operations: read, bytes: Rates::default() };
        assert_eq!(old.replaced_by(new), Limits { operations: read, bytes: old.bytes });
        assert_eq!(read.to_string(), "read 9");
        assert_eq!(Limits::default().checked(), Err(LimitError::Nothing));
        let both = Rates { total: Some(1), read: Some(1), write: None };
        assert_eq!(Limits { operations: both, ..old }.checked(), Err(LimitError::Both("operations")));
        assert_eq!(Limits { operations: rates(Some(0)), ..old }.checked(), Err(LimitError::Zero));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), near in "[0-9]{0,25}[A-Za-z.-]{0,3}") {
            for text in [text, near] {
                let _ = (text.parse::<ByteRate>(), text.parse::<OperationRate>());
            }
        }
    }
}
