//! The room is out of reach: links go on, restarted nodes find their peers again.

use ipop_group::Memory;
use ipop_signal::ByeReason;
use ipop_steer::{Candidate, CandidateKind, PathInfo, PathKind};

use super::*;

/// What the wall clocks say at the beginning.
const UNIX_S: u64 = 1_800_000_000;

impl Room {
    /// Words over a link that is up at both ends.
    pub(super) fn say(&mut self, from: usize, to: &Fingerprint, words: Vec<u8>) {
        assert!(words.len() <= ipop_steer::limits::WORDS_LEN_MAX);
        let index = self.index(to);
        let peer = self.nodes[from].fingerprint;
        let is_up = |at: usize, of: &Fingerprint| {
            self.nodes[at].links.get(of).is_some_and(|link| link.state == LinkState::Up)
        };
        if is_up(from, to) && is_up(index, &peer) {
            self.event(index, Event::Said { peer, words });
        }
    }

    /// Both routers let in only what was sent to: each end has to know the other's place.
    pub(super) fn is_path(&self, (a, p): (usize, &Link), (b, q): (usize, &Link)) -> bool {
        let (Some(at_a), Some(at_b)) = (self.nodes[a].place, self.nodes[b].place) else {
            return true;
        };
        let is_open = |place: SocketAddr| place.port() == OPEN;
        (p.candidates.contains(&at_b) && (is_open(at_b) || q.candidates.contains(&at_a)))
            || (is_open(at_a) && q.candidates.contains(&at_a))
    }

    pub(super) fn path(&self, a: usize, b: usize) -> Option<PathInfo> {
        let (local, remote) = (self.nodes[a].place?, self.nodes[b].place?);
        Some(PathInfo { kind: PathKind::Direct, local, remote, rtt_us: 1 })
    }

    fn index(&self, fingerprint: &Fingerprint) -> usize {
        self.nodes.iter().position(|node| node.fingerprint == *fingerprint).unwrap()
    }

    /// All nodes at places of their own, all linked.
    fn placed(ports: &[u16]) -> Self {
        let mut room = Self::new();
        for (number, port) in ports.iter().enumerate() {
            let index = room.add(50 + number as u8 * 7, plan(None));
            room.remember(index, Memory::default());
            room.start(index, true);
            room.put(index, &format!("198.51.100.{number}:{port}"));
        }
        // All at once, so that every node knows its place before it is offered.
        room.advance(Duration::from_secs(60));
        assert!(room.all_linked());
        room
    }

    /// The node's policy, with what its predecessor kept.
    fn remember(&mut self, index: usize, memory: Memory) {
        let name = format!("node{}", self.nodes[index].fingerprint.0[0]);
        let config = GroupConfig { name, plan: plan(None), mtu: 0, ca_file: String::new() };
        let policy = GroupVpn::new(config).remembering(self.now, UNIX_S, memory);
        self.nodes[index].policy = policy;
    }

    fn start(&mut self, index: usize, is_in_room: bool) {
        self.nodes[index].announced = None;
        self.nodes[index].online = is_in_room;
        let fingerprint = self.nodes[index].fingerprint;
        self.event(index, Event::Ready { fingerprint, mac: [2; 6], interface: "t".into() });
        self.settle();
    }

    fn put(&mut self, index: usize, place: &str) {
        let address: SocketAddr = place.parse().unwrap();
        self.nodes[index].place = Some(address);
        let candidate = Candidate {
            component: 1,
            kind: CandidateKind::Host,
            address,
            related: None,
            priority: 5,
            foundation: "f".into(),
        };
        self.event(index, Event::LocalCandidate { candidate });
        self.settle();
    }

    fn server_dies(&mut self) {
        for index in 0..self.nodes.len() {
            self.nodes[index].online = false;
            self.nodes[index].announced = None;
            self.hear(index, Happening::Offline { reason: "gone".into() });
        }
        self.settle();
    }

