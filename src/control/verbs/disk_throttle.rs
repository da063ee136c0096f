//! `disk-throttle`.

use crate::control::translate;
use crate::control::wire::DiskReply;
use crate::spec::{LimitError, Limits, Rates};
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Limits a disk's I/O per second.
    ThrottleDisk {
        id: String;
        iops: i64, iops_read: i64, iops_write: i64,
        bytes_per_s: i64, bytes_per_s_read: i64, bytes_per_s_write: i64, off: bool,
    } -> DiskReply
}

impl ChangeMethod for ThrottleDisk {
    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::ThrottleDisk { limits: self.limits()?, id: self.id })
    }

    fn reply(done: Done) -> Result<DiskReply, ChangeError> {
        Ok(DiskReply { disk: translate::disk(&done.device()?) })
    }
}

impl ThrottleDisk {
    /// The new limits; `None` = no limits any more.
    fn limits(&self) -> Result<Option<Limits>, ChangeError> {
        let limit = |parameter: &str, limit: Option<i64>| {
            let why = || ChangeError::invalid(parameter, LimitError::Zero);
            limit.map(|limit| u64::try_from(limit).map_err(|_| why())).transpose()
        };
        let limits = Limits {
            operations: Rates {
                total: limit("iops", self.iops)?,
                read: limit("iops_read", self.iops_read)?,
                write: limit("iops_write", self.iops_write)?,
            },
            bytes: Rates {
                total: limit("bytes_per_s", self.bytes_per_s)?,
                read: limit("bytes_per_s_read", self.bytes_per_s_read)?,
                write: limit("bytes_per_s_write", self.bytes_per_s_write)?,
            },
        };
        match (self.off.unwrap_or(false), limits.is_empty()) {
            (true, true) => Ok(None),
            (true, false) => Err(ChangeError::invalid("off", "limits are either set or taken away")),
            (false, _) => limits.checked().map(Some).map_err(|error| ChangeError::invalid("limits", error)),
        }
    }
}
