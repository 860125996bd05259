//! What goes in and out of a [`Node`](crate::Node): plain data.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_crypto::{Cipher, Fingerprint, Opener, Sealer};
use ipop_ice::{Candidate, CandidateKind, Choice, Outcome};
use ipop_wire::LinkIndex;
use thiserror::Error;

use crate::trace::Trace;

/// The plaintext of a control datagram that a worker opened.
#[derive(Clone, Copy, Debug)]
pub struct ControlInput<'a> {
    /// Our index of the session whose keys opened it.
    pub index: LinkIndex,
    /// The lane whose keys opened it.
    pub lane: u8,
    /// Our end: the socket's address that it was sent to, if that is known.
    pub local: Option<SocketAddr>,
    /// The sender: the peer, or our relay where there is a channel.
    pub remote: SocketAddr,
    /// The relay's channel that it came through.
    pub channel: Option<u16>,
    /// The plaintext.
    pub data: &'a [u8],
}

/// A datagram on one of the node's sockets, STUN, ChannelData or handshake.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Our end: the address it was sent to, with the socket's port. Never a wildcard.
    pub local: SocketAddr,
    /// The other end, IPv4 never mapped into IPv6.
    pub remote: SocketAddr,
    /// All of it.
    pub data: &'a [u8],
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram from one of the node's sockets. What goes through a relay is wrapped
    /// already.
    Transmit {
        /// The source: address and port of the socket, which may be a lane's or an opened one.
        local: SocketAddr,
        /// The destination.
        remote: SocketAddr,
        /// The whole datagram.
        data: Vec<u8>,
    },
    /// As `Transmit`, with [`ipop_ice::KNOCK_HOP_LIMIT`] as the datagram's hop limit.
    Knock {
        /// The source: address and port of the socket.
        local: SocketAddr,
        /// The destination.
        remote: SocketAddr,
        /// The whole datagram.
        data: Vec<u8>,
    },
    /// Send a datagram from a new socket at this address, with any free port. What comes to it is
    /// input with that port; what is to leave from there names it. The socket is needed until
    /// [`Output::CloseIdle`], and as long as [`Node::uses_local`](crate::Node::uses_local) says so.
    Open {
        /// Address of a socket of the node, whose IP address is to be taken.
        base: SocketAddr,
        /// The destination.
        remote: SocketAddr,
        /// The whole datagram.
        data: Vec<u8>,
    },
    /// Close what was opened and is not used.
    CloseIdle,
    /// A worker shall open datagrams with this receiver index, and seal with these keys.
    InstallLane(Box<InstallLane>),
    /// The path of one lane of a session; `None`: there is none at the moment.
    SetPath {
        /// Our index of the session.
        index: LinkIndex,
        /// Which lane.
        lane: u8,
        /// Where to send from now on.
        path: Option<Path>,
    },
    /// Frames for this peer are to be sealed with this session from now on. Comes when the keys
    /// are confirmed in both directions, and before that where no other session carries frames; a
    /// session before it still opens what is under way.
    Activate {
        /// Whose frames.
        peer: Fingerprint,
        /// Our index of the session.
        index: LinkIndex,
    },
    /// Seal this as a control datagram on lane 0 of the session and send it on its path.
    SendControl {
        /// Our index of the session.
        index: LinkIndex,
        /// The plaintext.
        data: Vec<u8>,
    },
    /// The same on another lane, and between these ends, whatever the lane's path is.
    SendOnLane {
        /// Our index of the session.
        index: LinkIndex,
        /// Which lane: whose keys.
        lane: u8,
        /// The source: address and port of the lane's socket.
        local: SocketAddr,
        /// The destination.
        remote: SocketAddr,
        /// The channel to put it in, where that is our TURN server.
        channel: Option<u16>,
        /// The plaintext.
        data: Vec<u8>,
    },
    /// The same, to find out what the path carries: the datagram is to leave whole, and what the
    /// interface refuses for its length is told by
    /// [`Node::handle_too_big`](crate::Node::handle_too_big), and is no failure.
    SendProbe {
        /// Our index of the session.
        index: LinkIndex,
        /// The plaintext.
        data: Vec<u8>,
    },
    /// Forget all lanes of a session.
    RemoveSession {
        /// Our index of the session.
        index: LinkIndex,
    },
    /// A bridge to a TURN server shall have a connection;
    /// [`Node::stream_connected`](crate::Node::stream_connected) or
    /// [`Node::stream_lost`](crate::Node::stream_lost) answers.
    ConnectServer {
        /// Which bridge, see [`TurnWay::Stream`](crate::TurnWay::Stream).
        bridge: SocketAddr,
        /// The server to connect to, over what leads elsewhere now.
        to: SocketAddr,
    },
    /// Something to tell the controller.
    Event(Event),
    /// A step of a link's life, for whoever asks why it is as it is. Comes in the order in which
    /// the steps were taken.
    Trace {
        /// Whose link.
        peer: Fingerprint,
        /// The controller's number of the session.
        session: u64,
        /// The step.
        trace: Trace,
    },
}

/// One lane of one session, ready for its worker.
#[derive(Debug)]
pub struct InstallLane {
    /// Whom the session is with.
    pub peer: Fingerprint,
    /// Our index: what is in the header of datagrams to us.
    pub index: LinkIndex,
    /// The peer's index: what to write into the header of datagrams to the peer.
    pub peer_index: LinkIndex,
    /// Lane number, from 0.
    pub lane: u8,
    /// Seals what goes to the peer.
    pub sealer: Sealer,
    /// Opens what comes from the peer.
    pub opener: Opener,
    /// Where to send; `None` until a `SetPath`.
    pub path: Option<Path>,
    /// MTU of the peer's tap in bytes.
    pub peer_mtu: u16,
}

