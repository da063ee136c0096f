//! What `unwrap` prints of an error about a text: its message, as for a person who typed it.

use std::fmt;

use super::keys::KeyError;
use super::subnet::HostNameError;
use super::{
    AccelListError, BootOrderError, ConditionError, DeviceError, DiskError, DisplayError, DurationError,
    ForwardError, IdError, InterfaceNameError, LimitError, MacError, NameError, NetClash, NetworkingError,
    NicError, OptionError, ShareError, SizeError, SnapshotNameError, SubnetError, UnknownTarget, UnknownWord,
    UsbError, UserNetError,
};

macro_rules! prints_its_message {
    ($($error:ty)*) => {
        $(impl fmt::Debug for $error {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        })*
    };
}

prints_its_message! {
    AccelListError BootOrderError ConditionError DeviceError DiskError DisplayError DurationError ForwardError
    HostNameError IdError InterfaceNameError KeyError LimitError MacError NameError NetClash NetworkingError NicError
    OptionError ShareError SizeError SnapshotNameError SubnetError UnknownTarget UnknownWord UsbError UserNetError
}
