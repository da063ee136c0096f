//! Devices of the kernel's that are spoken to by `ioctl`: KVM and tap.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

/// The only version of the KVM interface there ever was (`Documentation/virt/kvm/api.rst`).
const KVM_API_VERSION: libc::c_int = 12;

/// Opens `device` (`/dev/kvm`) and makes a VM with it, which is given back at once.
///
/// # Errors
/// What opening said, or that the interface has another version, or why no VM could be made.
#[cfg(target_os = "linux")]
pub fn try_kvm(device: &Path) -> io::Result<()> {
    use std::os::fd::FromRawFd;

    // <linux/kvm.h>: _IO(0xAE, 0x00) and _IO(0xAE, 0x01)
    const KVM_GET_API_VERSION: libc::Ioctl = 0xAE00;
    const KVM_CREATE_VM: libc::Ioctl = 0xAE01;
    let kvm = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(device)?;
    // SAFETY: the descriptor is open; this ioctl takes no memory of ours.
    let version = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_GET_API_VERSION, 0) };
    if version < 0 {
        return Err(io::Error::last_os_error());
    }
    if version != KVM_API_VERSION {
        return Err(io::Error::other(format!(
            "it has version {version} of the interface, not {KVM_API_VERSION}"
        )));
    }
    // SAFETY: as above; 0 is the machine's default type.
    let vm = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0) };
    if vm < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor without another owner; dropping it gives the VM back.
    drop(unsafe { OwnedFd::from_raw_fd(vm) });
    Ok(())
}

/// KVM is Linux's.
#[cfg(not(target_os = "linux"))]
pub fn try_kvm(_device: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

// <linux/if_tun.h>, which libc has for some platforms only: _IOW('T', 202, int), _IOR('T', 210, unsigned int)
#[cfg(target_os = "linux")]
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
#[cfg(target_os = "linux")]
const TUNGETIFF: libc::Ioctl = 0x8004_54d2_u32 as libc::Ioctl;

/// A request that says nothing yet: all its bytes are 0.
#[cfg(target_os = "linux")]
fn no_request() -> libc::ifreq {
    // the largest part of the union, so that none of its bytes is left out
    let nothing = libc::__c_anonymous_ifr_ifru {
        ifru_map: libc::__c_anonymous_ifru_map {
            mem_start: 0,
            mem_end: 0,
            base_addr: 0,
            irq: 0,
            dma: 0,
            port: 0,
        },
    };
    libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: nothing }
}

/// Attaches an open `/dev/net/tun` to the tap device `name`, for packets with virtio's header and no other: what QEMU wants.
///
/// # Errors
/// `EBUSY`: another process has it. `EPERM`: it is not for this user. `InvalidInput`: no device can have this name.
#[cfg(target_os = "linux")]
pub fn attach_tap(tun: &File, name: &str) -> io::Result<()> {
    let mut request = no_request();
    // its last byte stays 0
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the descriptor is open, and this ioctl reads and writes one ifreq, which lives until it returns.
    match unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The name of the tap device that a descriptor is attached to.
///
/// # Errors
/// It is no tap device.
#[cfg(target_os = "linux")]
pub fn tap_name(tap: &OwnedFd) -> io::Result<String> {
    let mut request = no_request();
    // SAFETY: the descriptor is open, and this ioctl writes one ifreq, which lives until it returns.
    if unsafe { libc::ioctl(tap.as_raw_fd(), TUNGETIFF, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let name: Vec<u8> =
        request.ifr_name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    Ok(String::from_utf8_lossy(&name).into_owned())
}
