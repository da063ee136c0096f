//! IPv4 networks of user networking: `10.0.3.0/24`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text::text_type;

/// A network that QEMU's user networking can be: it has room for the addresses that QEMU takes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    address: u32,
    prefix: u8,
}

/// Why a text is not such a network.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum SubnetError {
    /// Not an address and a length.
    #[error("'{}' is not a network such as 10.0.3.0/24", .0.escape_debug())]
    Syntax(String),
    /// Too large for IPv4's classes, or too small for QEMU's own addresses.
    #[error("a network of user networking is from /8 to /27, not /{0}")]
    Prefix(u8),
    /// An address in a network.
    #[error("{typed} is an address in a network: the network is {network}")]
    Host {
        /// What was typed.
        typed: String,
        /// The network that it is in.
        network: Subnet,
    },
    /// No host has an address there.
    #[error("{0} is not a network that hosts can be in")]
    Reserved(Subnet),
}

impl Subnet {
    /// QEMU's own choice, which the first card has unless another is given.
    pub const DEFAULT: Self = Self { address: 0x0a00_0200, prefix: 24 };

    /// The networks that a card gets when nothing is said, in this order.
    fn usual() -> impl Iterator<Item = Self> {
        (2..=254).map(|third: u32| Self { address: 0x0a00_0000 | third << 8, prefix: 24 })
    }

    /// The first of the usual networks that overlaps none of these.
    pub fn free(taken: &[Self]) -> Option<Self> {
        Self::usual().find(|net| taken.iter().all(|other| !other.overlaps(*net)))
    }

    fn mask(self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }

    /// Whether an address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        self.address & mask == other.address & mask
    }

    /// Whether an address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == self.address
    }

    /// The first address, by which `info network` names it.
    pub fn address(self) -> Ipv4Addr {
        self.address.into()
    }

    /// As many addresses as 10.0.2.0/24 has, from this one on: QEMU does not tell a network's length.
    pub fn assumed(address: Ipv4Addr) -> Self {
        Self { address: u32::from(address) & (u32::MAX << 8), prefix: 24 }
    }

    fn with_host_part(self, part: u32) -> Ipv4Addr {
        (self.address | (part & !self.mask())).into()
    }

    /// The host's address, as QEMU picks it (`net_slirp_init` in its net/slirp.c).
    pub fn host(self) -> Ipv4Addr {
        self.with_host_part(0x0202)
    }

    /// The first address that QEMU gives to a guest, to which forwards lead.
    pub fn first_guest(self) -> Ipv4Addr {
        self.with_host_part(0x020f)
    }

    /// The last address, which is that of all hosts together.
    pub fn broadcast(self) -> Ipv4Addr {
        self.with_host_part(u32::MAX)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let syntax = || SubnetError::Syntax(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(syntax)?;
        let address: Ipv4Addr = address.parse().map_err(|_| syntax())?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|prefix| digits && *prefix <= 32).ok_or_else(syntax)?;
        if !(8..=27).contains(&prefix) {
            return Err(SubnetError::Prefix(prefix));
        }
        let whole = Self { address: address.into(), prefix };
        let network = Self { address: whole.address & whole.mask(), prefix };
        if network != whole {
            return Err(SubnetError::Host { typed: text.to_owned(), network });
        }
        match network.address >> 24 {
            0 | 127 | 224.. => Err(SubnetError::Reserved(network)),
            _ => Ok(network),
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.address(), self.prefix))
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(net: Subnet) -> Self {
        net.to_string()
    }
}

/// The host name that DHCP offers to a guest: at most what QEMU keeps of it (32 bytes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// Why a text is not a host's name.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum HostNameError {
    /// Empty, too long, or with a character that no host's name has.
    #[error("'{}' is not a host's name (1 to 32 letters, digits, '-' and '.')", .0.escape_debug())]
    Invalid(String),
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        let label = |label: &str| {
            let known = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            !label.is_empty() && known && !label.starts_with('-') && !label.ends_with('-')
        };
        match text.len() <= 32 && text.split('.').all(label) {
            true => Ok(Self(text.to_owned())),
            false => Err(HostNameError::Invalid(text.to_owned())),
        }
    }
}

