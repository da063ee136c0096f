//! Network cards, from the start or plugged while the VM runs: `user|tap,NAME|bridge,NAME[,mac=…][,model=…][,id=…]`, and for `user`
//! the options of [`UserNet`](super::UserNet).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::id::IdError;
use super::options::{OptionError, split_text};
use super::words::{UnknownWord, word_type};
use super::{DeviceId, MacAddress, MacError, Networking, NetworkingError};

const KNOWN: &[&str] = &["mac", "model", "id"];
const KNOWN_OF_USER: &[&str] = &["mac", "model", "id", "net", "dns", "hostname", "restrict"];

/// What ids of network back-ends end with; see [`checked_id`].
pub const BACKEND_SUFFIX: &str = ".net";

/// What kind of card the guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NicModel {
    /// The fastest; every Linux has its driver.
    #[default]
    Virtio,
    /// Intel 82540EM (PCI).
    E1000,
    /// Intel 82574L (PCI Express).
    E1000e,
    /// Realtek's 100 Mbit/s card.
    Rtl8139,
    /// VMware's card.
    Vmxnet3,
}

word_type!(NicModel, "network card", {
    Virtio = "virtio",
    E1000 = "e1000",
    E1000e = "e1000e",
    Rtl8139 = "rtl8139",
    Vmxnet3 = "vmxnet3",
});

/// A card that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicSpec {
    /// What it is connected to; never [`Networking::None`].
    pub network: Networking,
    /// Its address; none = one is made up.
    pub mac: Option<MacAddress>,
    /// What the guest sees.
    pub model: NicModel,
    /// Its id; none = one is picked.
    pub id: Option<DeviceId>,
}

/// A card that a VM has from the start besides the one of `--networking`, all choices made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its id.
    pub id: DeviceId,
    /// What it is connected to; never [`Networking::None`].
    pub network: Networking,
    /// Its address.
    pub mac: MacAddress,
    /// What the guest sees.
    #[serde(default)]
    pub model: NicModel,
}

