//! The few rtnetlink requests that a tap needs, each sent and acknowledged synchronously.
//!
//! Netlink rather than the older ioctls: it names the interface by index, so a rename does not
//! redirect a request; it sets `gso_max_segs`, which no ioctl can; and one request changes
//! several attributes of a link at once.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{recv, sendto, socket_with};

/// `struct nlmsghdr`: length u32, type u16, flags u16, sequence u32, port u32; native endian.
const HEADER_LEN: usize = 16;
/// Attributes and messages are padded to this.
const ALIGNMENT: usize = 4;

/// What to change of a link; `None` leaves it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkChange {
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) alias: Option<&'static str>,
    pub(crate) mtu: Option<u32>,
    pub(crate) queue_len: Option<u32>,
    pub(crate) gso_segments_max: Option<u32>,
    pub(crate) up: Option<bool>,
}

/// A socket to the kernel's routing tables, in the network namespace it was opened in.
#[derive(Debug)]
pub(crate) struct RouteSocket {
    socket: OwnedFd,
    sequence: u32,
}

impl RouteSocket {
    pub(crate) fn open() -> Result<RouteSocket, Errno> {
        let flags = SocketFlags::CLOEXEC;
        // Protocol 0 is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(RouteSocket { socket, sequence: 0 })
    }

    /// Changes link attributes (RTM_NEWLINK on an existing index).
    pub(crate) fn change_link(&mut self, index: u32, change: &LinkChange) -> Result<(), Errno> {
        let mut request = Request::new(libc::RTM_NEWLINK, 0, &link_header(index, change.up));
        if let Some(mac) = change.mac {
            request.attribute(libc::IFLA_ADDRESS, &mac);
        }
        if let Some(alias) = change.alias {
            request.attribute(libc::IFLA_IFALIAS, alias.as_bytes());
        }
        let numbers = [
            (libc::IFLA_MTU, change.mtu),
            (libc::IFLA_TXQLEN, change.queue_len),
            (libc::IFLA_GSO_MAX_SEGS, change.gso_segments_max),
        ];
        for (kind, value) in numbers {
            if let Some(value) = value {
                request.attribute(kind, &value.to_ne_bytes());
            }
        }
        self.execute(request)
    }

    /// Adds an address, or does nothing if it is there. IPv6 addresses are usable at once: the
    /// overlay settles conflicts itself, so duplicate address detection is off.
    pub(crate) fn add_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), Errno> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let header = address_header(index, address, prefix, libc::IFA_F_NODAD);
        let mut request = Request::new(libc::RTM_NEWADDR, flags, &header);
        request.address(libc::IFA_LOCAL, address);
        request.address(libc::IFA_ADDRESS, address);
        if let IpAddr::V4(v4) = address
            && prefix < 31
        {
            let broadcast = v4.to_bits() | u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            request.attribute(libc::IFA_BROADCAST, &broadcast.to_be_bytes());
        }
        self.execute(request)
    }

    /// Removes an address; absence is success.
    pub(crate) fn remove_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), Errno> {
        let header = address_header(index, address, prefix, 0);
        let mut request = Request::new(libc::RTM_DELADDR, 0, &header);
        request.address(libc::IFA_LOCAL, address);
        request.address(libc::IFA_ADDRESS, address);
        match self.execute(request) {
            Err(Errno::ADDRNOTAVAIL) => Ok(()),
            other => other,
        }
    }

    fn execute(&mut self, request: Request) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.finish(self.sequence);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &bytes, SendFlags::empty(), &kernel)?;
        loop {
            let mut reply = [0u8; 4096];
            let (len, _) = recv(&self.socket, &mut reply, RecvFlags::empty())?;
            if let Some(result) = acknowledgement(&reply[..len], self.sequence) {
                return result;
            }
        }
    }
}

/// A message under construction.
struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: libc::c_int, body: &[u8]) -> Request {
        let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut bytes = vec![0u8; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(body);
        Request { bytes }
    }

    /// `struct rtattr`: length u16 with these four bytes, type u16, value, padding.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.attribute(kind, &v4.octets()),
            IpAddr::V6(v6) => self.attribute(kind, &v6.octets()),
        }
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// `struct ifinfomsg`: family u8, pad u8, type u16, index i32, flags u32, change mask u32.
fn link_header(index: u32, up: Option<bool>) -> [u8; 16] {
    let mut header = [0u8; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let flag = libc::IFF_UP as u32;
    if let Some(up) = up {
        header[8..12].copy_from_slice(&(if up { flag } else { 0 }).to_ne_bytes());
        header[12..16].copy_from_slice(&flag.to_ne_bytes());
    }
    header
}

/// `struct ifaddrmsg`: family u8, prefix length u8, flags u8, scope u8, index u32.
fn address_header(index: u32, address: IpAddr, prefix: u8, flags: u32) -> [u8; 8] {
    let (family, flags) = match address {
        IpAddr::V4(_) => (libc::AF_INET as u8, 0),
        IpAddr::V6(_) => (libc::AF_INET6 as u8, flags as u8),
    };
    let [a, b, c, d] = index.to_ne_bytes();
    [family, prefix, flags, 0, a, b, c, d]
}

/// The verdict on request `sequence` among the messages of one reply, if it is there.
fn acknowledgement(mut reply: &[u8], sequence: u32) -> Option<Result<(), Errno>> {
    while let Some((header, rest)) = reply.split_first_chunk::<HEADER_LEN>() {
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let number = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        if i32::from(kind) == libc::NLMSG_ERROR && number == sequence {
            let code = i32::from_ne_bytes(*rest.first_chunk::<4>()?);
            let failed = code.checked_neg().filter(|code| *code > 0);
            return Some(failed.map_or(Ok(()), |code| Err(Errno::from_raw_os_error(code))));
        }
        reply = reply.get(len.max(HEADER_LEN).next_multiple_of(ALIGNMENT)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_padded_and_counts_its_length() {
        let mut request = Request::new(libc::RTM_NEWLINK, 0, &link_header(7, Some(true)));
        request.attribute(libc::IFLA_ADDRESS, &[2, 1, 1, 1, 1, 1]);
        let bytes = request.finish(9);
        assert_eq!(bytes.len(), 16 + 16 + 12);
        assert_eq!(bytes[..4], 44u32.to_ne_bytes());
        assert_eq!(bytes[8..12], 9u32.to_ne_bytes());
        assert_eq!(bytes[20..24], 7u32.to_ne_bytes());
        assert_eq!(bytes[32..34], 10u16.to_ne_bytes(), "attribute length excludes padding");
    }

    #[test]
    fn an_acknowledgement_is_found_behind_another_and_told_from_an_error() {
        let message = |sequence: u32, code: i32| {
            let mut bytes = Request::new(libc::NLMSG_ERROR as u16, 0, &code.to_ne_bytes());
            bytes.bytes.extend_from_slice(&[0; 16]);
            bytes.finish(sequence)
        };
        let both = [message(1, 0), message(2, -1)].concat();
        assert_eq!(acknowledgement(&both, 1), Some(Ok(())));
        assert_eq!(acknowledgement(&both, 2), Some(Err(Errno::PERM)));
        assert_eq!(acknowledgement(&both, 3), None);
        assert_eq!(acknowledgement(&both[..20], 3), None, "a cut message does not panic");
    }
}