    fn hear(&mut self, index: usize, happening: Happening) {
        let bytes = self.random(self.nodes[index].policy.random_len_wanted());
        self.nodes[index].policy.refill(&bytes);
        self.nodes[index].policy.handle_input(self.now, Input::Happening(happening));
    }

    fn server_returns(&mut self) {
        let rooms: Vec<_> = self.nodes.iter().map(|node| node.room.clone()).collect();
        for index in 0..self.nodes.len() {
            self.nodes[index].online = true;
        }
        // Presences first, then the word that all have been said.
        let members: Vec<_> = (0..self.nodes.len()).map(|index| self.member(index)).collect();
        for (index, address) in rooms.into_iter().enumerate() {
            for member in members.iter().filter(|member| member.address != address) {
                self.hear(index, Happening::MemberAppeared(member.clone()));
            }
            self.nodes[index].announced = Some(self.announcement(index));
            self.hear(index, Happening::Online { address });
        }
        self.settle();
    }

    fn announcement(&self, index: usize) -> Announcement {
        let node = &self.nodes[index];
        let name = format!("node{}", node.fingerprint.0[0]);
        let address = |(address, prefix): &(IpAddr, u8)| ipop_signal::OverlayAddress {
            address: *address,
            prefix: *prefix,
            origin: ipop_signal::Origin::Derived,
            attempt: 0,
        };
        let addresses = node.addresses.iter().map(address).collect();
        let fingerprint = ipop_signal::Fingerprint(node.fingerprint.0);
        Announcement { fingerprint, name, addresses, invitation: None }
    }

    fn member(&self, index: usize) -> ipop_signal::Member {
        self.announcement(index).at(self.nodes[index].room.clone())
    }

    /// What is in the node's file.
    fn kept(&mut self, index: usize) -> Memory {
        let now = self.now;
        let memory = self.nodes[index].policy.memory_to_keep(now).cloned();
        Memory::decode(&memory.unwrap_or_default().encode()).unwrap()
    }

    /// The node dies and starts again with its file, at `place`; the others still think they are
    /// linked with it.
    fn restart(&mut self, index: usize, place: &str) {
        let memory = self.kept(index);
        self.nodes[index].links.clear();
        self.nodes[index].routes.clear();
        self.remember(index, memory);
        self.start(index, false);
        self.put(index, place);
    }

    /// The datapath says that a link has lost its path.
    fn silence(&mut self, index: usize, peer: Fingerprint) {
        let link = self.nodes[index].links.get_mut(&peer).unwrap();
        link.state = LinkState::Disconnected;
        let session = link.session;
        let (state, reason) = (LinkState::Disconnected, String::new());
        self.event(index, Event::LinkState { peer, session, state, path: None, reason });
        self.settle();
    }

    fn up(&self, index: usize) -> usize {
        self.nodes[index].links.values().filter(|link| link.state == LinkState::Up).count()
    }

    /// The datapath finds out that links whose other end is gone are dead.
    fn expire(&mut self, index: usize, peer: usize) {
        let (own, other) = (self.nodes[index].fingerprint, self.nodes[peer].fingerprint);
        let Some(link) = self.nodes[index].links.get(&other) else { return };
        let theirs = self.nodes[peer].links.get(&own);
        let fits = theirs.is_some_and(|theirs| {
            theirs.remote.as_ref() == Some(&link.local) && theirs.state == LinkState::Up
        });
        if !fits {
            self.fail(index, peer);
        }
    }
}

/// An offer as a member carries it.
fn offer_in_the_name_of(from: &Fingerprint) -> Vec<u8> {
    let mut words = vec![1, 2];
    words.extend(from.0);
    words.extend([0, 1, 1, 0, b's', 4, 0]);
    words.extend(b"ufra");
    words.extend([22, 0]);
    words.extend(b"0123456789abcdefABCDEF");
    words.push(0);
    words
}

/// The port of nodes that anybody reaches.
const OPEN: u16 = 1;
const CLOSED: u16 = 2;

