//! Messages as `sendmsg` and `recvmsg` want them: addresses, control messages, headers.
//!
//! Out: an [`Envelope`] holds everything but the payload of one send, and rewrites only what
//! changed since its last one. In: [`parse`] reads what a multishot receive left in a buffer:
//!
//! ```text
//! 0        16              48                 112
//! | header | name (peer)   | control messages  | payload ...
//! ```
//!
//! The header is `struct io_uring_recvmsg_out`: name, control and payload lengths and flags, four
//! u32 in native endian.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

use crate::port::Destination;

/// Room for a `sockaddr_in6`, rounded up so that the payload of a receive is aligned to 16.
const NAME_LEN: usize = 32;
/// Room for the control messages of either direction: packet info and an int.
const CONTROL_LEN: usize = 64;
const RECEIVE_HEADER_LEN: usize = 16;
/// Where the payload of a multishot receive begins.
pub(crate) const PAYLOAD_START: usize = RECEIVE_HEADER_LEN + NAME_LEN + CONTROL_LEN;

/// Control messages are aligned to, and their length field is of, one machine word.
const WORD: usize = size_of::<usize>();
const CONTROL_HEADER_LEN: usize = size_of::<libc::cmsghdr>().next_multiple_of(WORD);

const _: () = assert!(size_of::<libc::sockaddr_in6>() <= NAME_LEN);
const _: () = assert!(control_space(20) + control_space(4) <= CONTROL_LEN);

/// Everything but the payload of one send. Its pointers point into itself, so it stays where it
/// is from [`seal`](Envelope::seal) until the kernel has the message.
pub(crate) struct Envelope {
    header: libc::msghdr,
    payload: libc::iovec,
    name: Name,
    control: Control,
    /// What `name` and `control` are written for.
    destination: Option<Destination>,
    /// Bytes of control messages without and with segment size.
    control_len: [usize; 2],
}

#[repr(C)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

// SAFETY: the pointers inside point into the envelope itself or at a payload, and are written
// anew by `seal` wherever the envelope then lives; none is dereferenced by this type.
unsafe impl Send for Envelope {}

impl Envelope {
    pub(crate) fn new() -> Envelope {
        // SAFETY: all-zero bytes are a valid `sockaddr_in6`, `msghdr` and `iovec`: integers and
        // nullable pointers.
        let (v6, header, payload) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Envelope {
            header,
            payload,
            name: Name { v6 },
            control: Control([0; CONTROL_LEN]),
            destination: None,
            control_len: [0; 2],
        }
    }

    /// Addresses `len` bytes at `payload`, to be cut into `segment_size` bytes each if that is
    /// not 0. The result is good while neither envelope nor payload moves.
    pub(crate) fn seal(
        &mut self,
        payload: *const u8,
        len: usize,
        segment_size: u16,
        destination: &Destination,
    ) -> *const libc::msghdr {
        if self.destination.as_ref() != Some(destination) {
            self.address(destination);
        }
        let [plain_len, segmented_len] = self.control_len;
        if segment_size != 0 {
            let value = plain_len + CONTROL_HEADER_LEN;
            self.control.0[value..value + 2].copy_from_slice(&segment_size.to_ne_bytes());
        }
        let control_len = if segment_size == 0 { plain_len } else { segmented_len };
        self.payload.iov_base = payload.cast_mut().cast();
        self.payload.iov_len = len;
        self.header.msg_name = ptr::from_mut(&mut self.name).cast();
        self.header.msg_iov = &mut self.payload;
        self.header.msg_iovlen = 1;
        self.header.msg_control = self.control.0.as_mut_ptr().cast();
        self.header.msg_controllen = control_len as _;
        &self.header
    }