/// Why a text does not describe a card.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum NicError {
    /// No such mode, or its name is wrong.
    #[error(transparent)]
    Networking(#[from] NetworkingError),
    /// `none`.
    #[error("a network card needs a network: user, tap,NAME or bridge,NAME")]
    NoNetwork,
    /// Not a list of options.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// `mac` is not an address.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// `model` is none that vmrun knows.
    #[error(transparent)]
    Model(#[from] UnknownWord),
    /// `id` is not an id.
    #[error(transparent)]
    Id(#[from] IdError),
    /// QEMU's name for the back-end of another card.
    #[error("id '{0}' ends in '{BACKEND_SUFFIX}', which is kept for the back-ends of network cards")]
    BackendId(DeviceId),
}

/// An id that a card may have: `set_link` goes by names that cards and back-ends share, so it may not look like a back-end's.
pub fn checked_id(id: DeviceId) -> Result<DeviceId, NicError> {
    match id.as_str().ends_with(BACKEND_SUFFIX) {
        true => Err(NicError::BackendId(id)),
        false => Ok(id),
    }
}

impl NicSpec {
    /// A card on this network, everything else left open.
    pub fn on(network: Networking) -> Result<Self, NicError> {
        match network {
            Networking::None => Err(NicError::NoNetwork),
            network => Ok(Self { network, mac: None, model: NicModel::default(), id: None }),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), NicError> {
        match (name, &mut self.network) {
            ("mac", _) => self.mac = Some(value.parse()?),
            ("model", _) => self.model = value.parse()?,
            ("id", _) => self.id = Some(checked_id(value.parse()?)?),
            (name, Networking::User(user)) => user.set(name, value).map_err(NetworkingError::from)?,
            // not among the options of the others
            _ => {}
        }
        Ok(())
    }
}

impl FromStr for NicSpec {
    type Err = NicError;

    fn from_str(text: &str) -> Result<Self, NicError> {
        let elements = split_text(text);
        let mut elements = elements.iter().map(String::as_str).peekable();
        let mode = elements.next().unwrap_or_default();
        // `tap,mac=…`: the name is missing rather than odd
        let name = elements.next_if(|name| {
            matches!(mode, "tap" | "bridge")
                && !KNOWN.iter().any(|known| name.starts_with(&format!("{known}=")))
        });
        let network = match name {
            Some(name) => format!("{mode},{name}").parse()?,
            // a doubled comma separates nothing
            None if mode.contains(',') => {
                let unknown = UnknownWord::new("networking mode", mode, super::network::KNOWN);
                return Err(NetworkingError::Unknown(unknown).into());
            }
            None => mode.parse()?,
        };
        let mut nic = Self::on(network)?;
        let known = if nic.network.is_user() { KNOWN_OF_USER } else { KNOWN };
        let mut seen = Vec::new();
        for element in elements {
            let (name, value) = element.split_once('=').map_or((element, None), |(n, v)| (n, Some(v)));
            let value = match (known.contains(&name), value) {
                (true, Some(value)) => value,
                (true, None) => return Err(OptionError::NoValue(name.to_owned()).into()),
                (false, _) if element.is_empty() => return Err(OptionError::Empty.into()),
                (false, _) => {
                    return Err(OptionError::Unknown(UnknownWord::new("option", name, known)).into());
                }
            };
            if seen.contains(&name) {
                return Err(OptionError::Duplicate(name.to_owned()).into());
            }
            seen.push(name);
            nic.set(name, value)?;
        }
        if let Some(user) = nic.network.user() {
            user.check().map_err(NetworkingError::from)?;
        }
        Ok(nic)
    }
}

impl fmt::Display for NicSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.network {
            Networking::Tap(name) => write!(f, "tap,{}", name.as_str().replace(',', ",,"))?,
            Networking::Bridge(name) => write!(f, "bridge,{}", name.as_str().replace(',', ",,"))?,
            other => write!(f, "{other}")?,
        }
        if let Some(mac) = self.mac {
            write!(f, ",mac={mac}")?;
        }
        if self.model != NicModel::default() {
            write!(f, ",model={}", self.model)?;
        }
        self.id.as_ref().map_or(Ok(()), |id| write!(f, ",id={id}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_it_prints() {
        for text in [
            "user",
            "user,mac=52:54:00:00:00:01,model=e1000e,id=lan",
            "tap,vt0,id=lan",
            "bridge,br0,model=rtl8139",
            "tap,a,,b",
            "user,net=10.0.3.0/24,dns=10.0.3.4,hostname=box,restrict=on,model=e1000,id=lan",
        ] {
            assert_eq!(text.parse::<NicSpec>().unwrap().to_string(), text);
        }
        let odd: NicSpec = "tap,a,,b".parse().unwrap();
        assert_eq!(odd.network, Networking::Tap("a,b".parse().unwrap()));
        assert_eq!("default".parse::<NicSpec>().unwrap().network, Networking::default());
    }

    #[test]
    fn says_what_is_wrong() {
        let models = "(known: virtio, e1000, e1000e, rtl8139, vmxnet3)";
        for (text, message) in [
            ("none", "a network card needs a network: user, tap,NAME or bridge,NAME".to_owned()),
            ("tap", "tap networking needs a name: tap,NAME".to_owned()),
            ("tap,id=a", "tap networking needs a name: tap,NAME".to_owned()),
            ("tap,,mac=1", "unknown networking mode 'tap,mac=1', did you mean 'tap'? (known: default, user, bridge, tap, none)".to_owned()),
            ("tap,,,,b,,d", "unknown networking mode 'tap,,b,d', did you mean 'tap'? (known: default, user, bridge, tap, none)".to_owned()),
            ("usr", "unknown networking mode 'usr', did you mean 'user'? (known: default, user, bridge, tap, none)".to_owned()),
            ("user,model=e100", format!("unknown network card 'e100', did you mean 'e1000'? {models}")),
            ("user,mac=1", "'1' is not a MAC address (six pairs of hexadecimal digits with colons)".to_owned()),
            ("user,mac=01:00:5e:00:00:01", "MAC address '01:00:5e:00:00:01' is a multicast address".to_owned()),
            ("user,id=1", "id '1' must start with a letter".to_owned()),
            ("user,id=a.net", "id 'a.net' ends in '.net', which is kept for the back-ends of network cards".to_owned()),
            ("user,id=a,id=b", "option 'id' is given twice".to_owned()),
            ("user,id", "option 'id' needs a value: id=…".to_owned()),
            ("user,", "an option is empty (one comma too many? a literal comma is typed twice)".to_owned()),
            ("user,br0", "unknown option 'br0' (known: mac, model, id, net, dns, hostname, restrict)".to_owned()),
            ("user,net=10.0.3.0", "'10.0.3.0' is not a network such as 10.0.3.0/24".to_owned()),
            ("user,net=10.0.3.0/24,dns=10.0.4.3,id=a", "dns=10.0.4.3 is not in the network, 10.0.3.0/24: it is an address for the guest, behind which QEMU asks the host's name server".to_owned()),
            ("user,hostname=", "'' is not a host's name (1 to 32 letters, digits, '-' and '.')".to_owned()),
            ("user,restrict", "option 'restrict' needs a value: restrict=…".to_owned()),
            ("tap,vt0,net=10.0.3.0/24", "unknown option 'net' (known: mac, model, id)".to_owned()),
        ] {
            assert_eq!(text.parse::<NicSpec>().unwrap_err().to_string(), message, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), near in "(user|tap|bridge|none)(,[a-z=:,]{0,9}){0,4}") {
            let _ = text.parse::<NicSpec>();
            let _ = near.parse::<NicSpec>();
        }
    }
}
