//! What a controller asks of the datapath.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::codec::{DecodeError, EncodeError, Reader, Writer, coded_enum};
use crate::limits::{
    CA_FILE_LEN_MAX, INTERFACE_ADDRESSES_MAX, NAME_LEN_MAX, SERVER_NAME_LEN_MAX, STUN_SERVERS_MAX,
    TURN_PASSWORD_LEN_MAX, TURN_SERVERS_MAX, TURN_USERNAME_LEN_MAX, WORDS_LEN_MAX,
};
use crate::{Candidate, Fingerprint, IceCredentials};

/// A numbered command: the record that travels from controller to datapath.
///
/// Layout: sequence `u64`, tag `u8`, fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the controller; the answer carries it back. Unique as long as the segment lives,
    /// so that the answer to a dead controller's request is not taken for one's own.
    pub sequence: u64,
    /// What to do.
    pub command: Command,
}

/// What the datapath is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Give the overlay interface these addresses and no others. Tag 1.
    ConfigureInterface {
        /// Addresses with prefix lengths, at most [`INTERFACE_ADDRESSES_MAX`].
        addresses: Vec<(IpAddr, u8)>,
        /// Largest IP packet, bytes; 0 lets the datapath choose.
        mtu: u16,
    },
    /// Use these servers from now on and no others. Tag 2.
    SetIceServers {
        /// At most [`STUN_SERVERS_MAX`].
        stun: Vec<SocketAddr>,
        /// At most [`TURN_SERVERS_MAX`].
        turn: Vec<TurnServer>,
        /// PEM file with the roots that TURN servers over TLS are checked against, an absolute
        /// path of at most [`CA_FILE_LEN_MAX`] bytes; empty for the system's roots.
        ca_file: String,
    },
    /// Have a link to this peer. With the session that the link has already, nothing happens; a new
    /// session replaces the old one, whose keys and path keep carrying until the new one is up.
    /// Tag 3.
    OpenLink {
        /// Whom to talk to.
        peer: Fingerprint,
        /// What people call the peer, at most [`NAME_LEN_MAX`] bytes.
        name: String,
        /// Whether this end nominates (ICE) and is the TLS client.
        controlling: bool,
        /// How long this end opens its own side alone, so that the other's router has not heard of
        /// it before the other has opened that, unless the other has checked: milliseconds.
        head_start_ms: u16,
        /// Tells this attempt from earlier ones with the same peer.
        session: u64,
        /// What this end proves itself with.
        local: IceCredentials,
        /// What the other end proves itself with, if it is known by now.
        remote: Option<IceCredentials>,
    },
    /// The other end's credentials have come. Tag 4.
    SetRemote {
        /// Whose.
        peer: Fingerprint,
        /// Session of the link.
        session: u64,
        /// The credentials.
        credentials: IceCredentials,
    },
    /// The other end may be reached here. Tag 5.
    AddRemoteCandidate {
        /// Whose.
        peer: Fingerprint,
        /// Session of the link.
        session: u64,
        /// Where.
        candidate: Candidate,
    },
    /// The other end has no more candidates. Tag 6.
    EndOfCandidates {
        /// Whose.
        peer: Fingerprint,
        /// Session of the link.
        session: u64,
    },
    /// Forget the link and its routes. Tag 7.
    CloseLink {
        /// To whom.
        peer: Fingerprint,
    },
    /// Send packets for this overlay network to this peer. Replaces an equal route. Tag 8.
    AddRoute {
        /// Next hop.
        peer: Fingerprint,
        /// Network address.
        address: IpAddr,
        /// Prefix length, bits.
        prefix: u8,
    },
    /// Forget the route. Tag 9.
    RemoveRoute {
        /// Network address.
        address: IpAddr,
        /// Prefix length, bits.
        prefix: u8,
    },
    /// Say again all that holds: [`Ready`](crate::Event::Ready), each local candidate, whether
    /// gathering is done, the state of each link; then [`Done`](crate::Event::Done). A new
    /// controller sends this first. Tag 10.
    Snapshot,
    /// Tell the controller of this peer something, under the link's keys. It may be lost. Tag 20.
    Say {
        /// To whom.
        peer: Fingerprint,
        /// What, at most [`WORDS_LEN_MAX`] bytes.
        words: Vec<u8>,
    },
}

coded_enum! {
    /// What carries the messages between a node and a TURN server (RFC 8656, section 2.1).
    pub enum TurnTransport {
        /// Datagrams.
        Udp = 1,
        /// A plain TCP connection.
        Tcp = 2,
        /// TLS over TCP.
        Tls = 3,
    }
}

/// A TURN server with long-term credentials (RFC 8489, section 9.2).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TurnServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// How to talk to it.
    pub transport: TurnTransport,
    /// Its name or address as it was written, which a certificate has to be for; at most
    /// [`SERVER_NAME_LEN_MAX`] bytes.
    pub name: String,
    /// At most [`TURN_USERNAME_LEN_MAX`] bytes.
    pub username: String,
    /// At most [`TURN_PASSWORD_LEN_MAX`] bytes.
    pub password: String,
}