/// Where a worker sends a link's datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The source: address and port of the socket, which may be an opened one.
    pub local: SocketAddr,
    /// The UDP destination: the peer, or our TURN server.
    pub remote: SocketAddr,
    /// With our TURN server: the channel number that goes in front of each datagram, as a
    /// ChannelData header of four bytes (RFC 8656 section 12.4).
    pub channel: Option<u16>,
    /// Straight or relayed, at either end.
    pub kind: PathKind,
    /// Longest datagram that is known to pass, the ChannelData header included: bytes of UDP
    /// payload. Found by probes, so another one follows a new path after a round trip.
    pub datagram_len: u16,
    /// Whether that is all that the path carries: no search for more is under way.
    pub is_len_settled: bool,
    /// Whether it loses so much that what is sparse had better be sent more than once.
    pub is_lossy: bool,
}

/// Whether packets go straight to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathKind {
    /// From host to host, perhaps through NATs.
    Direct,
    /// Through a TURN server at either end.
    Relayed,
}

/// What a link can do. The same states as the controller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// Nothing yet: the other end's credentials are missing.
    Idle,
    /// Looking for a path.
    Checking,
    /// A path is there, confirmed keys are not.
    Handshaking,
    /// Carries frames.
    Up,
    /// The path went silent; looking for another one with the keys kept.
    Disconnected,
    /// Given up: only a new session helps.
    Failed,
}

/// Something to tell the controller.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The node may be reached at one more address; it goes into every session.
    LocalCandidate(Candidate),
    /// Every server has answered, failed, or had its time. Candidates may still follow.
    GatheringDone,
    /// A STUN or TURN server is of no use at the moment, and why.
    ServerFailed {
        /// Which.
        address: SocketAddr,
        /// Why, for a person.
        text: String,
    },
    /// A link's state, path or reason is another one.
    Link(LinkStatus),
    /// A peer's controller says something to ours.
    Words {
        /// Whose; proven by the session's keys.
        peer: Fingerprint,
        /// What, at most [`WORDS_LEN_MAX`](crate::WORDS_LEN_MAX) bytes, for the controller to
        /// judge.
        words: Vec<u8>,
    },
}

/// What there is to know about a link.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkStatus {
    /// Whom it is with.
    pub peer: Fingerprint,
    /// The controller's number of the session.
    pub session: u64,
    /// What it can do.
    pub state: LinkState,
    /// The pair of candidates in use.
    pub path: Option<PathStatus>,
    /// For a person: why it failed, or why it cannot be direct. Empty otherwise.
    pub reason: String,
    /// The session that carries frames.
    pub keys: Option<KeysStatus>,
    /// Round-trip time: of pings once the link is up, of checks before.
    pub rtt: Option<Duration>,
    /// Longest datagram that the path is known to carry, bytes of UDP payload.
    pub datagram_len: Option<u16>,
    /// Whether that is all that the path carries: no search for more is under way.
    pub is_len_settled: bool,
    /// Whether the path loses so much that what is sparse is sent more than once.
    pub is_lossy: bool,
    /// Our relay, if the path goes through one of ours and it is ready.
    pub relay: Option<Relay>,
    /// Why this path.
    pub choice: Option<Choice>,
    /// What became of all pairs of candidates.
    pub outcomes: Vec<Outcome>,
}

/// What a path through a relay of ours looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The TURN server.
    pub server: SocketAddr,
    /// The channel that the datagrams to and from the peer are in.
    pub channel: u16,
}

/// A path in terms of candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathStatus {
    /// Straight or relayed.
    pub kind: PathKind,
    /// Our end: the address of the socket, or the relayed address.
    pub local: SocketAddr,
    /// How the local candidate was learned.
    pub local_kind: CandidateKind,
    /// The other end, as we address it.
    pub remote: SocketAddr,
    /// How the remote candidate was learned.
    pub remote_kind: CandidateKind,
}

/// The keys in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysStatus {
    /// Our index of the session.
    pub index: LinkIndex,
    /// The cipher of its lanes.
    pub cipher: Cipher,
    /// Lanes that carry frames, the first included.
    pub lanes: u8,
    /// When the handshake was complete.
    pub established: Instant,
}

/// What a session carried of late, in the last half second or so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Data went out.
    pub is_sending: bool,
    /// Data came in.
    pub is_receiving: bool,
    /// Bytes that went out and came in since this was said last.
    pub bytes: u64,
    /// When an authentic datagram of any kind came last.
    pub heard: Option<Instant>,
}

/// Why a datagram was not taken. Nothing was answered; count and drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Refused {
    /// From somebody with whom there is no session, or from where no check was authenticated.
    #[error("from a stranger")]
    Stranger,
    /// Not what it claims to be by its first byte.
    #[error("malformed")]
    Malformed,
    /// An answer to nothing that was asked, or of a session that is over.
    #[error("not expected, or too late")]
    Unexpected,
    /// It lacks the proof of the session's secrets.
    #[error("not authentic")]
    Forged,
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// There is no link to that peer.
    #[error("there is no link to that peer")]
    UnknownLink,
    /// The link has another session by now.
    #[error("the link has another session")]
    StaleSession,
    /// The node has as many links as it can hold.
    #[error("too many links")]
    TooManyLinks,
    /// Words are too long, or there are no keys to say them under.
    #[error("nothing can be said on that link now")]
    CannotSay,
    /// Another session has the same ICE user name fragment.
    #[error("the ICE user name fragment is in use")]
    UfragInUse,
    /// An address that nothing can be sent to.
    #[error("the candidate's address cannot be used")]
    UselessCandidate,
}
