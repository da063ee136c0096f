//! Records that may grow: readers ignore unknown fields.

use serde::{Deserialize, Serialize};

macro_rules! records {
    ($($(#[$doc:meta])* $name:ident { $($required:ident: $type:ty),*; $($optional:ident: $option:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub struct $name {
            $(pub $required: $type,)*
            $(#[serde(skip_serializing_if = "Option::is_none", default)] pub $optional: Option<$option>,)*
        }
    )*};
}

records! {
    /// A network card. Fields as in the protocol's description, as of all these.
    Nic { id: String, driver: String, network: String, link_up: bool, phase: String; interface: String, mac: String, slot: String, taken: bool, net: String, dns: String, hostname: String, restrict: bool }
    /// A shared folder.
    Share { directory: String, tag: String; }
    /// A disk's I/O limits.
    Limits {
        ;
        iops: u64, iops_read: u64, iops_write: u64,
        bytes_per_s: u64, bytes_per_s_read: u64, bytes_per_s_write: u64
    }
    /// One sample of all counters.
    Stats {
        time_unix_ms: u64, uptime_ms: u64, cpu_time_ms: u64, resident_bytes: u64, memory_bytes: u64,
        vcpus: Vec<VcpuStats>, disks: Vec<DiskStats>, nics: Vec<NicStats>;
        balloon_bytes: u64, shared_bytes: u64, own_bytes: u64
    }
    /// A processor of the guest.
    VcpuStats { number: u64, thread_id: i64, cpu_time_ms: u64; }
    /// The counters of a disk.
    DiskStats {
        id: String,
        read_bytes: u64, read_operations: u64, read_time_ms: u64, read_errors: u64,
        write_bytes: u64, write_operations: u64, write_time_ms: u64, write_errors: u64,
        flush_operations: u64, flush_time_ms: u64, flush_errors: u64;
    }
    /// The counters of a network card.
    NicStats {
        id: String;
        source: String, reason: String,
        rx_bytes: u64, rx_packets: u64, rx_errors: u64, rx_dropped: u64,
        tx_bytes: u64, tx_packets: u64, tx_errors: u64, tx_dropped: u64
    }
}
