//! Sizes of disks and memory.

use serde::{Deserialize, Serialize};

/// A size in bytes, more than 0. Typed `512M`, `10G`, `1T`, `64K`, `1048576B`; a plain number is MB (MiB), as in linuxkit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(pub(crate) u64);

impl Size {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}
