//! What passes this machine's interfaces: a packet socket (packet(7)) on all of them.
//!
//! The kernel shows a frame after what it left to the network card: with the checksum still to be
//! completed, and many segments as one. Each [`Packet`] says so ([`Offload`]), and whoever wants
//! the frames of the cable completes and cuts them.
//!
//! A small program in the kernel (classic BPF) keeps what is not wanted out: frames of one
//! interface, and datagrams of UDP on all others. Frames that come faster than they are read are
//! dropped, and counted ([`PacketSocket::statistics`]); no sender waits for us.
//!
//! Read [`PacketSocket`] and [`Packet`] first; below them is [`RawSocket`], which the lab uses too,
//! and `sys.rs` has the system calls. Left out: what is in a frame, and what becomes of it.

mod sys;

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use sys::{RawSocket, Received, Statistics};

/// Bytes of frames that may wait to be read.
const BUFFER_LEN: usize = 64 << 20;
/// The largest super-segment with its headers.
const FRAME_MAX: usize = 1 << 17;
/// Bytes of the virtio-net header in front of a frame (VIRTIO 1.2 section 5.1.6).
const VNET_LEN: usize = 10;

/// Which frames are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// All frames of the interface with this index.
    pub interface: Option<u32>,
    /// Without that one, datagrams of UDP on all interfaces.
    pub udp_except: Option<u32>,
}

/// What the kernel left to the network card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Where the checksum has to be completed: from where it sums, and where it stands, both
    /// bytes from the front of the frame.
    pub checksum: Option<(usize, usize)>,
    /// The frame is datagrams of UDP with so many bytes of payload each, the last one fewer.
    pub datagram_len: Option<usize>,
    /// The frame is many segments of TCP.
    pub is_tcp_segments: bool,
}

/// A frame that passed an interface.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When, Unix time in nanoseconds, by the kernel's clock.
    pub at_ns: u64,
    /// Index of the interface.
    pub interface: u32,
    /// What the interface is made of (`ARPHRD_*`): 1 is Ethernet, 772 the loopback.
    pub hardware: u16,
    /// EtherType as the kernel knows it.
    pub protocol: u16,
    /// This machine sent it.
    pub is_outgoing: bool,
    /// What is not as on the cable.
    pub offload: Offload,
    /// The VLAN tag that the kernel took off behind the hardware addresses: protocol (0x8100, or
    /// 0x88a8 of 802.1ad) and control information (priority and number).
    pub vlan: Option<(u16, u16)>,
    /// From the link layer's header on, if the interface has one.
    pub bytes: &'a [u8],
}

/// An open packet socket.
#[derive(Debug)]
pub struct PacketSocket {
    socket: RawSocket,
    buffer: Vec<u8>,
    has_vnet: bool,
}

impl PacketSocket {
    /// Opens it in this process's network namespace.
    ///
    /// # Errors
    /// Without CAP_NET_RAW the kernel's EPERM; and what else it says.
    pub fn open(wanted: Wanted) -> io::Result<Self> {
        let socket = RawSocket::unbound()?;
        // More than the machine allows to everybody; what it gives has to do.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_LEN);
        socket.filter(&sys::program(wanted))?;
        socket.bind(0)?;
        Ok(Self { socket, buffer: vec![0; FRAME_MAX], has_vnet: true })
    }