#[test]
fn a_restarted_node_regains_all_without_a_word() {
    let mut room = Room::placed(&[CLOSED; 5]);
    room.server_dies();
    let others = [0, 1, 3, 4];
    let before: Vec<_> = others.map(|other| room.nodes[other].links.clone()).into();
    room.restart(2, "198.51.100.2:2");
    assert_eq!(room.up(2), 0);
    room.advance(Duration::from_secs(4));
    assert_eq!(room.up(2), 4);
    assert_eq!(room.nodes[2].routes.len(), 8, "two addresses of each");
    assert_eq!(room.nodes[2].policy.regained().len(), 4);
    for (other, before) in others.into_iter().zip(before) {
        assert_eq!(room.nodes[other].links, before, "nothing happened at the others");
    }
}

#[test]
fn nothing_is_opened_again_while_the_room_is_there() {
    let mut room = Room::placed(&[CLOSED; 3]);
    let memory = room.kept(1);
    assert_eq!(memory.members().count(), 2);
    room.nodes[1].links.clear();
    room.nodes[1].routes.clear();
    room.remember(1, memory);
    room.start(1, true);
    room.put(1, "198.51.100.1:2");
    room.advance(Duration::from_secs(60));
    assert!(room.nodes[1].policy.regained().is_empty());
    assert!(room.all_linked());
}

#[test]
fn both_ends_restarted_find_each_other() {
    let mut room = Room::placed(&[CLOSED; 2]);
    room.server_dies();
    room.restart(0, "198.51.100.0:2");
    room.advance(Duration::from_secs(100));
    room.restart(1, "198.51.100.1:2");
    room.advance(Duration::from_secs(30));
    assert_eq!((room.up(0), room.up(1)), (1, 1));
}

#[test]
fn a_member_carries_words_to_those_that_do_not_know_the_place() {
    let mut room = Room::placed(&[OPEN, CLOSED, CLOSED, CLOSED]);
    room.server_dies();
    // Behind its new router it reaches the open one only.
    room.restart(3, "203.0.113.9:2");
    room.advance(Duration::from_secs(4));
    assert_eq!(room.up(3), 1);
    for other in [1, 2] {
        room.expire(other, 3);
    }
    room.advance(Duration::from_secs(60));
    assert_eq!(room.up(3), 3);
    assert!((0..4).all(|index| room.up(index) == 3));
    let through = |notice: &Notice| notice.to_string().contains("through another member");
    assert_eq!(room.nodes[3].notices.iter().filter(|notice| through(notice)).count(), 2);
}

#[test]
fn a_carried_offer_waits_until_the_old_link_is_silent() {
    let mut room = Room::placed(&[OPEN, CLOSED, CLOSED]);
    room.server_dies();
    room.restart(2, "203.0.113.9:2");
    let before = room.nodes[1].links.clone();
    room.advance(Duration::from_secs(7));
    assert_eq!(room.nodes[1].links, before, "a carrier cannot end a link that is up");
    let peer = room.nodes[2].fingerprint;
    let session = before[&peer].session;
    let (state, reason) = (LinkState::Disconnected, String::new());
    room.event(1, Event::LinkState { peer, session, state, path: None, reason });
    room.settle();
    assert_eq!(room.up(2), 2);
}

#[test]
fn a_link_that_goes_silent_is_made_anew_through_a_member() {
    let mut room = Room::placed(&[OPEN, CLOSED, CLOSED]);
    room.server_dies();
    let [one, two] = [1, 2].map(|index| room.nodes[index].fingerprint);
    let before = [room.nodes[1].links[&two].clone(), room.nodes[2].links[&one].clone()];
    room.put(2, "203.0.113.9:2");
    for (index, peer, link) in [(1, two, &before[0]), (2, one, &before[1])] {
        // The open one follows the move by itself, and sees where it went.
        let path = room.path(0, 2);
        let (state, reason) = (LinkState::Disconnected, String::new());
        let session = link.session;
        room.event(index, Event::LinkState { peer, session, state, path: None, reason });
        let (state, reason) = (LinkState::Up, String::new());
        let session = room.nodes[0].links[&two].session;
        room.event(0, Event::LinkState { peer: two, session, state, path, reason });
    }
    room.advance(Duration::from_secs(4));
    let after = [room.nodes[1].links[&two].clone(), room.nodes[2].links[&one].clone()];
    for (before, after) in before.iter().zip(&after) {
        assert_ne!(before.session, after.session);
        assert_eq!(after.state, LinkState::Up);
    }
}

