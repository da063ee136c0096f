//! What can be wrong with the text of a disk.

use thiserror::Error;

use crate::spec::id::IdError;
use crate::spec::options::OptionError;
use crate::spec::size::SizeError;
use crate::spec::words::UnknownWord;

/// virtio-blk's `VIRTIO_BLK_ID_BYTES`, the tightest of the buses.
pub(super) const MAX_SERIAL: usize = 20;

/// Why a text does not describe a disk.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum DiskError {
    /// Nothing was given.
    #[error("a disk needs a path or options")]
    Empty,
    /// Not a list of options, or its path is none.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// `size` is not a size.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// `format` or `bus` is none that vmrun knows.
    #[error(transparent)]
    Word(#[from] UnknownWord),
    /// `readonly` is neither on nor off.
    #[error("readonly '{0}' must be on or off")]
    Readonly(String),
    /// `grow` is neither on nor off.
    #[error("grow '{0}' must be on or off")]
    Grow(String),
    /// To what size it is to grow is not said.
    #[error("grow=on needs a size")]
    GrowSize,
    /// What is only read does not grow.
    #[error("a disk that is read-only cannot grow")]
    GrowReadonly,
    /// `serial` has no characters, too many, or some that are not printable ASCII.
    #[error("serial '{}' must be 1 to {MAX_SERIAL} printable ASCII characters", .0.escape_debug())]
    Serial(String),
    /// `id` is not an id.
    #[error(transparent)]
    Id(#[from] IdError),
    /// `iothread` is neither on nor off.
    #[error("iothread '{0}' must be on or off")]
    Iothread(String),
    /// `boot` is no number, or out of range.
    #[error("boot '{0}' must be a number from 1 to 999: the firmware tries the lowest first")]
    Boot(String),
    /// `aio=native` through the page cache.
    #[error(
        "aio=native needs cache=none or cache=directsync: Linux' asynchronous I/O goes past the page cache"
    )]
    NativeCached,
    /// `detect-zeroes=unmap` where nothing is freed.
    #[error("detect-zeroes=unmap frees blocks, which discard=ignore forbids")]
    ZeroesKept,
}