    /// As [`seal`](Self::seal), for one datagram that so many routers less one pass on.
    pub(crate) fn seal_near(
        &mut self,
        payload: *const u8,
        len: usize,
        hop_limit: u8,
        destination: &Destination,
    ) -> *const libc::msghdr {
        self.address(destination);
        // In the place of the segment size.
        let mut writer = ControlWriter { bytes: &mut self.control.0, len: self.control_len[0] };
        let hops = i32::from(hop_limit).to_ne_bytes();
        match destination.remote {
            SocketAddr::V4(_) => writer.put(libc::IPPROTO_IP, libc::IP_TTL, &hops),
            SocketAddr::V6(_) => writer.put(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &hops),
        }
        self.control_len[0] = writer.len;
        self.seal(payload, len, 0, destination)
    }

    /// Writes the peer's address and the control messages: packet info with our source address,
    /// then the segment size, so that leaving the latter out is a matter of length.
    fn address(&mut self, destination: &Destination) {
        self.destination = Some(*destination);
        let mut writer = ControlWriter { bytes: &mut self.control.0, len: 0 };
        let name_len = match destination.remote {
            SocketAddr::V4(remote) => {
                self.name.v4 = sockaddr_v4(remote);
                let source = match destination.local_ip {
                    IpAddr::V4(source) => source,
                    IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
                };
                writer.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &packet_info_v4(source));
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(remote) => {
                self.name.v6 = sockaddr_v6(remote);
                let source = match destination.local_ip {
                    IpAddr::V6(source) => source,
                    IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
                };
                writer.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &packet_info_v6(source));
                size_of::<libc::sockaddr_in6>()
            }
        };
        self.header.msg_namelen = name_len as _;
        let plain_len = writer.len;
        writer.put(libc::SOL_UDP, libc::UDP_SEGMENT, &[0; 2]);
        self.control_len = [plain_len, writer.len];
    }
}

/// The message header that a multishot receive takes its name and control lengths from.
pub(crate) fn receive_header() -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid `msghdr`: integers and nullable pointers.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_namelen = NAME_LEN as _;
    header.msg_controllen = CONTROL_LEN as _;
    header
}

/// What a multishot receive left in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) payload_len: usize,
    /// Bytes per datagram, or the payload length when the kernel joined nothing.
    pub(crate) segment_size: usize,
    pub(crate) remote: SocketAddr,
    pub(crate) local_ip: IpAddr,
}

/// Reads the first `PAYLOAD_START` bytes of a filled buffer; `None` if the datagram was truncated
/// or the kernel named no peer.
pub(crate) fn parse(bytes: &[u8]) -> Option<Received> {
    let (header, rest) = bytes.split_first_chunk::<RECEIVE_HEADER_LEN>()?;
    let (name, rest) = rest.split_first_chunk::<NAME_LEN>()?;
    let (control, payload) = rest.split_first_chunk::<CONTROL_LEN>()?;
    let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| header[at + i])) as usize;
    let (control_len, payload_len, flags) = (word(4), word(8), word(12));
    if flags & libc::MSG_TRUNC as usize != 0 || payload_len > payload.len() {
        return None;
    }
    let remote = peer(name)?;
    let mut received = Received {
        payload_len,
        segment_size: payload_len,
        remote,
        local_ip: match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        },
    };
    received.read_control(&control[..control_len.min(CONTROL_LEN)]);
    Some(received)
}

impl Received {
    fn read_control(&mut self, mut control: &[u8]) {
        while control.len() >= CONTROL_HEADER_LEN {
            let len = usize::from_ne_bytes(std::array::from_fn(|i| control[i]));
            let int = |at: usize| i32::from_ne_bytes([0, 1, 2, 3].map(|i| control[at + i]));
            let (level, kind) = (int(WORD), int(WORD + 4));
            let Some(value) = control.get(CONTROL_HEADER_LEN..len) else { return };
            self.read_control_message(level, kind, value);
            let Some(next) = control.get(len.next_multiple_of(WORD)..) else { return };
            control = next;
        }
    }

