//! What an instance's segment shows at one moment, in words for people and programs.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use ipop_shm::Observer;
use ipop_steer::{CandidateKind, Cipher, Counter, DropReason, LinkRow, LinkState, PathKind};
use serde::Serialize;

use crate::failure::Failure;
use crate::instance::RunDir;
use crate::why::{self, Tried, kind_name};

/// An instance as its segment shows it.
#[derive(Debug, Serialize)]
pub struct Snapshot {
    /// The instance's name.
    pub name: String,
    /// Whether its datapath lives.
    pub datapath_alive: bool,
    /// Whether its controller lives.
    pub controller_alive: bool,
    /// What the datapath says of itself: interface, MTU, fingerprint, features.
    pub datapath: BTreeMap<String, String>,
    /// What the controller says of itself: signalling, addresses.
    pub controller: BTreeMap<String, String>,
    /// All links.
    pub links: Vec<Link>,
    /// Totals that are not 0.
    pub counters: BTreeMap<&'static str, u64>,
    /// Drops by reason, those that are not 0.
    pub drops: BTreeMap<&'static str, u64>,
    /// Different errors, the latest first.
    pub errors: Vec<LoggedError>,
}

/// A link to one peer.
#[derive(Clone, Debug, Serialize)]
pub struct Link {
    /// The peer's name.
    pub name: String,
    /// The peer's fingerprint.
    pub fingerprint: String,
    /// `up`, `checking`, ...
    pub state: &'static str,
    /// `direct` or `relayed`.
    pub path: Option<String>,
    /// This end of the path, and how it was learned.
    pub local: Option<String>,
    /// The other end of the path, and how it was learned.
    pub remote: Option<String>,
    /// Round trip, microseconds.
    pub rtt_us: Option<u32>,
    /// Longest datagram that the path is known to carry, bytes of UDP payload.
    pub datagram_len: Option<u16>,
    /// Whether the path loses so much that what is sparse is sent more than once.
    pub lossy: bool,
    /// What seals the packets.
    pub cipher: Option<&'static str>,
    /// Lanes that carry packets.
    pub lanes: u8,
    /// Overlay addresses of the peer.
    pub addresses: Vec<IpAddr>,
    /// Seconds since the last handshake.
    pub handshake_age_s: Option<f64>,
    /// Seconds since the peer was last heard.
    pub heard_age_s: Option<f64>,
    /// Bytes of datagrams from the peer.
    pub bytes_in: u64,
    /// Bytes of datagrams to the peer.
    pub bytes_out: u64,
    /// Datagrams from the peer.
    pub packets_in: u64,
    /// Datagrams to the peer.
    pub packets_out: u64,
    /// Packets of this link that were dropped.
    pub drops: u64,
    /// Why the link is in its state.
    pub reason: String,
    /// Why this path.
    pub why: Option<String>,
    /// Seconds since this path was taken.
    pub path_age_s: Option<f64>,
    /// Our TURN server, where the path goes through one.
    pub relay: Option<SocketAddr>,
    /// The channel that the peer's datagrams come in there.
    pub relay_channel: Option<u16>,
    /// What became of all pairs of addresses, the best kinds first.
    pub tried: Vec<Tried>,
}

/// An error that happened once or more.
#[derive(Debug, Serialize)]
pub struct LoggedError {
    /// `datapath` or `controller`.
    pub side: &'static str,
    /// What it was.
    pub text: String,
    /// How often.
    pub count: u64,
    /// Seconds since it happened last.
    pub age_s: f64,
}

impl Snapshot {
    /// Looks at the instance `name`.
    ///
    /// # Errors
    /// When it does not run, or its segment cannot be read.
    pub fn read(name: &str) -> Result<Self, Failure> {
        Self::of(&RunDir::of(name)?)
    }

    /// Looks at the instance of a run directory.
    ///
    /// # Errors
    /// When its segment is not there or cannot be read.
    pub fn of(run_dir: &RunDir) -> Result<Self, Failure> {
        let observer = run_dir.observe()?;
        Ok(Self::from_observer(run_dir.name(), &observer))
    }

    fn from_observer(name: String, observer: &Observer) -> Self {
        let now_ms = unix_ms();
        let totals = observer.counters.totals();
        let value = |slot: usize| totals.get(slot).copied().unwrap_or(0);
        let named = |list: Vec<(&'static str, usize)>| {
            let values = list.into_iter().map(|(name, slot)| (name, value(slot)));
            values.filter(|(_, value)| *value > 0).collect::<BTreeMap<_, _>>()
        };
        let alive = |watch: &ipop_shm::Watch| watch.presence().is_ok_and(|p| p.alive);
        Self {
            name,
            datapath_alive: alive(&observer.datapath),
            controller_alive: alive(&observer.controller),
            datapath: note(&observer.datapath_note),
            controller: note(&observer.controller_note),
            links: links(&observer.links, now_ms),
            counters: named(Counter::ALL.iter().map(|c| (c.name(), c.slot())).collect()),
            drops: named(DropReason::ALL.iter().map(|d| (d.name(), d.slot())).collect()),
            errors: errors(observer, now_ms),
        }
    }

