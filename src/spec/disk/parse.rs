//! `--disk` and `disk-add` as text: reading and writing.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::str::FromStr;

use super::error::{DiskError, MAX_SERIAL};
use super::{DiskBus, DiskSpec};
use crate::spec::options::{self, Writer};
use crate::spec::size::Size;

const KNOWN: &[&str] = &[
    "file",
    "size",
    "grow",
    "format",
    "bus",
    "readonly",
    "serial",
    "id",
    "cache",
    "aio",
    "discard",
    "detect-zeroes",
    "logical-block-size",
    "iothread",
    "boot",
];

impl DiskSpec {
    /// Reads a disk; its path need not be UTF-8.
    pub fn parse(text: &OsStr) -> Result<Self, DiskError> {
        if text.is_empty() {
            return Err(DiskError::Empty);
        }
        let mut disk = Self::default();
        for (name, value) in options::read(text, "file", KNOWN)? {
            if name == "file" {
                disk.file = Some(options::path(name, value)?);
                continue;
            }
            if name == "readonly" && value.is_none() {
                disk.readonly = true;
                continue;
            }
            if name == "iothread" && value.is_none() {
                disk.options.iothread = Some(true);
                continue;
            }
            let value = options::text(name, value.as_deref())?;
            match name {
                "size" => disk.size = Some(Size::of_disk(value)?),
                "format" => disk.format = Some(value.parse()?),
                "bus" => disk.bus = value.parse()?,
                "readonly" => disk.readonly = switch(value, DiskError::Readonly)?,
                "grow" => disk.grow = switch(value, DiskError::Grow)?,
                "serial" => disk.serial = Some(serial(value)?),
                "id" => disk.id = Some(value.parse()?),
                name => disk.options.set(name, value)?,
            }
        }
        disk.check().map(|()| disk)
    }

    /// Whether what is said of it fits together.
    ///
    /// # Errors
    /// It is to grow, and does not say how large, or is only read; options contradict each other.
    pub fn check(&self) -> Result<(), DiskError> {
        match self.grow {
            true if self.size.is_none() => Err(DiskError::GrowSize),
            true if self.readonly => Err(DiskError::GrowReadonly),
            _ => self.options.check(),
        }
    }

    /// Whether a text that [`DiskSpec::parse`] reads says on which bus the disk is.
    pub fn names_bus(text: &OsStr) -> bool {
        options::read(text, "file", KNOWN).is_ok_and(|read| read.iter().any(|(name, _)| *name == "bus"))
    }

    /// The text that [`DiskSpec::parse`] reads, with every byte of the path.
    pub fn to_os_string(&self) -> OsString {
        let mut list = Writer::new("file", self.file.as_deref().map(AsRef::as_ref));
        if let Some(size) = self.size {
            list.add("size", size.to_string());
        }
        if self.grow {
            list.add("grow", "on");
        }
        if let Some(format) = self.format {
            list.add("format", format.as_str());
        }
        // a disk of which nothing is said still has to be a text
        if self.bus != DiskBus::default() || *self == Self::default() {
            list.add("bus", self.bus.as_str());
        }
        if self.readonly {
            list.add("readonly", "on");
        }
        if let Some(serial) = &self.serial {
            list.add("serial", serial);
        }
        if let Some(id) = &self.id {
            list.add("id", id.as_str());
        }
        self.options.said().into_iter().for_each(|(name, value)| list.add(name, value));
        list.finish()
    }
}

pub(super) fn switch(text: &str, wrong: impl FnOnce(String) -> DiskError) -> Result<bool, DiskError> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(wrong(text.to_owned())),
    }
}

/// A serial number as it comes from a client.
///
/// # Errors
/// As for `serial=` of a disk.
pub fn checked_serial(text: String) -> Result<String, DiskError> {
    serial(&text)
}

fn serial(text: &str) -> Result<String, DiskError> {
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if text.is_empty() || text.len() > MAX_SERIAL || !printable {
        return Err(DiskError::Serial(text.to_owned()));
    }
    Ok(text.to_owned())
}

impl FromStr for DiskSpec {
    type Err = DiskError;

    fn from_str(text: &str) -> Result<Self, DiskError> {
        Self::parse(text.as_ref())
    }
}

impl fmt::Display for DiskSpec {
    /// Round-trips if the path is UTF-8; [`DiskSpec::to_os_string`] always does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_os_string().to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;
    use crate::spec::{AioMode, BlockSize, CacheMode, DiscardMode, DiskOptions, ImageFormat, ZeroesMode};

    fn file(path: &str) -> DiskSpec {
        DiskSpec { file: Some(path.into()), ..DiskSpec::default() }
    }

    #[test]
    fn reads_every_option() {
        let text = "a.img,size=1G,format=qcow2,bus=scsi,readonly=on,serial=S 1,id=data";
        assert!("a.img,size=1G,grow=on".parse::<DiskSpec>().unwrap().grow);
        let disk = DiskSpec {
            size: Some(Size::mib(1024)),
            format: Some(ImageFormat::Qcow2),
            bus: DiskBus::Scsi,
            readonly: true,
            serial: Some("S 1".into()),
            id: Some("data".parse().unwrap()),
            ..file("a.img")
        };
        assert_eq!(text.parse(), Ok(disk.clone()));
        assert_eq!(disk.to_string(), text);
    }