/// Who looked for a member that was not there yet is found by that member's own offer.
#[test]
fn an_offer_that_nobody_heard_does_not_stand_in_the_way_of_the_peers() {
    for (index, peer) in [(1, 2), (2, 1)] {
        let mut room = Room::placed(&[OPEN, CLOSED, CLOSED]);
        room.server_dies();
        let [carrier, from] = [0, peer].map(|index| room.nodes[index].fingerprint);
        room.silence(index, from);
        room.advance(Duration::from_secs(5));
        let opened = room.nodes[index].opened;
        assert_ne!(room.nodes[index].links[&from].state, LinkState::Up);
        let words = offer_in_the_name_of(&from);
        room.event(index, Event::Said { peer: carrier, words });
        room.settle();
        assert_eq!(room.nodes[index].opened, opened + 1, "node {index}");
    }
}

/// The session that was silent carries again while another is looked for.
#[test]
fn a_link_that_comes_back_by_itself_is_taken_back() {
    let mut room = Room::placed(&[OPEN, CLOSED, CLOSED]);
    room.server_dies();
    let peer = room.nodes[2].fingerprint;
    let before = room.nodes[1].links[&peer].clone();
    room.silence(1, peer);
    room.advance(Duration::from_secs(3));
    assert_ne!(room.nodes[1].links[&peer].session, before.session);
    room.nodes[1].links.insert(peer, before.clone());
    let (session, state, reason) = (before.session, LinkState::Up, String::new());
    room.event(1, Event::LinkState { peer, session, state, path: None, reason });
    room.settle();
    assert_eq!(room.nodes[1].policy.regained().len(), 1);
    let opened = room.nodes[1].opened;
    room.advance(Duration::from_secs(60));
    assert_eq!(room.nodes[1].opened, opened, "nothing more is tried");
}

#[test]
fn strangers_and_forgeries_are_not_let_in_by_a_carrier() {
    let mut room = Room::placed(&[OPEN, CLOSED, CLOSED]);
    room.server_dies();
    let opened = room.nodes[1].opened;
    let mut stranger = Room::placed(&[OPEN, CLOSED]);
    stranger.nodes[1].fingerprint.0 = [99; 32];
    for length in 0..200 {
        let words = room.random(length);
        let peer = room.nodes[0].fingerprint;
        room.event(1, Event::Said { peer, words });
    }
    // An offer in a stranger's name.
    let mut words = offer_in_the_name_of(&Fingerprint([99; 32]));
    let peer = room.nodes[0].fingerprint;
    room.event(1, Event::Said { peer, words: words.clone() });
    room.settle();
    assert_eq!(room.nodes[1].opened, opened);
    // The same in a member's name whose link is gone is tried.
    words[2..34].copy_from_slice(&room.nodes[2].fingerprint.0);
    room.fail(1, 2);
    room.event(1, Event::Said { peer, words });
    room.settle();
    assert_eq!(room.nodes[1].opened, opened + 1, "the words are read at all");
}

#[test]
fn links_stay_as_they_are_when_the_server_returns() {
    let mut room = Room::placed(&[CLOSED; 4]);
    room.server_dies();
    room.restart(1, "198.51.100.1:2");
    room.advance(Duration::from_secs(1800));
    let before: Vec<_> = room.nodes.iter().map(|node| node.links.clone()).collect();
    assert!((0..4).all(|index| room.up(index) == 3));
    let offers: usize = room.nodes.iter().map(|node| node.offers).sum();
    room.server_returns();
    room.advance(Duration::from_secs(600));
    let after: Vec<_> = room.nodes.iter().map(|node| node.links.clone()).collect();
    assert_eq!(before, after);
    assert_eq!(offers, room.nodes.iter().map(|node| node.offers).sum(), "nobody offers");
}