impl Request {
    /// Appends the record to `out`. On an error `out` is as it was.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut to = Writer::new(out);
        to.u64(self.sequence);
        self.command.put(&mut to);
        to.finish()
    }

    /// Reads the record back.
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(record);
        let request = Self { sequence: from.u64()?, command: Command::take(&mut from)? };
        from.finish()?;
        Ok(request)
    }

    /// The number of a record whose command may be unreadable, so that it can still be refused.
    pub fn sequence_of(record: &[u8]) -> Option<u64> {
        Reader::new(record).u64().ok()
    }
}

impl Command {
    fn put(&self, to: &mut Writer<'_>) {
        match self {
            Self::ConfigureInterface { addresses, mtu } => {
                to.u8(1);
                to.list(
                    "addresses",
                    addresses,
                    INTERFACE_ADDRESSES_MAX,
                    |to, (address, prefix)| {
                        to.network(address, *prefix);
                    },
                );
                to.u16(*mtu);
            }
            Self::SetIceServers { stun, turn, ca_file } => {
                to.u8(2);
                to.list("stun", stun, STUN_SERVERS_MAX, |to, server| to.socket_address(server));
                to.list("turn", turn, TURN_SERVERS_MAX, |to, server| server.put(to));
                to.text("ca_file", ca_file, CA_FILE_LEN_MAX);
            }
            Self::OpenLink { peer, name, controlling, head_start_ms, session, local, remote } => {
                to.u8(3);
                peer.put(to);
                to.text("name", name, NAME_LEN_MAX);
                to.bool(*controlling);
                to.u16(*head_start_ms);
                to.u64(*session);
                local.put(to);
                to.option(remote.as_ref(), |to, remote| remote.put(to));
            }
            Self::SetRemote { peer, session, credentials } => {
                put_for_session(to, 4, peer, *session);
                credentials.put(to);
            }
            Self::AddRemoteCandidate { peer, session, candidate } => {
                put_for_session(to, 5, peer, *session);
                candidate.put(to);
            }
            Self::EndOfCandidates { peer, session } => put_for_session(to, 6, peer, *session),
            Self::CloseLink { peer } => {
                to.u8(7);
                peer.put(to);
            }
            Self::AddRoute { peer, address, prefix } => {
                to.u8(8);
                peer.put(to);
                to.network(address, *prefix);
            }
            Self::RemoveRoute { address, prefix } => {
                to.u8(9);
                to.network(address, *prefix);
            }
            Self::Snapshot => to.u8(10),
            Self::Say { peer, words } => {
                to.u8(20);
                peer.put(to);
                to.blob("words", words, WORDS_LEN_MAX);
            }
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::ConfigureInterface {
                addresses: from.list(INTERFACE_ADDRESSES_MAX, Reader::network)?,
                mtu: from.u16()?,
            },
            2 => Self::SetIceServers {
                stun: from.list(STUN_SERVERS_MAX, Reader::socket_address)?,
                turn: from.list(TURN_SERVERS_MAX, TurnServer::take)?,
                ca_file: from.text(CA_FILE_LEN_MAX)?,
            },
            3 => Self::OpenLink {
                peer: Fingerprint::take(from)?,
                name: from.text(NAME_LEN_MAX)?,
                controlling: from.bool()?,
                head_start_ms: from.u16()?,
                session: from.u64()?,
                local: IceCredentials::take(from)?,
                remote: from.option(IceCredentials::take)?,
            },
            4 => Self::SetRemote {
                peer: Fingerprint::take(from)?,
                session: from.u64()?,
                credentials: IceCredentials::take(from)?,
            },
            5 => Self::AddRemoteCandidate {
                peer: Fingerprint::take(from)?,
                session: from.u64()?,
                candidate: Candidate::take(from)?,
            },
            6 => Self::EndOfCandidates { peer: Fingerprint::take(from)?, session: from.u64()? },
            7 => Self::CloseLink { peer: Fingerprint::take(from)? },
            8 => {
                let peer = Fingerprint::take(from)?;
                let (address, prefix) = from.network()?;
                Self::AddRoute { peer, address, prefix }
            }
            9 => {
                let (address, prefix) = from.network()?;
                Self::RemoveRoute { address, prefix }
            }
            10 => Self::Snapshot,
            20 => Self::Say { peer: Fingerprint::take(from)?, words: from.blob(WORDS_LEN_MAX)? },
            code => return Err(DecodeError::UnknownCode { what: "command", code }),
        })
    }
}

fn put_for_session(to: &mut Writer<'_>, tag: u8, peer: &Fingerprint, session: u64) {
    to.u8(tag);
    peer.put(to);
    to.u64(session);
}

impl TurnServer {
    fn put(&self, to: &mut Writer<'_>) {
        to.socket_address(&self.address);
        self.transport.put(to);
        to.text("server name", &self.name, SERVER_NAME_LEN_MAX);
        to.text("username", &self.username, TURN_USERNAME_LEN_MAX);
        to.text("password", &self.password, TURN_PASSWORD_LEN_MAX);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            address: from.socket_address()?,
            transport: TurnTransport::take(from)?,
            name: from.text(SERVER_NAME_LEN_MAX)?,
            username: from.text(TURN_USERNAME_LEN_MAX)?,
            password: from.text(TURN_PASSWORD_LEN_MAX)?,
        })
    }
}

impl fmt::Debug for TurnServer {
    /// Leaves the password out: it must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnServer")
            .field("address", &self.address)
            .field("transport", &self.transport)
            .field("name", &self.name)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
