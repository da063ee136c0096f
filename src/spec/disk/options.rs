//! What is said of a disk besides its image and bus: how the host reads and writes the image, what the guest sees of it, and its
//! place in the boot order. What is not said is QEMU's default.

use serde::{Deserialize, Serialize};

use super::DiskError;
use crate::spec::words::word_type;

/// How the host caches an image: QEMU's `cache` of `-drive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// Past the page cache; the guest's flushes are carried out.
    None,
    /// Through the page cache; the guest's flushes are carried out.
    Writeback,
    /// Through the page cache, and each write is on the disk before it is answered.
    Writethrough,
    /// Past the page cache, and each write is on the disk before it is answered.
    Directsync,
    /// Through the page cache; flushes are ignored, so a crash of the host loses data.
    Unsafe,
}

word_type!(CacheMode, "cache mode", {
    None = "none",
    Writeback = "writeback",
    Writethrough = "writethrough",
    Directsync = "directsync",
    Unsafe = "unsafe",
});

impl CacheMode {
    /// The image is opened with `O_DIRECT`.
    pub fn is_direct(self) -> bool {
        matches!(self, Self::None | Self::Directsync)
    }

    /// Flushes are ignored.
    pub fn ignores_flushes(self) -> bool {
        self == Self::Unsafe
    }

    /// The guest sees a disk with a write cache, which it flushes.
    pub fn has_write_cache(self) -> bool {
        !matches!(self, Self::Writethrough | Self::Directsync)
    }
}

/// How QEMU reads and writes the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AioMode {
    /// A pool of threads.
    Threads,
    /// Linux' own asynchronous I/O, which needs `O_DIRECT`.
    Native,
    /// `io_uring`.
    IoUring,
}

word_type!(AioMode, "kind of asynchronous I/O", {
    Threads = "threads",
    Native = "native",
    IoUring = "io_uring" | "io-uring",
});

/// What becomes of blocks that the guest discards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiscardMode {
    /// They are freed in the file.
    Unmap,
    /// They stay.
    Ignore,
}

word_type!(DiscardMode, "discard mode", { Unmap = "unmap", Ignore = "ignore" });

/// What becomes of zeroes that the guest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZeroesMode {
    /// They are written.
    Off,
    /// They are noted as zeroes, without freeing blocks.
    On,
    /// Their blocks are freed.
    Unmap,
}

word_type!(ZeroesMode, "detect-zeroes mode", { Off = "off", On = "on", Unmap = "unmap" });

/// The size of the blocks that the guest addresses, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockSize {
    /// What nearly all disks say.
    #[serde(rename = "512")]
    B512,
    /// "4K native".
    #[serde(rename = "4096")]
    B4096,
}

word_type!(BlockSize, "logical block size", { B512 = "512", B4096 = "4096" });

impl BlockSize {
    /// Bytes.
    pub fn bytes(self) -> u32 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }
}

/// The options of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct DiskOptions {
    /// The host's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheMode>,
    /// How the file is read and written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aio: Option<AioMode>,
    /// What becomes of discarded blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discard: Option<DiscardMode>,
    /// What becomes of zeroes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detect_zeroes: Option<ZeroesMode>,
    /// The guest's blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_block_size: Option<BlockSize>,
    /// The disk has a thread of QEMU of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iothread: Option<bool>,
    /// Its number in the boot order: the firmware tries the lowest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<u16>,
}

impl DiskOptions {
    /// Their names, as they are typed.
    pub(super) const NAMES: [&'static str; 7] =
        ["cache", "aio", "discard", "detect-zeroes", "logical-block-size", "iothread", "boot"];
    /// The largest number in the boot order.
    const LAST_BOOT: u16 = 999;

    /// Sets one of [`Self::NAMES`].
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), DiskError> {
        match name {
            "cache" => self.cache = Some(value.parse()?),
            "aio" => self.aio = Some(value.parse()?),
            "discard" => self.discard = Some(value.parse()?),
            "detect-zeroes" => self.detect_zeroes = Some(value.parse()?),
            "logical-block-size" => self.logical_block_size = Some(value.parse()?),
            "iothread" => self.iothread = Some(super::parse::switch(value, DiskError::Iothread)?),
            _ => self.boot = Some(boot_number(value).ok_or_else(|| DiskError::Boot(value.to_owned()))?),
        }
        Ok(())
    }

    /// The same from numbers and words that came in a message; `iothread` and `boot` have types of their own there.
    ///
    /// # Errors
    /// A word is unknown, a number out of range.
    pub fn with_text(mut self, name: &'static str, value: Option<&str>) -> Result<Self, DiskError> {
        if let Some(value) = value {
            self.set(name, value)?;
        }
        Ok(self)
    }

    /// As name and value, those that were said.
    pub fn said(&self) -> Vec<(&'static str, String)> {
        let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
        let values = [
            self.cache.map(|mode| mode.to_string()),
            self.aio.map(|mode| mode.to_string()),
            self.discard.map(|mode| mode.to_string()),
            self.detect_zeroes.map(|mode| mode.to_string()),
            self.logical_block_size.map(|size| size.to_string()),
            self.iothread.map(switch),
            self.boot.map(|number| number.to_string()),
        ];
        Self::NAMES.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The disk has a thread of its own.
    pub fn has_iothread(&self) -> bool {
        self.iothread == Some(true)
    }

    /// What becomes of zeroes: they are freed as well where discarded blocks are said to be.
    pub fn zeroes(&self) -> Option<ZeroesMode> {
        let with_discard = self.discard.filter(|mode| *mode == DiscardMode::Unmap);
        self.detect_zeroes.or(with_discard.map(|_| ZeroesMode::Unmap))
    }

    /// Whether they fit together.
    ///
    /// # Errors
    /// QEMU would refuse them together.
    pub fn check(&self) -> Result<(), DiskError> {
        if self.aio == Some(AioMode::Native) && !self.cache.is_some_and(CacheMode::is_direct) {
            return Err(DiskError::NativeCached);
        }
        if self.detect_zeroes == Some(ZeroesMode::Unmap) && self.discard == Some(DiscardMode::Ignore) {
            return Err(DiskError::ZeroesKept);
        }
        Ok(())
    }
}

fn boot_number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && (1..=DiskOptions::LAST_BOOT).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_in_json() {
        let json = |options: &DiskOptions| serde_json::to_value(options).unwrap();
        for cache in CacheMode::ALL {
            let options = DiskOptions { cache: Some(*cache), ..DiskOptions::default() };
            assert_eq!(json(&options), serde_json::json!({"cache": cache.as_str()}));
        }
        for aio in AioMode::ALL {
            let options = DiskOptions { aio: Some(*aio), ..DiskOptions::default() };
            assert_eq!(json(&options), serde_json::json!({"aio": aio.as_str()}));
        }
        assert_eq!(json(&DiskOptions::default()), serde_json::json!({}));
    }

    #[test]
    fn zeroes_are_freed_where_discarded_blocks_are() {
        let zeroes = |text: &str| {
            let mut options = DiskOptions::default();
            for (name, value) in text.split(',').filter_map(|option| option.split_once('=')) {
                options.set(name, value).unwrap();
            }
            options.zeroes()
        };
        assert_eq!(zeroes(""), None);
        assert_eq!(zeroes("discard=unmap"), Some(ZeroesMode::Unmap));
        assert_eq!(zeroes("discard=ignore"), None);
        assert_eq!(zeroes("discard=unmap,detect-zeroes=off"), Some(ZeroesMode::Off));
    }
}
