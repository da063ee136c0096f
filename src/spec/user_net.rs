//! What is said of user networking: `net=10.0.3.0/24`, `dns=`, `hostname=`, `restrict=on|off`.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::subnet::{HostName, HostNameError, Subnet, SubnetError};

/// QEMU's user networking, of one card. What is not said is QEMU's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UserNet {
    /// The network; none = [`Subnet::DEFAULT`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<Subnet>,
    /// The address at which the guest asks for names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Ipv4Addr>,
    /// The host name that DHCP offers to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostName>,
    /// The guest reaches nothing but what is forwarded to it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restrict: bool,
}

/// Why something cannot be said of user networking.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum UserNetError {
    /// `net` is not a network.
    #[error(transparent)]
    Net(#[from] SubnetError),
    /// `hostname` is not a host's name.
    #[error(transparent)]
    HostName(#[from] HostNameError),
    /// `dns` is not an address.
    #[error("dns '{}' is not an IPv4 address", .0.escape_debug())]
    Dns(String),
    /// `restrict` is neither on nor off.
    #[error("restrict '{}' must be on or off", .0.escape_debug())]
    Restrict(String),
    /// The name server is an address of another network.
    #[error(
        "dns={dns} is not in the network, {net}: it is an address for the guest, behind which QEMU asks the host's name server"
    )]
    DnsOutside {
        /// The address.
        dns: Ipv4Addr,
        /// The network.
        net: Subnet,
    },
    /// The name server is an address that QEMU needs for something else.
    #[error("dns={dns} is {whose} address in {net}")]
    DnsTaken {
        /// The address.
        dns: Ipv4Addr,
        /// Whose it is.
        whose: &'static str,
        /// The network.
        net: Subnet,
    },
}

/// Two cards whose networks have addresses in common: the guest could not tell them apart.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum NetClash {
    /// It was said which network.
    #[error("net={net} overlaps {other_net}, the network of card '{other}'")]
    Overlap {
        /// What was asked for.
        net: Subnet,
        /// The card that has the other network.
        other: String,
        /// That.
        other_net: Subnet,
    },
    /// Nothing was said.
    #[error("no network from 10.0.2.0/24 to 10.0.254.0/24 is free: say which (`net=`)")]
    NoneFree,
    /// What else was said does not fit the network.
    #[error(transparent)]
    Unfit(#[from] UserNetError),
}

impl UserNet {
    /// The options, as they are typed.
    pub const NAMES: &'static [&'static str] = &["net", "dns", "hostname", "restrict"];

    /// Sets one of [`Self::NAMES`].
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), UserNetError> {
        match name {
            "net" => self.net = Some(value.parse()?),
            "dns" => self.dns = Some(value.parse().map_err(|_| UserNetError::Dns(value.to_owned()))?),
            "hostname" => self.hostname = Some(value.parse()?),
            _ => {
                self.restrict = match value {
                    "on" | "true" => true,
                    "off" | "false" => false,
                    _ => return Err(UserNetError::Restrict(value.to_owned())),
                }
            }
        }
        Ok(())
    }

    /// As name and value, those that were said.
    pub fn said(&self) -> Vec<(&'static str, String)> {
        let values = [
            self.net.map(|net| net.to_string()),
            self.dns.map(|dns| dns.to_string()),
            self.hostname.as_ref().map(ToString::to_string),
            self.restrict.then(|| "on".to_owned()),
        ];
        Self::NAMES.iter().zip(values).filter_map(|(name, value)| Some((*name, value?))).collect()
    }

    /// The network that the card is in.
    pub fn subnet(&self) -> Subnet {
        self.net.unwrap_or(Subnet::DEFAULT)
    }

    /// Whether what is said fits together; where no network is said, that is known only when it has one.
    ///
    /// # Errors
    /// The name server has no address that it could have.
    pub fn check(&self) -> Result<(), UserNetError> {
        self.net.map_or(Ok(()), |net| self.fits(net))
    }

    fn fits(&self, net: Subnet) -> Result<(), UserNetError> {
        let Some(dns) = self.dns else { return Ok(()) };
        let taken = [
            (net.address(), "the network's own"),
            (net.host(), "the host's"),
            (net.first_guest(), "the guest's"),
            (net.broadcast(), "the broadcast"),
        ];
        if !net.contains(dns) {
            return Err(UserNetError::DnsOutside { dns, net });
        }
        match taken.into_iter().find(|(address, _)| *address == dns) {
            Some((_, whose)) => Err(UserNetError::DnsTaken { dns, whose, net }),
            None => Ok(()),
        }
    }

    /// The same with a network that overlaps none of those of the VM's other cards.
    ///
    /// # Errors
    /// The network that was said overlaps another, none is free, or what else was said does not fit it.
    pub fn settled(self, others: &[(String, Subnet)]) -> Result<Self, NetClash> {
        let net = match self.net {
            Some(net) => match others.iter().find(|(_, other)| other.overlaps(net)) {
                Some((other, other_net)) => {
                    return Err(NetClash::Overlap { net, other: other.clone(), other_net: *other_net });
                }
                None => net,
            },
            None => {
                let taken: Vec<Subnet> = others.iter().map(|(_, net)| *net).collect();
                Subnet::free(&taken).ok_or(NetClash::NoneFree)?
            }
        };
        self.fits(net)?;
        // QEMU's own choice need not be said
        let net = self.net.or((net != Subnet::DEFAULT).then_some(net));
        Ok(Self { net, ..self })
    }
}