    /// The link to a peer: by name, by overlay address, or by the first digits of its fingerprint.
    pub fn link_to(&self, peer: &str) -> Option<Link> {
        let address: Option<IpAddr> = peer.parse().ok();
        let is_meant = |link: &&Link| {
            link.name == peer
                || address.is_some_and(|address| link.addresses.contains(&address))
                || (peer.len() >= 4 && link.fingerprint.starts_with(&peer.to_ascii_lowercase()))
        };
        self.links.iter().find(is_meant).cloned()
    }

    /// Links that are up.
    pub fn up(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| link.is_up())
    }
}

impl Link {
    /// Whether it carries packets.
    pub fn is_up(&self) -> bool {
        self.state == "up"
    }

    /// The peer's end of a direct path.
    pub fn direct_remote(&self) -> Option<SocketAddr> {
        self.remote_end().filter(|_| self.path.as_deref() == Some("direct"))
    }

    /// The peer's end of the path.
    pub fn remote_end(&self) -> Option<SocketAddr> {
        self.remote.as_deref()?.split_whitespace().next()?.parse().ok()
    }

    fn new(row: LinkRow, now_ms: u64) -> Self {
        let age = |ms: u64| (ms > 0).then(|| now_ms.saturating_sub(ms) as f64 / 1e3);
        let end = |address: Option<SocketAddr>, kind: Option<CandidateKind>| {
            address.map(|address| match kind {
                Some(kind) => format!("{address} ({})", kind_name(kind)),
                None => address.to_string(),
            })
        };
        let tried: Vec<_> = row.outcomes.iter().map(Tried::new).collect();
        Self {
            name: row.name,
            fingerprint: row.peer.to_string(),
            state: state_name(row.state),
            path: row.path.map(|kind| path_name(kind).to_owned()),
            local: end(row.local, row.local_kind),
            remote: end(row.remote, row.remote_kind),
            rtt_us: (row.rtt_us > 0).then_some(row.rtt_us),
            datagram_len: (row.mtu > 0).then_some(row.mtu),
            lossy: row.is_lossy,
            cipher: row.cipher.map(cipher_name),
            lanes: row.lanes,
            addresses: row.addresses.into_iter().map(|(address, _)| address).collect(),
            handshake_age_s: age(row.established_ms),
            heard_age_s: age(row.last_heard_ms),
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            packets_in: row.packets_in,
            packets_out: row.packets_out,
            drops: row.drops,
            reason: row.reason,
            why: why::of_path(row.path, row.choice.as_ref(), &tried),
            path_age_s: row.choice.and_then(|choice| age(choice.since_ms)),
            relay: row.relay.map(|(server, _)| server),
            relay_channel: row.relay.map(|(_, channel)| channel),
            tried,
        }
    }
}

fn links(rows: &ipop_shm::RowReader, now_ms: u64) -> Vec<Link> {
    let mut buffer = vec![0; rows.row_len()];
    let mut links = Vec::new();
    for index in 0..rows.count() {
        // A row that its writer is busy with is there at the next look.
        let Ok(Some(content)) = rows.read(index, &mut buffer) else { continue };
        let row = content.try_into().ok().and_then(|content| LinkRow::parse(content).ok());
        links.extend(row.map(|row| Link::new(row, now_ms)));
    }
    links.sort_by(|a, b| a.name.cmp(&b.name));
    links
}

/// `key=value` lines.
fn note(rows: &ipop_shm::RowReader) -> BTreeMap<String, String> {
    let mut buffer = vec![0; rows.row_len()];
    let Ok(Some(content)) = rows.read(0, &mut buffer) else { return BTreeMap::new() };
    let text = String::from_utf8_lossy(content);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn errors(observer: &Observer, now_ms: u64) -> Vec<LoggedError> {
    let sides =
        [("datapath", &observer.datapath_errors), ("controller", &observer.controller_errors)];
    let entries = sides.into_iter().flat_map(|(side, log)| {
        log.entries().into_iter().map(move |entry| LoggedError {
            side,
            text: entry.text,
            count: entry.count,
            age_s: now_ms.saturating_sub(entry.last_ms) as f64 / 1e3,
        })
    });
    entries.collect()
}

fn state_name(state: LinkState) -> &'static str {
    match state {
        LinkState::Idle => "idle",
        LinkState::Checking => "checking",
        LinkState::Handshaking => "handshaking",
        LinkState::Up => "up",
        LinkState::Disconnected => "disconnected",
        LinkState::Failed => "failed",
    }
}

fn path_name(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Direct => "direct",
        PathKind::Relayed => "relayed",
    }
}

fn cipher_name(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::Aes128Gcm => "AES-128-GCM",
        Cipher::Aes256Gcm => "AES-256-GCM",
        Cipher::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        Cipher::Aegis128X4 => "AEGIS-128X4",
        Cipher::Plain => "NONE: PLAINTEXT, NOT AUTHENTICATED",
    }
}

/// Nanoseconds since 1970.
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
