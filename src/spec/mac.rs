//! MAC addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A unicast Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

/// Why a text is not the address of a card.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum MacError {
    /// Not six pairs of hexadecimal digits.
    #[error("'{0}' is not a MAC address (six pairs of hexadecimal digits with colons)")]
    Syntax(String),
    /// A group address, which no card can have.
    #[error("MAC address '{0}' is a multicast address")]
    Multicast(String),
}

impl MacAddress {
    /// A locally administered unicast address (IEEE 802: bit 1 of the first byte set, bit 0 clear) from random bytes.
    pub fn from_random(mut bytes: [u8; 6]) -> Self {
        bytes[0] = (bytes[0] | 0b10) & !0b1;
        Self(bytes)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let syntax = || MacError::Syntax(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(syntax)?;
            let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| digits).ok_or_else(syntax)?;
        }
        if parts.next().is_some() {
            return Err(syntax());
        }
        if bytes[0] & 1 == 1 {
            return Err(MacError::Multicast(text.to_owned()));
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(value: MacAddress) -> String {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn says_what_is_wrong() {
        for text in [
            "",
            "52:54:00:00:00",
            "52:54:00:00:00:01:02",
            "52:54:0:0:0:1",
            "52:54:00:00:00:+1",
            "525400000001",
        ] {
            assert_eq!(
                text.parse::<MacAddress>().unwrap_err().to_string(),
                format!("'{text}' is not a MAC address (six pairs of hexadecimal digits with colons)")
            );
        }
        let error = "01:00:5e:00:00:01".parse::<MacAddress>().unwrap_err();
        assert_eq!(error.to_string(), "MAC address '01:00:5e:00:00:01' is a multicast address");
        assert_eq!("52:54:00:AB:00:01".parse::<MacAddress>().unwrap().to_string(), "52:54:00:ab:00:01");
    }

    proptest! {
        #[test]
        fn random_ones_are_unicast_and_round_trip(bytes in any::<[u8; 6]>()) {
            let mac = MacAddress::from_random(bytes);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), near in "([0-9a-f]{2}:){4,6}[0-9é+]{1,2}") {
            let _ = text.parse::<MacAddress>();
            let _ = near.parse::<MacAddress>();
        }
    }
}