#[test]
fn what_was_not_regained_is_linked_once_the_server_returns() {
    let mut room = Room::placed(&[CLOSED; 3]);
    room.server_dies();
    room.restart(1, "203.0.113.7:2");
    for other in [0, 2] {
        room.expire(other, 1);
    }
    room.advance(Duration::from_secs(100));
    assert_eq!(room.up(1), 0);
    room.server_returns();
    room.advance(Duration::from_secs(10));
    assert!((0..3).all(|index| room.up(index) == 2));
}

#[test]
fn a_member_that_the_room_no_longer_knows_loses_its_link() {
    let mut room = Room::placed(&[CLOSED; 2]);
    room.server_dies();
    room.restart(0, "198.51.100.0:2");
    room.advance(Duration::from_secs(10));
    assert_eq!(room.up(0), 1);
    let address = room.nodes[0].room.clone();
    room.nodes[0].online = true;
    room.hear(0, Happening::Online { address });
    room.settle();
    assert_eq!(room.up(0), 1, "it may only be late");
    room.advance(Duration::from_secs(200));
    assert_eq!(room.up(0), 0);
}

#[test]
fn attempts_at_a_member_that_is_gone_become_few_and_end() {
    let mut room = Room::placed(&[CLOSED; 2]);
    room.server_dies();
    room.nodes[1].links.clear();
    // A link without a peer fails after a while.
    let advance = |room: &mut Room, seconds: u64| {
        for _ in 0..seconds / 20 {
            room.advance(Duration::from_secs(20));
            if !room.nodes[0].links.is_empty() {
                room.fail(0, 1);
            }
        }
    };
    advance(&mut room, 200);
    let opened = room.nodes[0].opened;
    assert!((8..15).contains(&opened), "{opened}");
    // Whoever is remembered for too long is forgotten at the next occasion.
    room.advance(Duration::from_secs(31 * 24 * 3600));
    room.server_dies();
    let opened = room.nodes[0].opened;
    advance(&mut room, 200);
    assert_eq!(room.nodes[0].opened, opened, "forgotten after a month");
}

#[test]
fn another_node_with_a_members_address_takes_its_place_in_the_memory() {
    let mut room = Room::placed(&[CLOSED; 2]);
    room.leave(1);
    room.advance(Duration::from_secs(600));
    assert_eq!(room.kept(0).members().count(), 1, "it may come back");
    let mut member = room.member(1);
    member.fingerprint.0[0] = 200;
    member.address = PeerAddress("room/other".into());
    room.hear(0, Happening::MemberAppeared(member));
    room.settle();
    assert_eq!(room.kept(0).members().count(), 0);
}

#[test]
fn a_new_controller_finds_links_and_routes_without_the_room() {
    let mut room = Room::placed(&[CLOSED; 3]);
    room.server_dies();
    let memory = room.kept(1);
    let (links, routes) = (room.nodes[1].links.clone(), room.nodes[1].routes.clone());
    assert_eq!(routes.len(), 4);
    room.nodes[1].routes.clear();
    room.remember(1, memory);
    room.start(1, false);
    for (peer, link) in links.clone() {
        let (session, state, reason) = (link.session, link.state, String::new());
        room.event(1, Event::LinkState { peer, session, state, path: None, reason });
    }
    room.settle();
    assert_eq!((&room.nodes[1].links, &room.nodes[1].routes), (&links, &routes));
    room.advance(Duration::from_secs(60));
    assert_eq!(room.nodes[1].links, links);
    // A goodbye by the room still finds the session by its name.
    room.server_returns();
    let from = room.nodes[0].room.clone();
    let peer = ipop_signal::Fingerprint(room.nodes[0].fingerprint.0);
    let session = room.kept(1).get(&peer).map(|known| known.session.id.clone());
    if let Some(session) = session {
        let reason = ByeReason::Gone;
        room.hear(1, Happening::ByeReceived { from, session, reason });
        room.settle();
        assert_eq!(room.nodes[1].links.len(), 1);
    }
}