    #[test]
    fn reads_how_the_image_is_used() {
        let text = "a.img,cache=none,aio=native,discard=unmap,detect-zeroes=on,logical-block-size=4096,iothread=on,boot=2";
        let disk: DiskSpec = text.parse().unwrap();
        assert_eq!(disk.to_string(), text);
        let DiskOptions { cache, aio, discard, detect_zeroes, logical_block_size, iothread, boot } =
            disk.options;
        assert_eq!(
            (cache, aio, discard),
            (Some(CacheMode::None), Some(AioMode::Native), Some(DiscardMode::Unmap))
        );
        assert_eq!((detect_zeroes, logical_block_size), (Some(ZeroesMode::On), Some(BlockSize::B4096)));
        assert_eq!((iothread, boot), (Some(true), Some(2)));
        assert_eq!("a,iothread".parse::<DiskSpec>().unwrap().options.iothread, Some(true));
        for name in DiskOptions::NAMES {
            assert!(KNOWN.contains(&name), "{name}");
        }
    }

    #[test]
    fn tells_paths_from_options() {
        for (text, path) in [
            ("file", "file"),
            ("file=a=b", "a=b"),
            ("size=1G,file=x", "x"),
            ("/a=b/c", "/a=b/c"),
            ("./size=1G", "./size=1G"),
            ("a,,b", "a,b"),
            ("json:{\"a\":1}", "json:{\"a\":1}"),
            (" ", " "),
        ] {
            assert_eq!(text.parse::<DiskSpec>().unwrap().file, Some(path.into()), "{text}");
        }
        assert_eq!("size=1G".parse::<DiskSpec>().unwrap().file, None);
        // linuxkit's unit
        assert_eq!("size=10".parse::<DiskSpec>().unwrap().size, Some(Size::mib(10 << 10)));
        assert!(
            DiskSpec::names_bus("a,bus=virtio".as_ref()) && !DiskSpec::names_bus("a,,bus=virtio".as_ref())
        );
        assert!("x,readonly".parse::<DiskSpec>().unwrap().readonly);
        assert!(!"x,readonly=false".parse::<DiskSpec>().unwrap().readonly);
        assert_eq!("x.vhd,format=vhd".parse::<DiskSpec>().unwrap().format, Some(ImageFormat::Vpc));
    }

    #[test]
    fn says_what_is_wrong() {
        const LIST: &str = "(known: file, size, grow, format, bus, readonly, serial, id, cache, aio, discard, \
            detect-zeroes, logical-block-size, iothread, boot)";
        const CACHES: &str = "(known: none, writeback, writethrough, directsync, unsafe)";
        const BOOT: &str = "must be a number from 1 to 999: the firmware tries the lowest first";
        const EMPTY: &str = "an option is empty (one comma too many? a literal comma is typed twice)";
        for (text, message) in [
            ("", "a disk needs a path or options".into()),
            (",size=1G", "the path is empty".into()),
            ("file=", "the path is empty".into()),
            ("a\0b", "the path has a NUL byte in it".into()),
            ("a,", EMPTY.into()),
            ("a,,,", EMPTY.into()),
            ("a,file=b", "option 'file' is given twice".into()),
            ("size=1G,size=1G", "option 'size' is given twice".into()),
            ("a,size", "option 'size' needs a value: size=…".into()),
            ("a,size=0", "the size must be more than 0".into()),
            ("a,size=-1G", "size '-1G' is negative".into()),
            ("a,size=8192P", "size '8192P' is too large (at most 9223372036854775807 bytes)".into()),
            ("a,formt=raw", format!("unknown option 'formt', did you mean 'format'? {LIST}")),
            ("a,b", format!("unknown option 'b' {LIST}; a literal comma is typed twice")),
            ("x=y.img", format!("unknown option 'x' {LIST}; for a path with '=' in it write file=PATH")),
            ("a,bus=ide", "unknown disk bus 'ide', did you mean 'sata'? (known: virtio, scsi, sata, usb, nvme)".into()),
            (
                "a,format=qcow",
                "unknown image format 'qcow', did you mean 'qcow2'? (known: raw, qcow2, vmdk, vdi, vhdx, vpc, qed)".into(),
            ),
            ("a,size=1G,grow=yes", "grow 'yes' must be on or off".into()),
            ("a,grow=on", "grow=on needs a size".into()),
            ("a,size=1G,grow=on,readonly=on", "a disk that is read-only cannot grow".into()),
            ("a,readonly=yes", "readonly 'yes' must be on or off".into()),
            ("a,serial=", "serial '' must be 1 to 20 printable ASCII characters".into()),
            ("a,serial=a\nb", "serial 'a\\nb' must be 1 to 20 printable ASCII characters".into()),
            ("a,serial=123456789012345678901", "serial '123456789012345678901' must be 1 to 20 printable ASCII characters".into()),
            ("a,id=1", "id '1' must start with a letter".into()),
            ("a,cache=writeback2", format!("unknown cache mode 'writeback2', did you mean 'writeback'? {CACHES}")),
            ("a,cache=on", format!("unknown cache mode 'on' {CACHES}")),
            ("a,cache", "option 'cache' needs a value: cache=…".into()),
            (
                "a,aio=uring",
                "unknown kind of asynchronous I/O 'uring', did you mean 'io_uring'? (known: threads, native, io_uring)".into(),
            ),
            (
                "a,aio=native",
                "aio=native needs cache=none or cache=directsync: Linux' asynchronous I/O goes past the page cache".into(),
            ),
            (
                "a,cache=unsafe,aio=native",
                "aio=native needs cache=none or cache=directsync: Linux' asynchronous I/O goes past the page cache".into(),
            ),
            ("a,discard=on", "unknown discard mode 'on' (known: unmap, ignore)".into()),
            ("a,detect-zeroes=yes", "unknown detect-zeroes mode 'yes' (known: off, on, unmap)".into()),
            (
                "a,discard=ignore,detect-zeroes=unmap",
                "detect-zeroes=unmap frees blocks, which discard=ignore forbids".into(),
            ),
            ("a,logical-block-size=1024", "unknown logical block size '1024' (known: 512, 4096)".into()),
            ("a,iothread=2", "iothread '2' must be on or off".into()),
            ("a,boot=0", format!("boot '0' {BOOT}")),
            ("a,boot=1000", format!("boot '1000' {BOOT}")),
            ("a,boot=+1", format!("boot '+1' {BOOT}")),
            ("a,boot=first", format!("boot 'first' {BOOT}")),
            ("a,boot=1,boot=2", "option 'boot' is given twice".into()),
        ] {
            assert_eq!(text.parse::<DiskSpec>().unwrap_err().to_string(), message, "{text:?}");
        }
    }

