//! Permissions and channels of one allocation (RFC 8656 sections 9 and 12).
//!
//! A permission is for a peer's IP. It is renewed as long as it is used, or a channel to that IP
//! is kept; those that connectivity checks tried in vain run out by themselves. A channel is
//! renewed until it is forgotten. The server keeps the binding until it runs out: what the peer
//! sends still comes in the channel, and the peer can be bound to this number only (RFC 8656
//! section 12.2: 400 to any other, and to the number for any other peer). So the number rests with
//! its peer until then, and five minutes longer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::RelayError;
use super::lease::{Lease, Term};
use crate::channel::ChannelNumber;

/// RFC 8656 section 9: five minutes.
const PERMISSION: Term = Term { life: Duration::from_secs(300), renew: Duration::from_secs(240) };
/// RFC 8656 section 12: ten minutes.
const CHANNEL: Term = Term { life: Duration::from_secs(600), renew: Duration::from_secs(480) };
/// How long a number rests after its binding ran out.
const REST: Duration = Duration::from_secs(300);

/// Permissions kept at a time.
pub(super) const PERMISSIONS_MAX: usize = 1024;
/// Channels kept at a time.
pub(super) const CHANNELS_MAX: usize = 1024;

/// What the server shall be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Permission(IpAddr),
    Channel(SocketAddr, ChannelNumber),
}

/// What changed in the life of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Bound(SocketAddr, ChannelNumber),
    Unbound(SocketAddr),
}

#[derive(Debug, Default)]
struct Permission {
    lease: Lease,
    used: bool,
}

#[derive(Debug)]
struct Channel {
    number: ChannelNumber,
    lease: Lease,
}

/// A forgotten channel's number, as long as the server may remember it.
#[derive(Debug)]
struct Resting {
    peer: SocketAddr,
    until: Instant,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Peers {
    permissions: BTreeMap<IpAddr, Permission>,
    channels: BTreeMap<SocketAddr, Channel>,
    /// Numbers of `channels`, to find the peer of what comes in.
    numbers: BTreeMap<ChannelNumber, SocketAddr>,
    /// Numbers that only their last peer may use before a time.
    resting: BTreeMap<ChannelNumber, Resting>,
    next_number: ChannelNumber,
}

impl Peers {
    pub fn new() -> Self {
        Self {
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
            numbers: BTreeMap::new(),
            resting: BTreeMap::new(),
            next_number: ChannelNumber::FIRST,
        }
    }

    /// Something is sent to `ip`.
    pub fn permit(&mut self, now: Instant, ip: IpAddr) -> Result<(), RelayError> {
        if self.permissions.len() >= PERMISSIONS_MAX && !self.permissions.contains_key(&ip) {
            return Err(RelayError::TooManyPeers);
        }
        let permission = self.permissions.entry(ip).or_default();
        if permission.lease.is_barred(now) {
            return Err(RelayError::Refused);
        }
        permission.used = true;
        permission.lease.want(now);
        Ok(())
    }

    /// Keeps a channel to `peer` from now on.
    pub fn bind(&mut self, now: Instant, peer: SocketAddr) -> Result<(), RelayError> {
        self.permit(now, peer.ip())?;
        if let Some(channel) = self.channels.get_mut(&peer) {
            channel.lease.want(now);
            return Ok(());
        }
        if self.channels.len() >= CHANNELS_MAX {
            return Err(RelayError::TooManyPeers);
        }
        let number = self.number_for(now, peer).ok_or(RelayError::TooManyPeers)?;
        let mut lease = Lease::default();
        lease.want(now);
        self.channels.insert(peer, Channel { number, lease });
        self.numbers.insert(number, peer);
        Ok(())
    }

    /// No longer renews the channel to `peer`. True if it was bound.
    pub fn forget(&mut self, now: Instant, peer: SocketAddr) -> bool {
        let Some(channel) = self.channels.remove(&peer) else { return false };
        self.numbers.remove(&channel.number);
        // A binding that is just being asked for may come into being yet.
        let until = channel.lease.until().unwrap_or(now + CHANNEL.life);
        self.resting.insert(channel.number, Resting { peer, until: until + REST });
        channel.lease.is_held()
    }