    fn read_control_message(&mut self, level: i32, kind: i32, value: &[u8]) {
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                if let Some(size) = value.first_chunk::<4>() {
                    let size = usize::try_from(i32::from_ne_bytes(*size)).unwrap_or(0);
                    self.segment_size = if size == 0 { self.payload_len } else { size };
                }
            }
            // `struct in_pktinfo`: interface index, our address, address in the packet.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                if let Some(ours) = value.get(4..).and_then(<[u8]>::first_chunk::<4>) {
                    self.local_ip = Ipv4Addr::from(*ours).into();
                }
            }
            // `struct in6_pktinfo`: address, interface index.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(ours) = value.first_chunk::<16>() {
                    self.local_ip = Ipv6Addr::from(*ours).into();
                }
            }
            _ => {}
        }
    }
}

/// `struct sockaddr_in`: family u16, port, address; `struct sockaddr_in6`: family u16, port,
/// flow u32, address, scope u32. Port and address in network order, the others native.
fn peer(name: &[u8; NAME_LEN]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes([name[0], name[1]]));
    let port = u16::from_be_bytes([name[2], name[3]]);
    match family {
        libc::AF_INET => {
            let address = Ipv4Addr::from(*name[4..].first_chunk::<4>()?);
            Some(SocketAddrV4::new(address, port).into())
        }
        libc::AF_INET6 => {
            let address = Ipv6Addr::from(*name[8..].first_chunk::<16>()?);
            let scope = u32::from_ne_bytes(*name[24..].first_chunk::<4>()?);
            Some(SocketAddrV6::new(address, port, 0, scope).into())
        }
        _ => None,
    }
}

fn sockaddr_v4(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as _,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}

fn sockaddr_v6(address: SocketAddrV6) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as _,
        sin6_port: address.port().to_be(),
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
        sin6_scope_id: address.scope_id(),
    }
}

/// No interface index: the routing table chooses, also when the address is unspecified.
fn packet_info_v4(source: Ipv4Addr) -> [u8; 12] {
    let mut info = [0; 12];
    info[4..8].copy_from_slice(&source.octets());
    info
}

fn packet_info_v6(source: Ipv6Addr) -> [u8; 20] {
    let mut info = [0; 20];
    info[..16].copy_from_slice(&source.octets());
    info
}

struct ControlWriter<'a> {
    bytes: &'a mut [u8; CONTROL_LEN],
    len: usize,
}

impl ControlWriter<'_> {
    fn put(&mut self, level: i32, kind: i32, value: &[u8]) {
        let message = &mut self.bytes[self.len..][..control_space(value.len())];
        message.fill(0);
        let len = CONTROL_HEADER_LEN + value.len();
        message[..WORD].copy_from_slice(&len.to_ne_bytes());
        message[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        message[WORD + 4..WORD + 8].copy_from_slice(&kind.to_ne_bytes());
        message[CONTROL_HEADER_LEN..len].copy_from_slice(value);
        self.len += control_space(value.len());
    }
}

