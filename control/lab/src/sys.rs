//! The system calls that the lab needs and no safe crate offers: entering another namespace, and
//! tap devices there.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Offloads of a tap (linux/if_tun.h).
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

/// `struct ifreq` with its flags member: 16 bytes of name, then a union of 24 bytes.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    padding: [u8; 22],
}

/// Runs `work` on a thread of its own inside the namespace at `namespace`.
///
/// What the work opens stays in that namespace; the caller's thread stays where it is.
pub(crate) fn inside<T: Send + 'static>(
    namespace: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = File::open(namespace)?;
    std::thread::spawn(move || {
        enter(&namespace)?;
        work()
    })
    .join()
    .unwrap_or_else(|_| Err(io::Error::other("the thread inside a namespace panicked")))
}

/// An end of a cable in user space: a tap whose frames have a virtio-net header of 10 bytes in
/// front. What the kernel gives may have checksums to be completed.
#[derive(Debug)]
pub(crate) struct Tap {
    /// Non-blocking.
    pub file: File,
    /// UDP datagrams of one size may be given and taken as one frame (Linux 6.2).
    pub takes_datagrams: bool,
}

/// Opens a new tap device `name` inside the namespace at `namespace`; it goes when it is closed.
pub(crate) fn open_tap(namespace: &Path, name: &str) -> io::Result<Tap> {
    let name = name.to_owned();
    inside(namespace, move || {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        make_tap(&file, &name)?;
        let takes_datagrams = set_offloads(&file, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6).is_ok();
        if !takes_datagrams {
            set_offloads(&file, TUN_F_CSUM)?;
        }
        Ok(Tap { file, takes_datagrams })
    })
}

fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: setns takes an open file descriptor and a flag, and touches no memory of ours.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn make_tap(tap: &File, name: &str) -> io::Result<()> {
    let mut request = InterfaceRequest {
        name: [0; libc::IFNAMSIZ],
        flags: (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short,
        padding: [0; 22],
    };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface name over 15 bytes"));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`; `request` is 40 bytes of the same
    // layout, initialised, exclusively borrowed, and outlives the call.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_offloads(tap: &File, offloads: libc::c_ulong) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its mask by value and touches no memory of ours.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