    /// The channel to `peer`, if it is bound.
    pub fn channel(&self, peer: SocketAddr) -> Option<ChannelNumber> {
        self.channels.get(&peer).filter(|c| c.lease.is_held()).map(|c| c.number)
    }

    /// The peer of a channel, also while the server's yes is still on its way to us, and while the
    /// server keeps a channel that we have forgotten.
    pub fn peer(&self, number: ChannelNumber) -> Option<SocketAddr> {
        let resting = || self.resting.get(&number).map(|resting| resting.peer);
        self.numbers.get(&number).copied().or_else(resting)
    }

    /// Whether data from `ip` is expected.
    pub fn expects(&self, ip: IpAddr) -> bool {
        self.permissions.contains_key(&ip) || self.channels.keys().any(|peer| peer.ip() == ip)
    }

    pub fn next(&self) -> Option<Instant> {
        let permissions = self.permissions.values().filter_map(|p| p.lease.next());
        permissions.chain(self.channels.values().filter_map(|c| c.lease.next())).min()
    }

    /// What has to be asked at `now`, and which channels ran out.
    pub fn advance(&mut self, now: Instant, asks: &mut Vec<Ask>, changes: &mut Vec<Change>) {
        for (peer, channel) in &mut self.channels {
            if channel.lease.expire(now) {
                changes.push(Change::Unbound(*peer));
            }
            if channel.lease.is_due(now) {
                channel.lease.ask();
                asks.push(Ask::Channel(*peer, channel.number));
            }
        }
        let channels = &self.channels;
        self.permissions.retain(|ip, permission| {
            permission.lease.expire(now);
            if permission.lease.is_due(now) {
                let needed = permission.used || channels.keys().any(|peer| peer.ip() == *ip);
                if needed {
                    permission.lease.ask();
                    asks.push(Ask::Permission(*ip));
                } else {
                    permission.lease.lapse();
                }
            }
            !permission.lease.is_void(now)
        });
        // A channel's first packets follow its permission.
        asks.sort_by_key(|ask| matches!(ask, Ask::Channel(..)));
    }

    /// The server granted what was asked at `asked`.
    pub fn grant(&mut self, asked: Instant, ask: Ask) -> Option<Change> {
        match ask {
            Ask::Permission(ip) => {
                let permission = self.permissions.get_mut(&ip)?;
                permission.lease.grant(asked, PERMISSION);
                permission.used = false;
                None
            }
            Ask::Channel(peer, number) => {
                let channel = self.channels.get_mut(&peer).filter(|c| c.number == number)?;
                let new = channel.lease.grant(asked, CHANNEL);
                new.then_some(Change::Bound(peer, number))
            }
        }
    }

    /// The server refused.
    pub fn refuse(&mut self, now: Instant, ask: Ask) -> Option<Change> {
        match ask {
            Ask::Permission(ip) => {
                self.permissions.get_mut(&ip)?.lease.refuse(now);
                None
            }
            Ask::Channel(peer, number) => {
                let channel = self.channels.get_mut(&peer).filter(|c| c.number == number)?;
                channel.lease.refuse(now).then_some(Change::Unbound(peer))
            }
        }
    }

    /// The server did not answer.
    pub fn miss(&mut self, now: Instant, ask: Ask) {
        match ask {
            Ask::Permission(ip) => {
                if let Some(permission) = self.permissions.get_mut(&ip) {
                    permission.lease.miss(now);
                }
            }
            Ask::Channel(peer, number) => {
                if let Some(channel) = self.channels.get_mut(&peer)
                    && channel.number == number
                {
                    channel.lease.miss(now);
                }
            }
        }
    }

