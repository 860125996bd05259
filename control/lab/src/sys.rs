//! The system calls that the lab needs and no safe crate offers: entering another namespace, tap
//! devices and packet sockets there.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketType};

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

/// What is known of a frame that passed an interface, besides its bytes.
pub(crate) struct PassedFrame {
    /// Bytes of virtio-net header and frame in the buffer.
    pub len: usize,
    /// The host sent it.
    pub is_outgoing: bool,
    /// Protocol and control information of a VLAN tag that the kernel took off.
    pub vlan: Option<(u16, u16)>,
}

/// Opens a packet socket on `interface`, for all protocols and with virtio-net headers, that keeps
/// up to `buffer_len` bytes of frames.
pub(crate) fn open_packet_socket(
    namespace: &Path,
    interface: &str,
    buffer_len: usize,
) -> io::Result<OwnedFd> {
    let interface = interface.to_owned();
    inside(namespace, move || {
        // Bound before it takes anything: a protocol of 0 hears nothing.
        let socket = rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, None)?;
        let index = rustix::net::netdevice::name_to_index(&socket, &interface)?;
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, buffer_len)?;
        for option in [libc::PACKET_VNET_HDR, libc::PACKET_AUXDATA] {
            switch_on(&socket, option)?;
        }
        bind_packet_socket(&socket, index)?;
        Ok(socket)
    })
}

fn switch_on(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: setsockopt reads `length` bytes at `on`, which lives until it returns.
    let result = unsafe {
        let on = (&raw const on).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, on, length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bind_packet_socket(socket: &OwnedFd, interface: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: interface.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: bind reads `length` bytes at `address`, which lives until it returns.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the next frame from a packet socket of [`open_packet_socket`].
pub(crate) fn receive_packet(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<PassedFrame> {
    /// Room for control messages, aligned as their headers are.
    #[repr(C, align(8))]
    struct Control([u8; 128]);

    // SAFETY: all three are plain data, for which zeros are values.
    let (mut address, mut message): (libc::sockaddr_ll, libc::msghdr) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let mut control = Control([0; 128]);
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = size_of_val(&address) as libc::socklen_t;
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: the message names memory of ours only, each with its length, exclusively borrowed or
    // owned here until recvmsg returns.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let len = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::Error::other("a frame larger than any interface has"));
    }
    let is_outgoing = address.sll_pkttype == libc::PACKET_OUTGOING;
    Ok(PassedFrame { len, is_outgoing, vlan: vlan_of(&message) })
}

/// The VLAN tag in the control messages of a message that recvmsg has just filled in.
fn vlan_of(message: &libc::msghdr) -> Option<(u16, u16)> {
    // SAFETY: `msg_control` and `msg_controllen` are those that recvmsg left, so the macros walk
    // over whole messages; a packet socket's auxiliary data is one `tpacket_auxdata`, which
    // `cmsg_len` confirms, and is read unaligned.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = at.as_ref() {
            let wanted = libc::CMSG_LEN(size_of::<libc::tpacket_auxdata>() as u32) as usize;
            let is_auxdata = (header.cmsg_level, header.cmsg_type, header.cmsg_len)
                == (libc::SOL_PACKET, libc::PACKET_AUXDATA, wanted);
            if is_auxdata {
                let data = libc::CMSG_DATA(at).cast::<libc::tpacket_auxdata>().read_unaligned();
                let is_tagged = data.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
                return is_tagged.then_some((data.tp_vlan_tpid, data.tp_vlan_tci));
            }
            at = libc::CMSG_NXTHDR(message, at);
        }
    }
    None
}
