//! A property's text in the type that QEMU declares for it: JSON `-device` and `device_add` are strictly typed.

use serde_json::Value;
use thiserror::Error;

/// Why a text does not fit the type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TypedError {
    /// Neither on nor off.
    #[error("'{0}' is not a switch: use on or off")]
    Switch(String),
    /// Not a whole number.
    #[error("'{0}' is not a number")]
    Number(String),
    /// Outside the type.
    #[error("{value} does not fit {kind} ({min} to {max})")]
    Range {
        /// What was typed.
        value: String,
        /// QEMU's name of the type.
        kind: String,
        /// Least.
        min: i128,
        /// Most.
        max: i128,
    },
    /// Not a size.
    #[error("'{0}' is not a size: use bytes, or a number with K, M, G, T, P or E")]
    Size(String),
}

/// The JSON value for a text, given QEMU's name of the property's type. Enumerations, links and types that are not known stay text.
///
/// ```
/// use vmrun::qemu::typed::typed;
/// assert_eq!(typed("0x10", "uint32")?, 16);
/// assert_eq!(typed("on", "bool")?, true);
/// assert_eq!(typed("1M", "size")?, 1 << 20);
/// assert_eq!(typed("auto", "OnOffAuto")?, "auto");
/// # Ok::<(), vmrun::qemu::typed::TypedError>(())
/// ```
pub fn typed(value: &str, qemu_type: &str) -> Result<Value, TypedError> {
    match qemu_type {
        "bool" => switch(value).map(Value::from),
        "size" => size(value).map(Value::from),
        _ => match range(qemu_type) {
            Some((min, max)) => integer(value, qemu_type, min, max),
            None => Ok(value.into()),
        },
    }
}

fn switch(value: &str) -> Result<bool, TypedError> {
    match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(TypedError::Switch(value.to_owned())),
    }
}

fn range(qemu_type: &str) -> Option<(i128, i128)> {
    let unsigned = |bits: u32| Some((0, (1i128 << bits) - 1));
    let signed = |bits: u32| Some((-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1));
    match qemu_type {
        "uint4" => unsigned(4),
        "uint8" => unsigned(8),
        "uint16" => unsigned(16),
        "uint32" => unsigned(32),
        "uint64" | "uint" => unsigned(64),
        "int8" => signed(8),
        "int16" => signed(16),
        "int32" => signed(32),
        "int64" | "int" => signed(64),
        _ => None,
    }
}

fn integer(value: &str, kind: &str, min: i128, max: i128) -> Result<Value, TypedError> {
    let number = parse_integer(value).ok_or_else(|| TypedError::Number(value.to_owned()))?;
    // within 64 bits, by the ranges above
    let fitting = u64::try_from(number).map(Value::from).or_else(|_| i64::try_from(number).map(Value::from));
    match fitting {
        Ok(json) if (min..=max).contains(&number) => Ok(json),
        _ => Err(TypedError::Range { value: value.to_owned(), kind: kind.to_owned(), min, max }),
    }
}

fn parse_integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hexadecimal) => (16, hexadecimal),
        None => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let number = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -number } else { number })
}

/// Bytes; fractions only with a unit, as QEMU has it (`1.5G`).
fn size(value: &str) -> Result<u64, TypedError> {
    let bad = || TypedError::Size(value.to_owned());
    if let Some(bytes) = parse_integer(value) {
        return u64::try_from(bytes).map_err(|_| bad());
    }
    let unit = value.chars().next_back().ok_or_else(bad)?;
    let shift = match unit.to_ascii_uppercase() {
        'B' => 0,
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        'P' => 50,
        'E' => 60,
        _ => return Err(bad()),
    };
    let (whole, fraction) = match value[..value.len() - 1].split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (&value[..value.len() - 1], None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole)
        || fraction.is_some_and(|fraction| !digits(fraction) || fraction.len() > 9 || shift == 0)
    {
        return Err(bad());
    }
    let whole: u128 = whole.parse().map_err(|_| bad())?;
    let part = match fraction {
        Some(text) => {
            let number: u128 = text.parse().map_err(|_| bad())?;
            (number << shift) / 10u128.pow(u32::try_from(text.len()).map_err(|_| bad())?)
        }
        None => 0,
    };
    whole.checked_mul(1 << shift).map(|bytes| bytes + part).and_then(|n| n.try_into().ok()).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_qemu_reads() {
        for (text, kind, value) in [
            ("off", "bool", json!(false)),
            ("12", "uint8", json!(12)),
            ("-1", "int32", json!(-1)),
            ("0xffffffffffffffff", "uint64", json!(u64::MAX)),
            ("-0x10", "int64", json!(-16)),
            ("1.5K", "size", json!(1536)),
            ("0x200", "size", json!(512)),
            ("4096", "size", json!(4096)),
            ("512B", "size", json!(512)),
            ("5", "str", json!("5")),
            ("5", "string", json!("5")),
            ("rng0", "link<rng-backend>", json!("rng0")),
            ("16", "PCIELinkSpeed", json!("16")),
            ("", "str", json!("")),
        ] {
            assert_eq!(typed(text, kind), Ok(value), "{text} as {kind}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for (text, kind, message) in [
            ("1", "bool", "'1' is not a switch: use on or off"),
            ("", "uint32", "'' is not a number"),
            ("0x", "uint32", "'0x' is not a number"),
            ("+5", "uint32", "'+5' is not a number"),
            ("--5", "int32", "'--5' is not a number"),
            ("256", "uint8", "256 does not fit uint8 (0 to 255)"),
            ("-1", "uint32", "-1 does not fit uint32 (0 to 4294967295)"),
            ("1.5", "size", "'1.5' is not a size: use bytes, or a number with K, M, G, T, P or E"),
            ("99E", "size", "'99E' is not a size: use bytes, or a number with K, M, G, T, P or E"),
            ("M", "size", "'M' is not a size: use bytes, or a number with K, M, G, T, P or E"),
            ("", "size", "'' is not a size: use bytes, or a number with K, M, G, T, P or E"),
            ("5é", "size", "'5é' is not a size: use bytes, or a number with K, M, G, T, P or E"),
        ] {
            assert_eq!(typed(text, kind).unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,24}", kind in "bool|size|u?int(4|8|16|32|64)?|str") {
            let _ = typed(&text, &kind);
        }

        #[test]
        fn sizes_are_exact(number in 0u64..8, unit in 0usize..7) {
            let text = format!("{number}{}", ["B", "K", "M", "G", "T", "P", "E"][unit]);
            prop_assert_eq!(typed(&text, "size"), Ok(json!(number << (10 * unit))));
        }
    }
}
