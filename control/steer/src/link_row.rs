//! One link as the link table shows it.
//!
//! ```text
//!   0 peer[32]
//!  32 session u64
//!  40 state u8 | path kind u8 | local kind u8 | remote kind u8 | cipher u8 | lanes u8 | mtu u16
//!  48 rtt_us u32 | epoch u32
//!  56 established_ms u64
//!  64 last_heard_ms u64
//!  72 bytes_in u64 | bytes_out u64 | packets_in u64 | packets_out u64 | drops u64
//! 112 local   family u8 (0 none) | 0 u8 | port u16 | scope u32 | ip[16]
//! 136 remote  the same
//! 160 overlay 4 x { family u8 (0 none) | prefix u8 | 0 u16 | ip[16] }
//! 240 name length u8 | reason length u8 | lossy u8 | 0[5]
//! 248 name[64]
//! 312 reason[160]
//! 472 relay   as local: our TURN server | channel u16 | 0[6]
//! 504 choice and outcomes, see `choice.rs`
//! 744 0[24]
//! ```
//! Little endian; `ip` in network order, IPv4 in its first four bytes; kinds are 0 when absent.

use std::net::{IpAddr, SocketAddr};

use crate::choice::{self, Choice, Outcome};
use crate::codec::{DecodeError, Reader, Writer, coded_enum, cut, prefix_max};
use crate::limits::{NAME_LEN_MAX, ROW_ADDRESSES_MAX, ROW_REASON_LEN_MAX};
use crate::trace::optional;
use crate::{CandidateKind, Fingerprint, LinkState, PathKind};

coded_enum! {
    /// What seals a link's packets.
    pub enum Cipher {
        /// AES-128 in Galois/counter mode.
        Aes128Gcm = 1,
        /// AES-256 in Galois/counter mode.
        Aes256Gcm = 2,
        /// ChaCha20 with Poly1305.
        ChaCha20Poly1305 = 3,
        /// Nothing does: the group's policy trusts the network.
        Plain = 4,
        /// AEGIS-128X4.
        Aegis128X4 = 5,
    }
}

/// One link, as a reader of the link table sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRow {
    /// To whom.
    pub peer: Fingerprint,
    /// Session of the link.
    pub session: u64,
    /// What the link can do.
    pub state: LinkState,
    /// The path in use.
    pub path: Option<PathKind>,
    /// How this end of the path was learned.
    pub local_kind: Option<CandidateKind>,
    /// How the other end of the path was learned.
    pub remote_kind: Option<CandidateKind>,
    /// What seals the packets, once there are keys.
    pub cipher: Option<Cipher>,
    /// Lanes in use; 0 before the handshake.
    pub lanes: u8,
    /// Largest datagram that the path carries, bytes of UDP payload; 0 when unknown.
    pub mtu: u16,
    /// Whether the path loses so much that what is sparse is sent more than once.
    pub is_lossy: bool,
    /// Round-trip time, microseconds; 0 when unknown.
    pub rtt_us: u32,
    /// How often the keys were ratcheted since the handshake.
    pub epoch: u32,
    /// When the last handshake completed, Unix time in milliseconds; 0 for never.
    pub established_ms: u64,
    /// When the peer was last heard with proof, Unix time in milliseconds; 0 for never.
    pub last_heard_ms: u64,
    /// Bytes of frames from the peer.
    pub bytes_in: u64,
    /// Bytes of frames to the peer.
    pub bytes_out: u64,
    /// Datagrams of data from the peer.
    pub packets_in: u64,
    /// Datagrams of data to the peer.
    pub packets_out: u64,
    /// Packets of this link dropped, in either direction.
    pub drops: u64,
    /// This end of the path.
    pub local: Option<SocketAddr>,
    /// The other end of the path.
    pub remote: Option<SocketAddr>,
    /// Overlay networks routed to the peer with prefix lengths: the first
    /// [`ROW_ADDRESSES_MAX`] of them.
    pub addresses: Vec<(IpAddr, u8)>,
    /// What people call the peer; [`NAME_LEN_MAX`] bytes are kept.
    pub name: String,
    /// Why the link is in its state; [`ROW_REASON_LEN_MAX`] bytes are kept.
    pub reason: String,
    /// Our TURN server and the channel that the peer's datagrams come in, where the path goes
    /// through one.
    pub relay: Option<(SocketAddr, u16)>,
    /// Why this path.
    pub choice: Option<Choice>,
    /// What became of all pairs of addresses; [`ROW_OUTCOMES_MAX`] kinds are kept.
    ///
    /// [`ROW_OUTCOMES_MAX`]: crate::limits::ROW_OUTCOMES_MAX
    pub outcomes: Vec<Outcome>,
}

