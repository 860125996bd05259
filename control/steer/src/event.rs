//! What the datapath tells a controller.

use std::net::{IpAddr, SocketAddr};

use crate::codec::{DecodeError, EncodeError, Reader, Writer, coded_enum};
use crate::limits::{NAME_LEN_MAX, TEXT_LEN_MAX, WORDS_LEN_MAX};
use crate::{Candidate, Fingerprint};

/// Something the datapath says: the record that travels from datapath to controller.
///
/// Layout: tag `u8`, fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The datapath carries frames from now on. Tag 1.
    Ready {
        /// Identity of this node.
        fingerprint: Fingerprint,
        /// Address of the overlay interface.
        mac: [u8; 6],
        /// Name of the overlay interface, at most [`NAME_LEN_MAX`] bytes.
        interface: String,
    },
    /// This node may be reached here, by any peer. Tag 2.
    LocalCandidate {
        /// Where.
        candidate: Candidate,
    },
    /// All servers have answered or failed: no more local candidates for now. Tag 3.
    GatheringDone,
    /// A STUN or TURN server is of no use. Tag 4.
    IceServerFailed {
        /// Which server.
        address: SocketAddr,
        /// Why, for people.
        text: String,
    },
    /// A link has changed. Tag 5.
    LinkState {
        /// To whom.
        peer: Fingerprint,
        /// Session that the state is about.
        session: u64,
        /// What the link can do now.
        state: LinkState,
        /// The path in use, if one is.
        path: Option<PathInfo>,
        /// Why, for people; empty if there is nothing to explain.
        reason: String,
    },
    /// A packet was for an overlay address that no route covers. Said once per address and while,
    /// not once per packet. Tag 6.
    NoRoute {
        /// Where the packet was bound.
        address: IpAddr,
    },
    /// The request was carried out. Tag 7.
    Done {
        /// Number of the request.
        sequence: u64,
    },
    /// The request was not carried out. Tag 8.
    Refused {
        /// Number of the request.
        sequence: u64,
        /// For programs.
        reason: RefusalReason,
        /// For people.
        text: String,
    },
    /// So many events were dropped because the ring was full: what the controller believes may be
    /// stale until it asks for a [`Snapshot`](crate::Command::Snapshot). Tag 9.
    Lost {
        /// Events since the last that was delivered.
        count: u64,
    },
    /// This machine has other addresses or routes than before. Said every two seconds at most.
    /// Tag 10.
    NetworkMoved,
    /// The controller of a peer says something. Tag 20.
    Said {
        /// Whose: the link's keys prove it.
        peer: Fingerprint,
        /// What, at most [`WORDS_LEN_MAX`] bytes; nobody has read it yet.
        words: Vec<u8>,
    },
}

coded_enum! {
    /// What a link can do.
    pub enum LinkState {
        /// Nothing yet: the other end's credentials or candidates are missing.
        Idle = 0,
        /// Looking for a path.
        Checking = 1,
        /// A path is there, keys are not.
        Handshaking = 2,
        /// Carries frames.
        Up = 3,
        /// The path went silent; looking for another one with the keys kept.
        Disconnected = 4,
        /// Given up: only a new session helps.
        Failed = 5,
    }
}

coded_enum! {
    /// Whether packets go straight to the peer.
    pub enum PathKind {
        /// From host to host, perhaps through NATs.
        Direct = 1,
        /// Through a TURN server at either end.
        Relayed = 2,
    }
}

/// The path that a link uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PathInfo {
    /// Straight or through a relay.
    pub kind: PathKind,
    /// This end: the address of the socket, or the relayed address.
    pub local: SocketAddr,
    /// The other end, as this end addresses it.
    pub remote: SocketAddr,
    /// Round-trip time of the checks, microseconds.
    pub rtt_us: u32,
}

