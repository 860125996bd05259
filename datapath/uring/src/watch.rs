//! What the kernel tells of its interfaces, addresses and routes when they change (rtnetlink).

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{bind, recv, sendto, socket_with};

/// `struct nlmsghdr`: length u32, type u16, flags u16, sequence u32, port u32; native endian.
const HEADER_LEN: usize = 16;
/// `struct ifinfomsg`: family u8, pad u8, type u16, index i32, flags u32, change mask u32.
const LINK_HEADER_LEN: usize = 16;
/// Attributes and messages are padded to this.
const ALIGNMENT: usize = 4;
/// The kernel cuts its dumps to what is asked for, and its notices are shorter.
const BUFFER_LEN: usize = 32 * 1024;

/// What has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkChange {
    /// An address, a route, or an interface came, went, or changed its state.
    pub addresses: bool,
    /// An interface has another MTU.
    pub mtus: bool,
}

impl NetworkChange {
    const EVERYTHING: NetworkChange = NetworkChange { addresses: true, mtus: true };

    fn is_any(self) -> bool {
        self.addresses || self.mtus
    }
}

/// Hears of changes in the network namespace that it was opened in.
#[derive(Debug)]
pub struct NetworkWatch {
    socket: OwnedFd,
    buffer: Vec<u8>,
    interfaces: Interfaces,
}

/// What is known of the interfaces.
#[derive(Debug, Default)]
struct Interfaces {
    /// MTU and flags of each, by its index.
    known: HashMap<u32, (u32, u32)>,
    /// The index of the one whose MTU is our own doing.
    own: u32,
}

