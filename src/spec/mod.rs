//! What a VM is: validated values that cannot exist in a wrong state.
//!
//! Each type that a person types has `FromStr` (or `parse(&OsStr)` where it holds a path), a
//! `Display` that round-trips, and an error enum that names the part at fault. Pure: no I/O, no tokio.

pub mod arch;
pub mod boot;
pub mod boot_order;
pub mod condition;
mod debug;
pub mod device;
pub mod disk;
pub mod display;
pub mod duration;
pub mod event_name;
pub mod fields;
pub mod forward;
pub mod id;
pub mod image;
pub mod keys;
pub mod layout;
pub mod mac;
pub mod medium;
pub mod name;
pub mod network;
pub mod nic;
pub mod options;
pub mod request;
pub mod share;
pub mod size;
pub mod snapshot;
pub mod subnet;
mod text;
pub mod throttle;
pub mod usb;
pub mod user_net;
pub mod vm;
pub mod words;

pub use arch::{
    Accel, AccelList, AccelListError, Arch, ArchFacts, Family, PowerButton, Target, UnknownTarget,
};
pub use boot::{Boot, BootMode, Firmware, OnPanic};
pub use boot_order::{BootClass, BootOrder, BootOrderError};
pub use condition::{Condition, ConditionError};
pub use device::{DeviceError, DeviceSpec};
pub use disk::{
    AioMode, BlockSize, CacheMode, DiscardMode, Disk, DiskBus, DiskError, DiskOptions, DiskSpec, ImageFormat,
    ZeroesMode,
};
pub use display::{Display, DisplayError};
pub use duration::DurationError;
pub use forward::{Forward, ForwardError, Protocol};
pub use id::{DeviceId, IdError};
pub use image::{FileId, HostFile, Image};
pub use layout::Layout;
pub use mac::{MacAddress, MacError};
pub use medium::MediumSpec;
pub use name::{NameError, VmName};
pub use network::{InterfaceName, InterfaceNameError, Networking, NetworkingError};
pub use nic::{Nic, NicError, NicModel, NicSpec};
pub use options::OptionError;
pub use request::Request;
pub use share::{Share, ShareError, ShareSpec};
pub use size::{Size, SizeError};
pub use snapshot::{SnapshotName, SnapshotNameError};
pub use subnet::{HostName, Subnet, SubnetError};
pub use throttle::{LimitError, Limits, Rates};
pub use usb::{UsbError, UsbSelector};
pub use user_net::{NetClash, UserNet, UserNetError};
pub use vm::VmSpec;
pub use words::UnknownWord;