    /// The next frame; `None` when nothing passes for as long as `patience`.
    ///
    /// # Errors
    /// What the kernel says: an interface that goes down is none.
    pub fn next(&mut self, patience: Duration) -> io::Result<Option<Packet<'_>>> {
        let mut result = self.socket.receive(&mut self.buffer);
        if matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            if !self.wait(patience)? {
                return Ok(None);
            }
            result = self.socket.receive(&mut self.buffer);
        }
        let received = match result {
            Ok(received) => received,
            // Linux before 6.2 has no virtio-net header for datagrams that it will cut.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.has_vnet => {
                self.socket.set_vnet(false)?;
                self.has_vnet = false;
                return Ok(None);
            }
            Err(error) if is_passing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let all = &self.buffer[..received.len.min(self.buffer.len())];
        let (offload, bytes) = match all.split_first_chunk::<VNET_LEN>() {
            Some((vnet, bytes)) if self.has_vnet => (offload(vnet), bytes),
            _ => (Offload::default(), all),
        };
        let Received { at_ns, interface, hardware, protocol, is_outgoing, vlan, .. } = received;
        Ok(Some(Packet { at_ns, interface, hardware, protocol, is_outgoing, offload, vlan, bytes }))
    }

    /// Waits for a frame; whether there is one.
    fn wait(&self, patience: Duration) -> io::Result<bool> {
        let mut files = [PollFd::new(&self.socket, PollFlags::IN)];
        let patience = Timespec {
            tv_sec: patience.as_secs().cast_signed(),
            tv_nsec: patience.subsec_nanos().into(),
        };
        match poll(&mut files, Some(&patience)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether [`Packet::offload`] is known; otherwise what the kernel would cut comes uncut.
    pub fn knows_offloads(&self) -> bool {
        self.has_vnet
    }

    /// What the kernel counted since this was asked last.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn statistics(&self) -> io::Result<Statistics> {
        sys::statistics(&self.socket)
    }
}

/// An error of one moment: the next call may well find a frame.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        || matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENODEV | libc::ENXIO))
}

/// What a virtio-net header in the machine's byte order says.
fn offload(vnet: &[u8; VNET_LEN]) -> Offload {
    const NEEDS_CSUM: u8 = 1;
    const GSO_KIND: u8 = 0x7f;
    const GSO_UDP: u8 = 5;
    let half = |at: usize| usize::from(u16::from_ne_bytes([vnet[at], vnet[at + 1]]));
    let kind = vnet[1] & GSO_KIND;
    Offload {
        checksum: (vnet[0] & NEEDS_CSUM != 0).then(|| (half(6), half(6) + half(8))),
        datagram_len: (kind == GSO_UDP && half(4) > 0).then(|| half(4)),
        is_tcp_segments: matches!(kind, 1 | 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtio_header_says_what_is_left_to_do() {
        let mut vnet = [0; VNET_LEN];
        assert_eq!(offload(&vnet), Offload::default());
        (vnet[0], vnet[1]) = (1, 5);
        vnet[4..6].copy_from_slice(&1200u16.to_ne_bytes());
        vnet[6..8].copy_from_slice(&34u16.to_ne_bytes());
        vnet[8..10].copy_from_slice(&6u16.to_ne_bytes());
        let expected =
            Offload { checksum: Some((34, 40)), datagram_len: Some(1200), is_tcp_segments: false };
        assert_eq!(offload(&vnet), expected);
        vnet[1] = 0x81;
        assert!(offload(&vnet).is_tcp_segments);
    }

    /// Datagrams on the loopback come, others do not; needs root.
    #[test]
    fn what_is_wanted_passes_the_filter() {
        let lo = sys::interface_index("lo").unwrap();
        let Ok(mut socket) = PacketSocket::open(Wanted { interface: None, udp_except: Some(0) })
        else {
            panic!("no packet socket: this test needs root")
        };
        let mut all = PacketSocket::open(Wanted { interface: Some(lo), udp_except: None }).unwrap();
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = receiver.local_addr().unwrap().port();
        receiver.send_to(b"marked 7365", ("127.0.0.1", port)).unwrap();
        let is_ours =
            |packet: &Packet<'_>| packet.bytes.ends_with(b"marked 7365") && packet.interface == lo;
        for socket in [&mut socket, &mut all] {
            let mut tries = 0..1000;
            let found = tries.any(|_| {
                let packet = socket.next(Duration::from_millis(100)).unwrap();
                packet.is_some_and(|packet| is_ours(&packet) && packet.protocol == 0x0800)
            });
            assert!(found);
            assert!(socket.statistics().unwrap().packets > 0);
        }
        let mut none =
            PacketSocket::open(Wanted { interface: None, udp_except: Some(lo) }).unwrap();
        receiver.send_to(b"marked 7365", ("127.0.0.1", port)).unwrap();
        while let Some(packet) = none.next(Duration::from_millis(100)).unwrap() {
            assert!(!is_ours(&packet), "from the interface that is left out");
        }
    }
}