    #[test]
    fn only_paths_may_be_other_than_utf8() {
        let bytes = |bytes: &[u8]| DiskSpec::parse(&OsString::from_vec(bytes.to_owned()));
        assert_eq!(bytes(b"a\xff").unwrap().file, Some(OsString::from_vec(b"a\xff".to_vec()).into()));
        assert_eq!(
            bytes(b"a,serial=\xff").unwrap_err().to_string(),
            "the value of option 'serial' is not UTF-8"
        );
    }

    #[test]
    fn words_are_the_same_in_json() {
        for format in ImageFormat::ALL {
            assert_eq!(serde_json::to_value(format).unwrap(), format.as_str());
        }
        for bus in DiskBus::ALL {
            assert_eq!(serde_json::to_value(bus).unwrap(), bus.as_str());
        }
    }

    prop_compose! {
        fn options()(
            cache in prop::option::of(prop::sample::select(CacheMode::ALL)),
            aio in prop::option::of(prop::sample::select(AioMode::ALL)),
            discard in prop::option::of(prop::sample::select(DiscardMode::ALL)),
            detect_zeroes in prop::option::of(prop::sample::select(ZeroesMode::ALL)),
            logical_block_size in prop::option::of(prop::sample::select(BlockSize::ALL)),
            iothread in prop::option::of(any::<bool>()),
            boot in prop::option::of(1..=999u16),
        ) -> DiskOptions {
            let aio = aio.filter(|aio| *aio != AioMode::Native || cache.is_some_and(CacheMode::is_direct));
            let detect_zeroes = detect_zeroes.filter(|_| discard != Some(DiscardMode::Ignore));
            DiskOptions { cache, aio, discard, detect_zeroes, logical_block_size, iothread, boot }
        }
    }

    prop_compose! {
        fn disk()(
            path in prop::option::of(prop::collection::vec(prop_oneof![Just(b','), Just(b'='), 1..=255u8], 1..12)),
            size in prop::option::of(1..1u64 << 50),
            grow in any::<bool>(),
            format in prop::option::of(prop::sample::select(ImageFormat::ALL)),
            bus in prop::sample::select(DiskBus::ALL),
            readonly in any::<bool>(),
            serial in prop::option::of("[ -~]{1,20}"),
            id in prop::option::of("[a-z][a-z0-9._-]{0,25}"),
            options in options(),
        ) -> DiskSpec {
            DiskSpec {
                file: path.map(|bytes| OsString::from_vec(bytes).into()),
                size: size.and_then(Size::from_bytes),
                grow: grow && !readonly && size.and_then(Size::from_bytes).is_some(),
                format,
                bus,
                readonly,
                serial,
                id: id.map(|id| id.parse().unwrap()),
                options,
            }
        }
    }

    proptest! {
        #[test]
        fn round_trips(disk in disk()) {
            prop_assert_eq!(DiskSpec::parse(&disk.to_os_string()), Ok(disk));
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>(), near in "(a|=|,|file|size|serial|readonly|1){0,9}") {
            let _ = DiskSpec::parse(&OsString::from_vec(bytes));
            let _ = near.parse::<DiskSpec>();
        }
    }
}