text_type!(HostName, HostNameError);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, message) in [
            ("", "'' is not a network such as 10.0.3.0/24"),
            ("10.0.3.0", "'10.0.3.0' is not a network such as 10.0.3.0/24"),
            ("10.0.3/24", "'10.0.3/24' is not a network such as 10.0.3.0/24"),
            ("10.0.3.0/", "'10.0.3.0/' is not a network such as 10.0.3.0/24"),
            ("10.0.3.0/+8", "'10.0.3.0/+8' is not a network such as 10.0.3.0/24"),
            ("10.0.3.0/33", "'10.0.3.0/33' is not a network such as 10.0.3.0/24"),
            ("fec0::/64", "'fec0::/64' is not a network such as 10.0.3.0/24"),
            ("10.0.0.0/7", "a network of user networking is from /8 to /27, not /7"),
            ("10.0.3.0/28", "a network of user networking is from /8 to /27, not /28"),
            ("10.0.3.7/24", "10.0.3.7/24 is an address in a network: the network is 10.0.3.0/24"),
            ("127.0.0.0/8", "127.0.0.0/8 is not a network that hosts can be in"),
            ("0.0.0.0/8", "0.0.0.0/8 is not a network that hosts can be in"),
            ("239.1.0.0/16", "239.1.0.0/16 is not a network that hosts can be in"),
        ] {
            assert_eq!(text.parse::<Subnet>().unwrap_err().to_string(), message, "{text}");
        }
        for text in ["", "a b", "-a", "a-", "a..b", "a_b", &"a".repeat(33)] {
            assert!(text.parse::<HostName>().is_err(), "{text}");
        }
        assert_eq!("box-1.example".parse::<HostName>().unwrap().to_string(), "box-1.example");
    }

    #[test]
    fn knows_qemus_own_addresses() {
        assert_eq!(net("10.0.2.0/24"), Subnet::DEFAULT);
        let wide = net("192.168.0.0/16");
        assert_eq!((wide.host(), wide.first_guest()), ([192, 168, 2, 2].into(), [192, 168, 2, 15].into()));
        let narrow = net("10.0.3.32/27");
        assert_eq!((narrow.host(), narrow.first_guest()), ([10, 0, 3, 34].into(), [10, 0, 3, 47].into()));
        assert_eq!(narrow.broadcast(), Ipv4Addr::from([10, 0, 3, 63]));
        assert!(narrow.contains([10, 0, 3, 40].into()) && !narrow.contains([10, 0, 3, 64].into()));
    }

    #[test]
    fn the_first_that_is_free_is_taken() {
        assert_eq!(Subnet::free(&[]), Some(Subnet::DEFAULT));
        assert_eq!(Subnet::free(&[Subnet::DEFAULT]), Some(net("10.0.3.0/24")));
        assert_eq!(Subnet::free(&[net("10.0.0.0/16")]), None);
        assert_eq!(Subnet::free(&[net("10.0.2.0/23"), net("10.0.4.64/27")]), Some(net("10.0.5.0/24")));
        assert!(net("10.0.3.32/27").overlaps(net("10.0.3.0/24")));
        assert!(net("10.0.0.0/8").overlaps(net("10.0.3.0/24")));
        assert!(!net("10.0.3.0/24").overlaps(net("10.0.4.0/24")));
    }

    proptest! {
        #[test]
        fn round_trips(address in any::<u32>(), prefix in 8..=27_u8) {
            let network = Subnet { address, prefix };
            let network = Subnet { address: address & network.mask(), prefix };
            prop_assume!(!matches!(network.address >> 24, 0 | 127 | 224..));
            prop_assert_eq!(network.to_string().parse(), Ok(network));
            prop_assert!(network.contains(network.host()) && network.contains(network.first_guest()));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), near in "[0-9./]{0,20}") {
            let _ = text.parse::<Subnet>();
            let _ = near.parse::<Subnet>();
            let _ = text.parse::<HostName>();
        }
    }
}