    /// The allocation is gone, and all with it; what is still wanted is asked of the next one.
    /// Says which channels were bound.
    pub fn restart(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for (peer, channel) in &mut self.channels {
            if channel.lease.is_held() {
                changes.push(Change::Unbound(*peer));
            }
            channel.lease = Lease::default();
            channel.lease.want(now);
        }
        let channels = &self.channels;
        self.permissions.retain(|ip, permission| {
            permission.lease = Lease::default();
            permission.lease.want(now);
            permission.used || channels.keys().any(|peer| peer.ip() == *ip)
        });
        self.resting.clear();
        changes
    }

    /// The number that `peer` had, if it still rests with it, or one that nobody has.
    fn number_for(&mut self, now: Instant, peer: SocketAddr) -> Option<ChannelNumber> {
        self.resting.retain(|_, resting| now < resting.until);
        let had = self.resting.iter().find(|(_, resting)| resting.peer == peer);
        if let Some(number) = had.map(|(number, _)| *number) {
            self.resting.remove(&number);
            return Some(number);
        }
        let start = self.next_number;
        let mut number = start;
        while self.numbers.contains_key(&number) || self.resting.contains_key(&number) {
            number = number.next();
            if number == start {
                return None;
            }
        }
        self.next_number = number.next();
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::new([192, 0, 2, 1].into(), port)
    }