const _: () = assert!(504 + choice::LEN <= LinkRow::LEN);

impl LinkRow {
    /// Length of a row, bytes.
    pub const LEN: usize = 768;

    /// A link of which nothing is known but whose it is.
    pub fn new(peer: Fingerprint, session: u64) -> Self {
        Self {
            peer,
            session,
            state: LinkState::Idle,
            path: None,
            local_kind: None,
            remote_kind: None,
            cipher: None,
            lanes: 0,
            mtu: 0,
            is_lossy: false,
            rtt_us: 0,
            epoch: 0,
            established_ms: 0,
            last_heard_ms: 0,
            bytes_in: 0,
            bytes_out: 0,
            packets_in: 0,
            packets_out: 0,
            drops: 0,
            local: None,
            remote: None,
            addresses: Vec::new(),
            name: String::new(),
            reason: String::new(),
            relay: None,
            choice: None,
            outcomes: Vec::new(),
        }
    }

    /// The row's bytes. What has no room is cut off.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut bytes = Vec::with_capacity(Self::LEN);
        let mut to = Writer::new(&mut bytes);
        self.put(&mut to);
        let mut row = [0; Self::LEN];
        row[..bytes.len()].copy_from_slice(&bytes);
        row
    }

    /// Reads a row back.
    pub fn parse(row: &[u8; Self::LEN]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(row);
        let row = Self::take(&mut from)?;
        from.zeros(from.rest())?;
        Ok(row)
    }

    fn put(&self, to: &mut Writer<'_>) {
        self.peer.put(to);
        to.u64(self.session);
        self.state.put(to);
        to.u8(self.path.map_or(0, PathKind::code));
        to.u8(self.local_kind.map_or(0, CandidateKind::code));
        to.u8(self.remote_kind.map_or(0, CandidateKind::code));
        to.u8(self.cipher.map_or(0, Cipher::code));
        to.u8(self.lanes);
        to.u16(self.mtu);
        to.u32(self.rtt_us);
        to.u32(self.epoch);
        for value in [self.established_ms, self.last_heard_ms, self.bytes_in, self.bytes_out] {
            to.u64(value);
        }
        for value in [self.packets_in, self.packets_out, self.drops] {
            to.u64(value);
        }
        put_endpoint(to, self.local);
        put_endpoint(to, self.remote);
        for index in 0..ROW_ADDRESSES_MAX {
            put_network(to, self.addresses.get(index));
        }
        let (name, reason) = (cut(&self.name, NAME_LEN_MAX), cut(&self.reason, ROW_REASON_LEN_MAX));
        to.u8(name.len() as u8);
        to.u8(reason.len() as u8);
        to.bool(self.is_lossy);
        to.zeros(5);
        to.bytes(name.as_bytes());
        to.zeros(NAME_LEN_MAX - name.len());
        to.bytes(reason.as_bytes());
        to.zeros(ROW_REASON_LEN_MAX - reason.len());
        put_endpoint(to, self.relay.map(|(server, _)| server));
        to.u16(self.relay.map_or(0, |(_, channel)| channel));
        to.zeros(6);
        choice::put(to, self.choice, &self.outcomes);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut row = Self::new(Fingerprint::take(from)?, from.u64()?);
        row.state = LinkState::take(from)?;
        row.path = optional(from.u8()?, PathKind::of)?;
        row.local_kind = optional(from.u8()?, CandidateKind::of)?;
        row.remote_kind = optional(from.u8()?, CandidateKind::of)?;
        row.cipher = optional(from.u8()?, Cipher::of)?;
        row.lanes = from.u8()?;
        row.mtu = from.u16()?;
        row.rtt_us = from.u32()?;
        row.epoch = from.u32()?;
        for value in [
            &mut row.established_ms,
            &mut row.last_heard_ms,
            &mut row.bytes_in,
            &mut row.bytes_out,
            &mut row.packets_in,
            &mut row.packets_out,
            &mut row.drops,
        ] {
            *value = from.u64()?;
        }
        row.local = take_endpoint(from)?;
        row.remote = take_endpoint(from)?;
        row.addresses = take_networks(from)?;
        let (name_len, reason_len) = (from.u8()?, from.u8()?);
        row.is_lossy = from.bool()?;
        from.zeros(5)?;
        row.name = from.padded_text(name_len.into(), NAME_LEN_MAX)?;
        row.reason = from.padded_text(reason_len.into(), ROW_REASON_LEN_MAX)?;
        let (server, channel) = (take_endpoint(from)?, from.u16()?);
        from.zeros(6)?;
        if server.is_none() && channel != 0 {
            return Err(DecodeError::Padding);
        }
        row.relay = server.map(|server| (server, channel));
        (row.choice, row.outcomes) = choice::take(from)?;
        Ok(row)
    }
}

