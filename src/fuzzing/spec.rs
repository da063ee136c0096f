//! What people and clients type. Whatever is read prints as something that reads as the same.

use std::ffi::OsStr;
use std::fmt::{Debug, Display};
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use crate::spec::throttle::{ByteRate, OperationRate};
use crate::spec::{
    Accel, AccelList, Arch, Condition, DeviceId, DeviceSpec, DiskBus, DiskSpec, Forward, ImageFormat,
    InterfaceName, MacAddress, Networking, NicModel, NicSpec, OnPanic, Protocol, ShareSpec, Size,
    SnapshotName, UsbSelector, VmName, duration, keys::KeyCombo,
};

/// Reads a text; printing the error must work with any text, too.
fn read<T: FromStr<Err: Display>>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().map_err(|error: T::Err| error.to_string()).ok()
}

fn again<T: FromStr<Err: Display + Debug> + Display + PartialEq + Debug>(bytes: &[u8]) {
    if let Some(value) = read::<T>(bytes) {
        let text = value.to_string();
        assert_eq!(text.parse::<T>().as_ref().ok(), Some(&value), "{text:?}");
    }
}

pub(super) fn disk(bytes: &[u8]) {
    match DiskSpec::parse(OsStr::from_bytes(bytes)) {
        Ok(disk) => assert_eq!(DiskSpec::parse(&disk.to_os_string()), Ok(disk)),
        Err(error) => drop(error.to_string()),
    }
}

pub(super) fn usb(bytes: &[u8]) {
    match UsbSelector::parse(OsStr::from_bytes(bytes)) {
        Ok(usb) => assert_eq!(UsbSelector::parse(&usb.to_os_string()), Ok(usb)),
        Err(error) => drop(error.to_string()),
    }
}

pub(super) fn share(bytes: &[u8]) {
    match ShareSpec::parse(OsStr::from_bytes(bytes)) {
        Ok(share) => assert_eq!(ShareSpec::parse(&share.to_os_string()), Ok(share)),
        Err(error) => drop(error.to_string()),
    }
}

pub(super) fn device(bytes: &[u8]) {
    again::<DeviceSpec>(bytes);
}

pub(super) fn nic(bytes: &[u8]) {
    again::<NicSpec>(bytes);
}

pub(super) fn forward(bytes: &[u8]) {
    again::<Forward>(bytes);
}

pub(super) fn condition(bytes: &[u8]) {
    again::<Condition>(bytes);
}

pub(super) fn numbers(bytes: &[u8]) {
    again::<Size>(bytes);
    again::<MacAddress>(bytes);
    read::<ByteRate>(bytes);
    read::<OperationRate>(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        match duration::parse(text) {
            Ok(time) => assert_eq!(duration::parse(&duration::format(time)), Ok(time)),
            Err(error) => drop(error.to_string()),
        }
    }
}

pub(super) fn names(bytes: &[u8]) {
    let made = VmName::from_text(OsStr::from_bytes(bytes));
    assert_eq!(made.as_str().parse(), Ok(made.clone()));
    let numbered = made.numbered(u32::MAX);
    assert_eq!(numbered.as_str().parse(), Ok(numbered.clone()));
    again::<VmName>(bytes);
    again::<DeviceId>(bytes);
    again::<SnapshotName>(bytes);
    again::<InterfaceName>(bytes);
    again::<Networking>(bytes);
    again::<AccelList>(bytes);
    again::<Accel>(bytes);
    again::<Arch>(bytes);
    again::<DiskBus>(bytes);
    again::<ImageFormat>(bytes);
    again::<NicModel>(bytes);
    again::<OnPanic>(bytes);
    again::<Protocol>(bytes);
}

pub(super) fn keys(bytes: &[u8]) {
    again::<KeyCombo>(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        match KeyCombo::typing(text) {
            Ok(combos) => assert_eq!(combos.len(), text.chars().count()),
            Err(error) => drop(error.to_string()),
        }
    }
}