    fn asks(peers: &mut Peers, now: Instant) -> Vec<Ask> {
        let mut asks = Vec::new();
        peers.advance(now, &mut asks, &mut Vec::new());
        asks
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_used_permission_is_renewed_after_four_minutes_an_unused_one_runs_out_after_five() {
        let start = Instant::now();
        let mut peers = Peers::new();
        let ask = Ask::Permission(peer(1).ip());
        peers.permit(start, peer(1).ip()).unwrap();
        assert_eq!(asks(&mut peers, start), [ask]);
        assert_eq!(asks(&mut peers, start), [], "asked once");
        peers.grant(start, ask);
        assert_eq!(asks(&mut peers, start + seconds(239)), []);
        peers.permit(start + seconds(100), peer(1).ip()).unwrap();
        assert_eq!(peers.next(), Some(start + seconds(240)));
        assert_eq!(asks(&mut peers, start + seconds(240)), [ask]);
        peers.grant(start + seconds(240), ask);
        assert_eq!(asks(&mut peers, start + seconds(480)), [], "not used since");
        assert!(peers.expects(peer(1).ip()));
        assert_eq!(asks(&mut peers, start + seconds(540)), []);
        assert!(!peers.expects(peer(1).ip()));
        assert_eq!(peers.next(), None);
    }

    #[test]
    fn a_channel_is_renewed_with_its_permission_until_it_is_forgotten() {
        let start = Instant::now();
        let mut peers = Peers::new();
        peers.bind(start, peer(1)).unwrap();
        let channel = Ask::Channel(peer(1), ChannelNumber::FIRST);
        let permission = Ask::Permission(peer(1).ip());
        assert_eq!(asks(&mut peers, start), [permission, channel]);
        peers.grant(start, permission);
        assert_eq!(peers.channel(peer(1)), None);
        let bound = Some(Change::Bound(peer(1), ChannelNumber::FIRST));
        assert_eq!(peers.grant(start, channel), bound);
        assert_eq!(peers.channel(peer(1)), Some(ChannelNumber::FIRST));
        for round in 1..=20_u64 {
            let now = start + seconds(240 * round);
            let due = asks(&mut peers, now);
            let expected =
                if round % 2 == 0 { vec![permission, channel] } else { vec![permission] };
            assert_eq!(due, expected, "round {round}");
            for ask in due {
                assert_eq!(peers.grant(now, ask), None, "a renewal is no news");
            }
        }
        assert!(peers.forget(start + seconds(4800), peer(1)));
        assert_eq!(peers.channel(peer(1)), None);
        assert_eq!(peers.peer(ChannelNumber::FIRST), Some(peer(1)), "the server still sends in it");
    }

    #[test]
    fn a_peer_that_comes_back_gets_its_number_as_long_as_the_server_has_it() {
        let start = Instant::now();
        let mut peers = Peers::new();
        for round in 0..10 {
            let now = start + seconds(800 * round);
            peers.bind(now, peer(1)).unwrap();
            let ask = Ask::Channel(peer(1), ChannelNumber::FIRST);
            assert!(asks(&mut peers, now).contains(&ask), "round {round}");
            let bound = peers.grant(now, ask);
            assert_eq!(bound, Some(Change::Bound(peer(1), ChannelNumber::FIRST)));
            peers.forget(now, peer(1));
            peers.bind(now, peer(2)).unwrap();
            assert_ne!(peers.peer(ChannelNumber::FIRST), Some(peer(2)));
        }
        peers.bind(start + seconds(8101), peer(1)).unwrap();
        assert_eq!(peers.resting.len(), 0, "the old number is free by now");
    }

    #[test]
    fn a_number_rests_until_the_server_has_forgotten_it() {
        let start = Instant::now();
        let mut peers = Peers::new();
        peers.next_number = ChannelNumber::LAST;
        peers.bind(start, peer(1)).unwrap();
        peers.grant(start, Ask::Channel(peer(1), ChannelNumber::LAST));
        peers.forget(start, peer(1));
        peers.next_number = ChannelNumber::LAST;
        peers.bind(start + seconds(899), peer(2)).unwrap();
        assert_eq!(peers.peer(ChannelNumber::LAST), Some(peer(1)));
        assert_eq!(peers.peer(ChannelNumber::FIRST), Some(peer(2)));
        peers.next_number = ChannelNumber::LAST;
        peers.bind(start + seconds(901), peer(3)).unwrap();
        assert_eq!(peers.peer(ChannelNumber::LAST), Some(peer(3)));
    }

    #[test]
    fn a_refused_peer_is_asked_for_again_only_after_a_minute() {
        let start = Instant::now();
        let mut peers = Peers::new();
        let ask = Ask::Permission(peer(1).ip());
        peers.permit(start, peer(1).ip()).unwrap();
        assert_eq!(asks(&mut peers, start), [ask]);
        peers.refuse(start, ask);
        let barred = peers.permit(start + seconds(59), peer(1).ip());
        assert_eq!(barred, Err(RelayError::Refused));
        assert_eq!(asks(&mut peers, start + seconds(59)), []);
        peers.permit(start + seconds(60), peer(1).ip()).unwrap();
        assert_eq!(asks(&mut peers, start + seconds(60)), [ask]);
    }

    #[test]
    fn tables_are_bounded() {
        let start = Instant::now();
        let mut peers = Peers::new();
        for n in 0..CHANNELS_MAX {
            peers.bind(start, peer(u16::try_from(n).unwrap() + 1)).unwrap();
        }
        assert_eq!(peers.bind(start, peer(60_000)), Err(RelayError::TooManyPeers));
        for n in 1..PERMISSIONS_MAX {
            let ip = IpAddr::from([10, 0, (n >> 8) as u8, (n & 255) as u8]);
            peers.permit(start, ip).unwrap();
        }
        let one_more = peers.permit(start, IpAddr::from([10, 1, 0, 0]));
        assert_eq!(one_more, Err(RelayError::TooManyPeers));
    }

    #[test]
    fn a_lapsed_channel_is_told() {
        let start = Instant::now();
        let mut peers = Peers::new();
        peers.bind(start, peer(1)).unwrap();
        let ask = Ask::Channel(peer(1), ChannelNumber::FIRST);
        asks(&mut peers, start);
        peers.grant(start, ask);
        for at in [480, 530, 580] {
            assert!(asks(&mut peers, start + seconds(at)).contains(&ask));
            peers.miss(start + seconds(at + 40), ask);
        }
        let (mut due, mut changes) = (Vec::new(), Vec::new());
        peers.advance(start + seconds(600), &mut due, &mut changes);
        assert_eq!(changes, [Change::Unbound(peer(1))]);
        assert_eq!(peers.channel(peer(1)), None);
    }
}