fn put_endpoint(to: &mut Writer<'_>, endpoint: Option<SocketAddr>) {
    let Some(endpoint) = endpoint else { return to.zeros(24) };
    let scope = if let SocketAddr::V6(v6) = endpoint { v6.scope_id() } else { 0 };
    to.u8(family(&endpoint.ip()));
    to.u8(0);
    to.u16(endpoint.port());
    to.u32(scope);
    put_ip(to, &endpoint.ip());
}

fn take_endpoint(from: &mut Reader<'_>) -> Result<Option<SocketAddr>, DecodeError> {
    let family = from.u8()?;
    from.zeros(1)?;
    let (port, scope) = (from.u16()?, from.u32()?);
    Ok(match take_ip(from, family)? {
        Some(IpAddr::V6(ip)) => Some(std::net::SocketAddrV6::new(ip, port, 0, scope).into()),
        Some(ip) if scope == 0 => Some((ip, port).into()),
        None if port == 0 && scope == 0 => None,
        _ => return Err(DecodeError::Padding),
    })
}

fn put_network(to: &mut Writer<'_>, network: Option<&(IpAddr, u8)>) {
    let Some((address, prefix)) = network else { return to.zeros(20) };
    to.u8(family(address));
    to.u8((*prefix).min(prefix_max(address)));
    to.zeros(2);
    put_ip(to, address);
}

fn take_networks(from: &mut Reader<'_>) -> Result<Vec<(IpAddr, u8)>, DecodeError> {
    let mut networks = Vec::with_capacity(ROW_ADDRESSES_MAX);
    for index in 0..ROW_ADDRESSES_MAX {
        let (family, prefix) = (from.u8()?, from.u8()?);
        from.zeros(2)?;
        match take_ip(from, family)? {
            Some(ip) if networks.len() == index => networks.push(checked_network(ip, prefix)?),
            None if prefix == 0 => {}
            _ => return Err(DecodeError::Padding),
        }
    }
    Ok(networks)
}

fn checked_network(ip: IpAddr, prefix: u8) -> Result<(IpAddr, u8), DecodeError> {
    if prefix > prefix_max(&ip) {
        return Err(DecodeError::UnknownCode { what: "prefix length", code: prefix });
    }
    Ok((ip, prefix))
}

fn family(ip: &IpAddr) -> u8 {
    if ip.is_ipv4() { 4 } else { 6 }
}

fn put_ip(to: &mut Writer<'_>, ip: &IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            to.bytes(&v4.octets());
            to.zeros(12);
        }
        IpAddr::V6(v6) => to.bytes(&v6.octets()),
    }
}

fn take_ip(from: &mut Reader<'_>, family: u8) -> Result<Option<IpAddr>, DecodeError> {
    Ok(match family {
        0 => {
            from.zeros(16)?;
            None
        }
        4 => {
            let ip = IpAddr::from(from.array::<4>()?);
            from.zeros(12)?;
            Some(ip)
        }
        6 => Some(IpAddr::from(from.array::<16>()?)),
        code => return Err(DecodeError::UnknownCode { what: "address family", code }),
    })
}
