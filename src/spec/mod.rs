//! What a VM is: validated values that cannot exist in a wrong state.
//!
//! Each type that a person types has `FromStr` (or `parse(&OsStr)` where it holds a path), a
//! `Display` that round-trips, and an error enum that names the part at fault. Pure: no I/O, no tokio.

pub mod arch;
pub mod boot;
pub mod condition;
pub mod device;
pub mod disk;
pub mod duration;
pub mod fields;
pub mod forward;
pub mod id;
pub mod mac;
pub mod name;
pub mod network;
pub mod request;
pub mod share;
pub mod size;
mod text;
pub mod usb;
pub mod vm;

pub use arch::{Accel, AccelList, Arch, Os};
pub use boot::{Boot, BootMode, Display, Firmware};
pub use condition::Condition;
pub use device::DeviceSpec;
pub use disk::{Disk, DiskBus, DiskSpec, ImageFormat};
pub use forward::{Forward, Protocol};
pub use id::DeviceId;
pub use mac::MacAddress;
pub use name::VmName;
pub use network::{InterfaceName, Networking};
pub use request::Request;
pub use share::{Share, ShareSpec};
pub use size::Size;
pub use usb::UsbSelector;
pub use vm::VmSpec;
