//! The system calls that no safe crate offers for packet sockets, and the kernel's filter.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::Wanted;

/// What a filter lets through of each frame: all of it.
const WHOLE: u32 = u32::MAX;
/// Offsets of the filter's loads that are no frame's bytes (linux/filter.h).
const AD_PROTOCOL: u32 = 0xffff_f000;
const AD_INTERFACE: u32 = 0xffff_f000 + 8;
const NETWORK: u32 = 0xfff0_0000;
/// Protocol numbers.
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
const UDP: u32 = 17;
const FRAGMENT: u32 = 44;

/// How many frames there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames that passed the filter.
    pub packets: u64,
    /// Those of them for which there was no room.
    pub drops: u64,
}

/// What is known of a frame besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the buffer, a virtio-net header in front of the frame where there is one.
    pub len: usize,
    /// The frame or what is told of it did not fit.
    pub is_cut: bool,
    /// When it passed, Unix time in nanoseconds; 0 when the kernel did not say.
    pub at_ns: u64,
    /// Index of the interface.
    pub interface: u32,
    /// What the interface is made of (`ARPHRD_*`).
    pub hardware: u16,
    /// EtherType as the kernel knows it.
    pub protocol: u16,
    /// This machine sent it.
    pub is_outgoing: bool,
    /// Protocol and control information of a VLAN tag that the kernel took off.
    pub vlan: Option<(u16, u16)>,
}

/// The filter in classic BPF. Jumps count the steps that they leave out, where the comparison holds
/// and where it does not.
pub(crate) fn program(wanted: Wanted) -> Vec<libc::sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, k, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = vec![step(LOAD, AD_INTERFACE, 0, 0)];
    if let Some(interface) = wanted.interface {
        program.extend([step(IF_EQUAL, interface, 0, 1), step(RETURN, WHOLE, 0, 0)]);
    }
    if let Some(except) = wanted.udp_except {
        program.extend([
            step(IF_EQUAL, except, 11, 0),
            step(LOAD, AD_PROTOCOL, 0, 0),
            step(IF_EQUAL, IPV4, 0, 3),
            step(LOAD_BYTE, NETWORK + 9, 0, 0),
            step(IF_EQUAL, UDP, 0, 1),
            step(RETURN, WHOLE, 0, 0),
            step(LOAD, AD_PROTOCOL, 0, 0),
            step(IF_EQUAL, IPV6, 0, 4),
            step(LOAD_BYTE, NETWORK + 6, 0, 0),
            step(IF_EQUAL, UDP, 1, 0),
            step(IF_EQUAL, FRAGMENT, 0, 1),
            step(RETURN, WHOLE, 0, 0),
        ]);
    }
    program.push(step(RETURN, 0, 0, 0));
    program
}

/// A packet socket of the network namespace that it was made in: frames with virtio-net headers,
/// the kernel's times, and VLAN tags beside them.
#[derive(Debug)]
pub struct RawSocket(OwnedFd);

impl RawSocket {
    /// A socket that hears nothing before it is bound.
    ///
    /// # Errors
    /// Without CAP_NET_RAW the kernel's EPERM; and what else it says.
    pub fn unbound() -> io::Result<Self> {
        // A protocol of 0 hears nothing.
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        let socket = Self(socket);
        socket.set_vnet(true)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1i32)?;
        socket.set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32)?;
        Ok(socket)
    }

    /// Whether frames have a virtio-net header in front.
    pub(crate) fn set_vnet(&self, is_on: bool) -> io::Result<()> {
        self.set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, &libc::c_int::from(is_on))
    }

    /// Keeps out what the program does not let through.
    pub(crate) fn filter(&self, program: &[libc::sock_filter]) -> io::Result<()> {
        let filter =
            libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
    }

    fn set<T: Copy>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        // SAFETY: setsockopt reads `length` bytes at `value`, which is borrowed until it returns;
        // a filter's program, which it points to, is borrowed by our only caller for as long.
        let result = unsafe {
            let value = (&raw const *value).cast();
            libc::setsockopt(self.0.as_raw_fd(), level, option, value, length)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Hears all protocols from now on: of the interface with this index, or of all with 0.
    ///
    /// # Errors
    /// What the kernel says: there is no such interface.
    pub fn bind(&self, interface: u32) -> io::Result<()> {
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
        let result = unsafe { libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), length) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Takes the next frame, if there is one.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] without one, and what else the kernel says.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        receive(&self.0, buffer)
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Received> {
    /// Room for control messages, aligned as their headers are.
    #[repr(C, align(8))]
    struct Control([u8; 128]);

    // SAFETY: both are plain data, for which zeros are values.
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
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let len = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let (at_ns, vlan) = told(&message);
    Ok(Received {
        len,
        is_cut: message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        at_ns,
        interface: address.sll_ifindex.cast_unsigned(),
        hardware: address.sll_hatype,
        protocol: u16::from_be(address.sll_protocol),
        is_outgoing: address.sll_pkttype == libc::PACKET_OUTGOING,
        vlan,
    })
}

/// Time and VLAN tag in the control messages of a message that recvmsg has just filled in; a time
/// of 0 without one.
fn told(message: &libc::msghdr) -> (u64, Option<(u16, u16)>) {
    let (mut at_ns, mut vlan) = (0, None);
    // SAFETY: `msg_control` and `msg_controllen` are those that recvmsg left, so the macros walk
    // over whole messages; each kind holds the value that is read, which `cmsg_len` confirms, and
    // is read unaligned.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = at.as_ref() {
            let holds = |len: usize| header.cmsg_len == libc::CMSG_LEN(len as u32) as usize;
            match (header.cmsg_level, header.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) if holds(size_of::<libc::timespec>()) => {
                    let time = libc::CMSG_DATA(at).cast::<libc::timespec>().read_unaligned();
                    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
                    at_ns = seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0);
                }
                (libc::SOL_PACKET, libc::PACKET_AUXDATA)
                    if holds(size_of::<libc::tpacket_auxdata>()) =>
                {
                    let data = libc::CMSG_DATA(at).cast::<libc::tpacket_auxdata>().read_unaligned();
                    let is_tagged = data.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
                    vlan = is_tagged.then_some((data.tp_vlan_tpid, data.tp_vlan_tci));
                }
                _ => {}
            }
            at = libc::CMSG_NXTHDR(message, at);
        }
    }
    (at_ns, vlan)
}

/// What the kernel counted since this was asked last.
pub(crate) fn statistics(socket: &RawSocket) -> io::Result<Statistics> {
    let mut counted = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of_val(&counted) as libc::socklen_t;
    // SAFETY: getsockopt writes at most `length` bytes to `counted`, which is exclusively
    // borrowed, as is `length`, until it returns.
    let result = unsafe {
        let (value, length) = ((&raw mut counted).cast(), &raw mut length);
        let option = libc::PACKET_STATISTICS;
        libc::getsockopt(socket.0.as_raw_fd(), libc::SOL_PACKET, option, value, length)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Statistics { packets: counted.tp_packets.into(), drops: counted.tp_drops.into() })
}

/// Index of an interface, for tests.
#[cfg(test)]
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}