const fn control_space(value_len: usize) -> usize {
    CONTROL_HEADER_LEN + value_len.next_multiple_of(WORD)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// A buffer as the kernel fills it, from an envelope's own name and control messages.
    fn received(name: &[u8], control: &[u8], payload_len: u32, flags: u32) -> Vec<u8> {
        let mut bytes = vec![0; PAYLOAD_START];
        bytes[..4].copy_from_slice(&(name.len() as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&(control.len() as u32).to_ne_bytes());
        bytes[8..12].copy_from_slice(&payload_len.to_ne_bytes());
        bytes[12..16].copy_from_slice(&flags.to_ne_bytes());
        bytes[16..16 + name.len()].copy_from_slice(name);
        bytes[48..48 + control.len()].copy_from_slice(control);
        bytes.resize(PAYLOAD_START + payload_len as usize, 7);
        bytes
    }

    fn name_v6(address: SocketAddrV6) -> [u8; 28] {
        let mut name = [0; 28];
        name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        name[2..4].copy_from_slice(&address.port().to_be_bytes());
        name[8..24].copy_from_slice(&address.ip().octets());
        name[24..].copy_from_slice(&address.scope_id().to_ne_bytes());
        name
    }

    #[test]
    fn a_receive_names_peer_local_address_and_segments() {
        let remote = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 4711, 0, 3);
        let local = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);
        let mut control = [0; CONTROL_LEN];
        let mut writer = ControlWriter { bytes: &mut control, len: 0 };
        writer.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &packet_info_v6(local));
        writer.put(libc::SOL_UDP, libc::UDP_GRO, &1400i32.to_ne_bytes());
        let len = writer.len;
        let bytes = received(&name_v6(remote), &control[..len], 3000, 0);
        let parsed = parse(&bytes).unwrap();
        assert_eq!(parsed.remote, remote.into());
        assert_eq!(parsed.local_ip, IpAddr::from(local));
        assert_eq!((parsed.payload_len, parsed.segment_size), (3000, 1400));
    }

    #[test]
    fn truncated_short_and_nameless_receives_are_refused() {
        let name = name_v6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 0, 0));
        assert!(parse(&received(&name, &[], 10, 0)).is_some());
        assert!(parse(&received(&name, &[], 10, libc::MSG_TRUNC as u32)).is_none());
        assert!(parse(&received(&[], &[], 10, 0)).is_none());
        let whole = received(&name, &[], 10, 0);
        for len in 0..whole.len() {
            assert!(parse(&whole[..len]).is_none());
        }
    }

    #[test]
    fn arbitrary_control_bytes_do_not_panic() {
        let name = name_v6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 0, 0));
        let mut state = 1u64;
        for _ in 0..20_000 {
            let control: [u8; CONTROL_LEN] = std::array::from_fn(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Small lengths are the interesting ones.
                if i % 16 > 1 && i % 16 < 8 { 0 } else { (state >> 58) as u8 }
            });
            assert!(parse(&received(&name, &control, 4, 0)).is_some());
        }
        let huge: [u8; CONTROL_LEN] = [0xff; CONTROL_LEN];
        assert!(parse(&received(&name, &huge, 4, 0)).is_some());
    }

    #[test]
    fn an_envelope_is_readdressed_only_by_need() {
        let first = Destination {
            remote: "192.0.2.1:5000".parse().unwrap(),
            local_ip: "192.0.2.9".parse().unwrap(),
            local_port: 0,
        };
        let second = Destination { remote: "[2001:db8::1]:5000".parse().unwrap(), ..first };
        let mut envelope = Envelope::new();
        envelope.seal(ptr::null(), 10, 0, &first);
        assert_eq!(envelope.header.msg_controllen, control_space(12));
        envelope.seal(ptr::null(), 10, 5, &first);
        assert_eq!(envelope.header.msg_controllen, control_space(12) + control_space(2));
        envelope.seal(ptr::null(), 10, 0, &second);
        assert_eq!(envelope.header.msg_namelen as usize, size_of::<libc::sockaddr_in6>());
        assert_eq!(envelope.control.0[control_space(0)..][..16], [0; 16], "other family: ours");
    }

    #[test]
    fn a_hop_limit_stands_behind_our_address() {
        let destination = Destination {
            remote: "192.0.2.1:5000".parse().unwrap(),
            local_ip: "192.0.2.9".parse().unwrap(),
            local_port: 0,
        };
        let mut envelope = Envelope::new();
        envelope.seal_near(ptr::null(), 10, 2, &destination);
        assert_eq!(envelope.header.msg_controllen, control_space(12) + control_space(4));
        let message = &envelope.control.0[control_space(12)..];
        assert_eq!(message[WORD..WORD + 4], libc::IPPROTO_IP.to_ne_bytes());
        assert_eq!(message[WORD + 4..WORD + 8], libc::IP_TTL.to_ne_bytes());
        assert_eq!(message[CONTROL_HEADER_LEN..][..4], 2i32.to_ne_bytes());
    }
}
