//! `disk-add`.

use crate::control::parameters::{absolute, allow_backing, parse_if_given, size};
use crate::control::translate;
use crate::control::wire::DiskReply;
use crate::spec::disk::checked_serial;
use crate::spec::{DiskOptions, DiskSpec};
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Opens or creates an image and plugs it as a disk.
    AddDisk {
        file: String;
        size_bytes: i64, grow: bool, format: String, bus: String, readonly: bool, serial: String, id: String,
        allow_backing: Vec<String>, cache: String, aio: String, discard: String, detect_zeroes: String,
        logical_block_size: i64, iothread: bool, boot: i64,
    } -> DiskReply
}

impl ChangeMethod for AddDisk {
    fn change(self) -> Result<Change, ChangeError> {
        let options = self.options()?;
        let serial = self.serial.map(checked_serial).transpose();
        let disk = DiskSpec {
            file: Some(absolute("file", &self.file)?),
            size: self.size_bytes.map(size).transpose()?,
            grow: self.grow.unwrap_or(false),
            format: parse_if_given("format", self.format)?,
            bus: parse_if_given("bus", self.bus)?.unwrap_or_default(),
            readonly: self.readonly.unwrap_or(false),
            serial: serial.map_err(|error| ChangeError::invalid("serial", error))?,
            id: parse_if_given("id", self.id)?,
            options,
        };
        disk.check().map_err(|error| {
            let parameter = if disk.options.check().is_ok() { "grow" } else { "options" };
            ChangeError::invalid(parameter, error)
        })?;
        Ok(Change::AddDisk { disk, allow_backing: allow_backing(self.allow_backing)? })
    }

    fn reply(done: Done) -> Result<DiskReply, ChangeError> {
        Ok(DiskReply { disk: translate::disk(&done.device()?) })
    }
}

impl AddDisk {
    fn options(&self) -> Result<DiskOptions, ChangeError> {
        let number = |number: Option<i64>| number.map(|number| number.to_string());
        let switch = self.iothread.map(|on| if on { "on" } else { "off" }.to_owned());
        let texts = [
            ("cache", self.cache.clone()),
            ("aio", self.aio.clone()),
            ("discard", self.discard.clone()),
            ("detect-zeroes", self.detect_zeroes.clone()),
            ("logical-block-size", number(self.logical_block_size)),
            ("iothread", switch),
            ("boot", number(self.boot)),
        ];
        texts.into_iter().try_fold(DiskOptions::default(), |options, (name, text)| {
            let parameter = name.replace('-', "_");
            options.with_text(name, text.as_deref()).map_err(|error| ChangeError::invalid(&parameter, error))
        })
    }
}