coded_enum! {
    /// Why a request was not carried out.
    pub enum RefusalReason {
        /// The record could not be read: the controller's fault, or its age.
        Malformed = 1,
        /// There is no link to that peer.
        UnknownLink = 2,
        /// The link has another session: the request came too late.
        StaleSession = 3,
        /// There is no such route.
        UnknownRoute = 4,
        /// An address, prefix or MTU that cannot be used.
        InvalidArgument = 5,
        /// The table is full: close links or remove routes first.
        TableFull = 6,
        /// The kernel refused to configure the interface.
        InterfaceFailed = 7,
        /// The link to oneself was asked for.
        OwnIdentity = 8,
        /// The datapath is busy with too many requests: try later.
        Busy = 9,
        /// This datapath cannot do that.
        Unsupported = 10,
    }
}

impl Event {
    /// Appends the record to `out`. On an error `out` is as it was.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut to = Writer::new(out);
        self.put(&mut to);
        to.finish()
    }

    /// Reads the record back.
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(record);
        let event = Self::take(&mut from)?;
        from.finish()?;
        Ok(event)
    }

    fn put(&self, to: &mut Writer<'_>) {
        match self {
            Self::Ready { fingerprint, mac, interface } => {
                to.u8(1);
                fingerprint.put(to);
                to.bytes(mac);
                to.text("interface", interface, NAME_LEN_MAX);
            }
            Self::LocalCandidate { candidate } => {
                to.u8(2);
                candidate.put(to);
            }
            Self::GatheringDone => to.u8(3),
            Self::IceServerFailed { address, text } => {
                to.u8(4);
                to.socket_address(address);
                to.cut_text(text, TEXT_LEN_MAX);
            }
            Self::LinkState { peer, session, state, path, reason } => {
                to.u8(5);
                peer.put(to);
                to.u64(*session);
                state.put(to);
                to.option(path.as_ref(), |to, path| path.put(to));
                to.cut_text(reason, TEXT_LEN_MAX);
            }
            Self::NoRoute { address } => {
                to.u8(6);
                to.ip_address(address);
            }
            Self::Done { sequence } => {
                to.u8(7);
                to.u64(*sequence);
            }
            Self::Refused { sequence, reason, text } => {
                to.u8(8);
                to.u64(*sequence);
                reason.put(to);
                to.cut_text(text, TEXT_LEN_MAX);
            }
            Self::Lost { count } => {
                to.u8(9);
                to.u64(*count);
            }
            Self::NetworkMoved => to.u8(10),
            Self::Said { peer, words } => {
                to.u8(20);
                peer.put(to);
                to.blob("words", words, WORDS_LEN_MAX);
            }
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Ready {
                fingerprint: Fingerprint::take(from)?,
                mac: from.array()?,
                interface: from.text(NAME_LEN_MAX)?,
            },
            2 => Self::LocalCandidate { candidate: Candidate::take(from)? },
            3 => Self::GatheringDone,
            4 => Self::IceServerFailed {
                address: from.socket_address()?,
                text: from.text(TEXT_LEN_MAX)?,
            },
            5 => Self::LinkState {
                peer: Fingerprint::take(from)?,
                session: from.u64()?,
                state: LinkState::take(from)?,
                path: from.option(PathInfo::take)?,
                reason: from.text(TEXT_LEN_MAX)?,
            },
            6 => Self::NoRoute { address: from.ip_address()? },
            7 => Self::Done { sequence: from.u64()? },
            8 => Self::Refused {
                sequence: from.u64()?,
                reason: RefusalReason::take(from)?,
                text: from.text(TEXT_LEN_MAX)?,
            },
            9 => Self::Lost { count: from.u64()? },
            10 => Self::NetworkMoved,
            20 => Self::Said { peer: Fingerprint::take(from)?, words: from.blob(WORDS_LEN_MAX)? },
            code => return Err(DecodeError::UnknownCode { what: "event", code }),
        })
    }
}

impl PathInfo {
    fn put(&self, to: &mut Writer<'_>) {
        self.kind.put(to);
        to.socket_address(&self.local);
        to.socket_address(&self.remote);
        to.u32(self.rtt_us);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: PathKind::take(from)?,
            local: from.socket_address()?,
            remote: from.socket_address()?,
            rtt_us: from.u32()?,
        })
    }
}
