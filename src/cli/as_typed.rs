//! Typed values: a disk or forward with whether parts of it were given, since the default of the others depends on other flags; and
//! numbers.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::spec::{DiskBus, DiskError, DiskSpec, Forward, ForwardError};

/// `--disk`.
#[derive(Debug, Clone)]
pub(super) struct TypedDisk {
    disk: DiskSpec,
    names_bus: bool,
}

impl TypedDisk {
    pub(super) fn parse(text: &OsStr) -> Result<Self, DiskError> {
        Ok(Self { disk: DiskSpec::parse(text)?, names_bus: DiskSpec::names_bus(text) })
    }

    /// linuxkit's disks are on SATA.
    pub(super) fn meant(self, linuxkit: bool) -> DiskSpec {
        match linuxkit && !self.names_bus {
            true => DiskSpec { bus: DiskBus::Sata, ..self.disk },
            false => self.disk,
        }
    }
}

/// `--publish`.
#[derive(Debug, Clone)]
pub(super) struct TypedForward {
    forward: Forward,
    names_address: bool,
}

impl FromStr for TypedForward {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        Ok(Self { forward: text.parse()?, names_address: Forward::names_address(text) })
    }
}

impl TypedForward {
    /// linuxkit listens on all addresses.
    pub(super) fn meant(self, linuxkit: bool) -> Forward {
        match linuxkit && !self.names_address {
            true => Forward { address: Ipv4Addr::UNSPECIFIED, ..self.forward },
            false => self.forward,
        }
    }
}

/// Parses a number in a range; clap's own parser would say "invalid digit found in string".
pub(super) fn count<N: TryFrom<u64>>(least: u64, most: u64) -> impl Fn(&str) -> Result<N, String> + Clone {
    move |text| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return Err(format!("'{text}' is not a number"));
        }
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        let number = number.and_then(|number| N::try_from(number).ok());
        number.ok_or_else(|| format!("{text} is not in {least}..={most}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_told_from_a_word() {
        let cpus = count::<u8>(1, 64);
        assert_eq!(cpus("64"), Ok(64));
        for (text, why) in [
            ("two", "'two' is not a number"),
            ("-1", "'-1' is not a number"),
            ("+1", "'+1' is not a number"),
            ("", "'' is not a number"),
            ("0", "0 is not in 1..=64"),
            ("99999999999999999999", "99999999999999999999 is not in 1..=64"),
        ] {
            assert_eq!(cpus(text), Err(why.to_owned()));
        }
    }

    #[test]
    fn what_is_said_counts_and_what_is_not_is_linuxkits() {
        let disk = |text: &str| TypedDisk::parse(text.as_ref()).unwrap().meant(true).bus;
        assert_eq!(disk("size=1"), DiskBus::Sata);
        assert_eq!(disk("size=1,bus=virtio"), DiskBus::Virtio);
        let forward = |text: &str| text.parse::<TypedForward>().unwrap().meant(true).to_string();
        assert_eq!(forward("80:80/TCP"), "0.0.0.0:80:80/tcp");
        assert_eq!(forward("127.0.0.1:80:80"), "127.0.0.1:80:80/tcp");
        assert_eq!("80:80".parse::<TypedForward>().unwrap().meant(false).to_string(), "127.0.0.1:80:80/tcp");
    }
}