impl NetworkWatch {
    /// From now on changes are told, but for the MTU of the interface with the index `own`.
    ///
    /// # Errors
    /// Whatever the kernel says; no privilege is needed.
    pub fn open(own: u32) -> io::Result<NetworkWatch> {
        // Protocol 0 is NETLINK_ROUTE.
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE;
        bind(&socket, &SocketAddrNetlink::new(0, groups as u32))?;
        sendto(&socket, &dump_request(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let buffer = vec![0; BUFFER_LEN];
        let mut watch = NetworkWatch {
            socket,
            buffer,
            interfaces: Interfaces { own, ..Interfaces::default() },
        };
        while !watch.read()?.1 {}
        Ok(watch)
    }

    /// Waits for the next change.
    ///
    /// # Errors
    /// The socket is of no use any more: open another one.
    pub fn wait(&mut self) -> io::Result<NetworkChange> {
        loop {
            match self.read() {
                Ok((change, _)) if change.is_any() => return Ok(change),
                Ok(_) | Err(Errno::INTR) => {}
                // More has happened than was kept for us.
                Err(Errno::NOBUFS) => return Ok(NetworkChange::EVERYTHING),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// What the next messages say, and whether a dump has ended with them.
    fn read(&mut self) -> Result<(NetworkChange, bool), Errno> {
        let (len, _) = recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?;
        Ok(self.interfaces.learn(&self.buffer[..len]))
    }
}

impl Interfaces {
    /// What a row of messages says that is new, and whether a dump has ended with them.
    fn learn(&mut self, mut messages: &[u8]) -> (NetworkChange, bool) {
        let mut change = NetworkChange::default();
        let mut has_ended = false;
        while messages.len() >= HEADER_LEN {
            let len = number(messages, 0) as usize;
            let kind = u16::from_ne_bytes([messages[4], messages[5]]);
            let body = messages.get(HEADER_LEN..len).unwrap_or_default();
            match kind {
                libc::RTM_NEWLINK => self.on_link(body, &mut change),
                libc::RTM_DELLINK => {
                    change.addresses = true;
                    if body.len() >= LINK_HEADER_LEN {
                        self.known.remove(&number(body, 4));
                    }
                }
                libc::RTM_NEWADDR | libc::RTM_DELADDR | libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
                    change.addresses = true;
                }
                _ => has_ended |= i32::from(kind) == libc::NLMSG_DONE,
            }
            let next = len.max(HEADER_LEN).next_multiple_of(ALIGNMENT);
            messages = messages.get(next..).unwrap_or_default();
        }
        (change, has_ended)
    }

    /// The kernel tells of an interface again and again, of its wireless statistics for example.
    fn on_link(&mut self, body: &[u8], change: &mut NetworkChange) {
        if body.len() < LINK_HEADER_LEN {
            return;
        }
        let (index, flags) = (number(body, 4), number(body, 8));
        let known = self.known.get(&index).copied();
        let told = mtu(&body[LINK_HEADER_LEN..]).or(known.map(|(mtu, _)| mtu));
        let Some(mtu) = told else { return };
        self.known.insert(index, (mtu, flags));
        change.addresses |= known.is_none_or(|(_, before)| before != flags);
        change.mtus |= index != self.own && known.is_some_and(|(before, _)| before != mtu);
    }
}

/// The MTU among a link's attributes (`struct rtattr`: length u16, type u16, value, padding).
fn mtu(mut attributes: &[u8]) -> Option<u32> {
    while let Some((head, value)) = attributes.split_first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        if u16::from_ne_bytes([head[2], head[3]]) == libc::IFLA_MTU {
            return value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        }
        attributes = attributes.get(len.max(4).next_multiple_of(ALIGNMENT)..)?;
    }
    None
}

/// The number at an offset; 0 beyond the end.
fn number(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// Asks for all interfaces (RTM_GETLINK).
fn dump_request() -> [u8; HEADER_LEN + LINK_HEADER_LEN] {
    let mut request = [0; HEADER_LEN + LINK_HEADER_LEN];
    let len = request.len() as u32;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    request[..4].copy_from_slice(&len.to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let len = (HEADER_LEN + body.len()) as u32;
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.resize(HEADER_LEN, 0);
        bytes.extend_from_slice(body);
        bytes
    }

    fn link(index: u32, flags: u32, mtu: u32) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&flags.to_ne_bytes());
        body.resize(LINK_HEADER_LEN, 0);
        // A name first, whose padding has to be skipped.
        body.extend_from_slice(&[9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0]);
        body.extend_from_slice(&[8, 0, 4, 0]);
        body.extend_from_slice(&mtu.to_ne_bytes());
        message(libc::RTM_NEWLINK, &body)
    }

    #[test]
    fn only_what_is_new_is_a_change() {
        let mut interfaces = Interfaces::default();
        let change = |addresses, mtus| (NetworkChange { addresses, mtus }, false);
        assert_eq!(interfaces.learn(&link(2, 1, 1500)), change(true, false));
        assert_eq!(interfaces.learn(&link(2, 1, 1500)), change(false, false));
        assert_eq!(interfaces.learn(&link(2, 1, 1400)), change(false, true));
        assert_eq!(interfaces.learn(&link(2, 0, 1400)), change(true, false));
        let both = [link(2, 0, 1500), message(libc::RTM_DELADDR, &[0; 8])].concat();
        assert_eq!(interfaces.learn(&both), change(true, true));
        let gone = message(libc::RTM_DELLINK, &link(2, 0, 1500)[HEADER_LEN..]);
        assert_eq!(interfaces.learn(&gone), change(true, false));
        assert!(interfaces.known.is_empty());
        assert!(interfaces.learn(&message(libc::NLMSG_DONE as u16, &[0; 4])).1);
    }

    #[test]
    fn what_we_do_to_our_own_interface_is_no_news() {
        let mut interfaces = Interfaces { own: 5, ..Interfaces::default() };
        interfaces.learn(&link(5, 1, 1400));
        let nothing = NetworkChange::default();
        assert_eq!(interfaces.learn(&link(5, 1, 1428)), (nothing, false));
        assert!(interfaces.learn(&link(5, 0, 1428)).0.addresses);
    }

    #[test]
    fn a_watch_opens_and_knows_the_interfaces() {
        let watch = NetworkWatch::open(0).unwrap();
        assert!(!watch.interfaces.known.is_empty(), "at least the loopback");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Interfaces::default().learn(&bytes);
            let _ = mtu(&bytes);
        }
    }
}
