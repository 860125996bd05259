//! The policy of a cluster: all members of a room linked all-to-all.

mod carried;
mod events;
mod invited;
mod members;
mod recall;
mod sessions;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_signal::{
    Action, Announcement, Fingerprint, Happening, IceCredentials, OverlayAddress, PeerAddress,
};
use ipop_steer::{Candidate, Command, Event, TurnServer};

use crate::address::AddressPlan;
use crate::convert::to_steer;
use crate::memory::Memory;
use crate::peer::Peer;
use crate::random::Pool;
use crate::routes::Routes;

/// Random bytes that the pool is to hold, enough for some fifty sessions in one turn.
const RANDOM_LEN: usize = 4096;

/// What a node brings into its group.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// The node's name, for people.
    pub name: String,
    /// Where its overlay addresses come from.
    pub plan: AddressPlan,
    /// Largest packet of the overlay interface, bytes; 0 lets the datapath choose.
    pub mtu: u16,
    /// File with the roots for TURN servers over TLS; empty for the system's.
    pub ca_file: String,
}

/// What the policy hears.
#[derive(Clone, Debug)]
pub enum Input {
    /// From the datapath.
    Event(Event),
    /// From the signalling network.
    Happening(Happening),
    /// All STUN and TURN servers, names resolved, the most wanted first; replaces the ones before.
    Servers {
        /// STUN servers.
        stun: Vec<SocketAddr>,
        /// TURN servers.
        turn: Vec<TurnServer>,
    },
}

/// What the policy wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// For the datapath.
    Command(Command),
    /// For the signalling network.
    Action(Action),
    /// For people.
    Notice(Notice),
}

/// What people should know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// The node has these addresses now.
    #[error("overlay addresses: {}", list(.0))]
    Addresses(Vec<OverlayAddress>),
    /// The configured address belongs to somebody else by the group's rule.
    #[error(
        "overlay address {} is configured here and at `{by}`, which keeps it: \
         give this node another address", .address.address
    )]
    AddressTaken {
        /// The address.
        address: OverlayAddress,
        /// The member that keeps it.
        by: String,
    },
    /// A link came up.
    #[error("link to {name} is up, {path}")]
    LinkUp {
        /// The peer's name.
        name: String,
        /// The path, for people.
        path: String,
    },
    /// A link is gone or could not be made.
    #[error("link to {name} is down: {reason}")]
    LinkDown {
        /// The peer's name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A STUN or TURN server is of no use.
    #[error("STUN/TURN server {address}: {text}")]
    ServerFailed {
        /// The server.
        address: SocketAddr,
        /// Why.
        text: String,
    },
    /// A member claims to be this very node.
    #[error("`{0}` announces this node's own key: is the key file in use on another machine?")]
    Impostor(String),
}

fn list(addresses: &[OverlayAddress]) -> String {
    let texts = addresses.iter().map(|a| format!("{}/{}", a.address, a.prefix));
    texts.collect::<Vec<_>>().join(", ")
}

/// This node, once the datapath has said who it is.
#[derive(Debug)]
struct Own {
    fingerprint: Fingerprint,
    addresses: Vec<OverlayAddress>,
    /// Of its invitation; none where there were no random bytes.
    invitation: Option<IceCredentials>,
}

/// The GroupVPN policy.
#[derive(Debug)]
pub struct GroupVpn {
    config: GroupConfig,
    own: Option<Own>,
    /// How long a round trip to the signalling network's server takes.
    server_rtt: Duration,
    /// Where this node is in the room, while it is.
    own_address: Option<PeerAddress>,
    candidates: Vec<Candidate>,
    /// Those of them that were announced last.
    announced: Vec<Candidate>,
    gathered: bool,
    /// Who is behind each address of the room.
    members: HashMap<PeerAddress, Fingerprint>,
    peers: BTreeMap<Fingerprint, Peer>,
    routes: Routes,
    /// Configured addresses that somebody else keeps, and who.
    lost: Vec<(OverlayAddress, String)>,
    random: Pool,
    /// Members that were linked, for when there is no signalling.
    memory: Memory,
    recall: recall::Recall,
    outputs: VecDeque<Output>,
}

impl GroupVpn {
    /// A policy that has asked the datapath for all it knows, and nothing else yet.
    pub fn new(config: GroupConfig) -> Self {
        let mut policy = Self {
            config,
            own: None,
            server_rtt: Duration::ZERO,
            own_address: None,
            candidates: Vec::new(),
            announced: Vec::new(),
            gathered: false,
            members: HashMap::new(),
            peers: BTreeMap::new(),
            routes: Routes::default(),
            lost: Vec::new(),
            random: Pool::default(),
            memory: Memory::default(),
            recall: recall::Recall::default(),
            outputs: VecDeque::new(),
        };
        policy.command(Command::Snapshot);
        policy
    }

    /// How many random bytes [`GroupVpn::refill`] should bring before the next input.
    pub fn random_len_wanted(&self) -> usize {
        RANDOM_LEN.saturating_sub(self.random.len())
    }

    /// Takes unguessable bytes: session ids and ICE passwords are made of them.
    pub fn refill(&mut self, bytes: &[u8]) {
        self.random.refill(bytes);
    }

    /// Hears one thing.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Event(event) => self.on_event(now, event),
            Input::Happening(happening) => self.on_happening(now, happening),
            Input::Servers { stun, turn } => self.use_servers(stun, turn),
        }
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |peer: &&Peer| peer.timeout().is_some_and(|at| at <= now);
        let due: Vec<_> = self.peers.values().filter(due).map(|peer| peer.fingerprint).collect();
        for fingerprint in due {
            self.on_peer_timeout(now, fingerprint);
        }
    }

    /// When [`GroupVpn::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter_map(Peer::timeout).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Says goodbye to all peers: what a node does that is stopped on purpose.
    pub fn leave(&mut self) {
        let peers = std::mem::take(&mut self.peers);
        for peer in peers.into_values() {
            if let Some(session) = peer.session {
                self.action(Action::Bye {
                    to: session.address,
                    session: session.id,
                    reason: ipop_signal::ByeReason::Gone,
                });
            }
            self.command(Command::CloseLink { peer: to_steer(&peer.fingerprint) });
        }
    }

    fn use_servers(&mut self, mut stun: Vec<SocketAddr>, mut turn: Vec<TurnServer>) {
        stun.truncate(ipop_steer::limits::STUN_SERVERS_MAX);
        turn.truncate(ipop_steer::limits::TURN_SERVERS_MAX);
        let ca_file = self.config.ca_file.clone();
        self.command(Command::SetIceServers { stun, turn, ca_file });
    }

    fn announce(&mut self) {
        let Some(own) = &self.own else { return };
        let announcement = Announcement {
            fingerprint: own.fingerprint,
            name: self.config.name.clone(),
            addresses: own.addresses.clone(),
            invitation: self.invitation(),
        };
        self.announced = self.candidates.clone();
        self.action(Action::Announce(announcement));
    }

    /// Gives the interface this node's addresses, and tells people.
    fn configure(&mut self) {
        let Some(own) = &self.own else { return };
        let addresses = own.addresses.clone();
        let pairs = addresses.iter().map(|a| (a.address, a.prefix)).collect();
        self.command(Command::ConfigureInterface { addresses: pairs, mtu: self.config.mtu });
        self.notice(Notice::Addresses(addresses));
    }

    fn command(&mut self, command: Command) {
        self.outputs.push_back(Output::Command(command));
    }

    fn action(&mut self, action: Action) {
        self.outputs.push_back(Output::Action(action));
    }

    fn notice(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notice(notice));
    }
}
