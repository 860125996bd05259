//! Several policies in one room, with a datapath and a network of the test's own, in virtual time.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ipop_group::{AddressPlan, GroupConfig, GroupVpn, Input, Notice, Output, group_prefix6};
use ipop_signal::{Action, Announcement, Happening, Member, PeerAddress};
use ipop_steer::{Command, Event, Fingerprint, IceCredentials, LinkState};

#[path = "room/away.rs"]
mod away;
#[path = "room/invited.rs"]
mod invited;

/// A link as the test's datapath knows it.
#[derive(Clone, Debug, PartialEq)]
struct Link {
    session: u64,
    controlling: bool,
    head_start_ms: u16,
    local: IceCredentials,
    remote: Option<IceCredentials>,
    state: LinkState,
    /// Where the other end was said to be.
    candidates: Vec<SocketAddr>,
}

struct Node {
    fingerprint: Fingerprint,
    policy: GroupVpn,
    room: PeerAddress,
    online: bool,
    announced: Option<Announcement>,
    links: BTreeMap<Fingerprint, Link>,
    routes: BTreeMap<IpAddr, Fingerprint>,
    addresses: Vec<(IpAddr, u8)>,
    notices: Vec<Notice>,
    offers: usize,
    /// Where its socket is, where a path needs one end to know the other's place.
    place: Option<SocketAddr>,
    /// How often a link was opened.
    opened: usize,
    /// It knows of invitations.
    invites: bool,
}

struct Room {
    now: Instant,
    nodes: Vec<Node>,
    seed: u64,
    queue: VecDeque<(usize, Happening)>,
    /// Offers and answers between these two are lost.
    deaf: Option<(usize, usize)>,
    /// A round trip to the server, of nodes that are added.
    newcomers_rtt: Duration,
    /// What this one is to hear comes only when that is over.
    slow: Option<usize>,
    held: Vec<(usize, Happening)>,
    /// Nodes that are added know of invitations.
    invites: bool,
}

fn plan(fixed: Option<&str>) -> AddressPlan {
    let prefix6 = group_prefix6("g");
    match fixed {
        Some(address) => AddressPlan::fixed(address.parse().unwrap(), 24, prefix6).unwrap(),
        None => AddressPlan::derived(Ipv4Addr::new(10, 77, 0, 0), 16, prefix6).unwrap(),
    }
}

impl Room {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            nodes: vec![],
            seed: 1,
            queue: VecDeque::new(),
            deaf: None,
            newcomers_rtt: Duration::ZERO,
            slow: None,
            held: Vec::new(),
            invites: true,
        }
    }

    fn without_invitations() -> Self {
        Self { invites: false, ..Self::new() }
    }

    fn random(&mut self, length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| {
                self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(99);
                (self.seed >> 33) as u8
            })
            .collect()
    }

    fn add(&mut self, first_byte: u8, plan: AddressPlan) -> usize {
        let name = format!("node{first_byte}");
        let config = GroupConfig { name: name.clone(), plan, mtu: 0, ca_file: String::new() };
        let mut fingerprint = [7; 32];
        fingerprint[0] = first_byte;
        self.nodes.push(Node {
            fingerprint: Fingerprint(fingerprint),
            policy: GroupVpn::new(config),
            room: PeerAddress(format!("room/{name}-{}", self.nodes.len())),
            online: true,
            announced: None,
            links: BTreeMap::new(),
            routes: BTreeMap::new(),
            addresses: vec![],
            notices: vec![],
            offers: 0,
            place: None,
            opened: 0,
            invites: self.invites,
        });
        let index = self.nodes.len() - 1;
        let (server, rtt) = (IpAddr::from([192, 0, 2, 9]), self.newcomers_rtt);
        let reached = Input::Happening(Happening::Reached { server, rtt });
        self.nodes[index].policy.handle_input(self.now, reached);
        let fingerprint = self.nodes[index].fingerprint;
        self.event(index, Event::Ready { fingerprint, mac: [2; 6], interface: "t".into() });
        self.settle();
        index
    }

    /// A new controller for the same datapath, as after a crash of the first.
    fn replace_controller(&mut self, index: usize, plan: AddressPlan) {
        let name = format!("node{}", self.nodes[index].fingerprint.0[0]);
        let config = GroupConfig { name, plan, mtu: 0, ca_file: String::new() };
        self.nodes[index].policy = GroupVpn::new(config);
        self.nodes[index].announced = None;
        let fingerprint = self.nodes[index].fingerprint;
        self.event(index, Event::Ready { fingerprint, mac: [2; 6], interface: "t".into() });
        for (peer, link) in self.nodes[index].links.clone() {
            let (session, state) = (link.session, link.state);
            let event =
                Event::LinkState { peer, session, state, path: None, reason: String::new() };
            self.event(index, event);
        }
        self.settle();
    }

    fn leave(&mut self, index: usize) {
        self.nodes[index].online = false;
        let address = self.nodes[index].room.clone();
        for other in 0..self.nodes.len() {
            if other != index {
                self.queue.push_back((other, Happening::MemberLeft(address.clone())));
            }
        }
        self.settle();
    }

    fn event(&mut self, index: usize, event: Event) {
        let bytes = self.random(self.nodes[index].policy.random_len_wanted());
        self.nodes[index].policy.refill(&bytes);
        self.nodes[index].policy.handle_input(self.now, Input::Event(event));
    }

    /// Runs until nothing moves at this instant.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for index in 0..self.nodes.len() {
                while let Some(output) = self.nodes[index].policy.poll_output() {
                    moved = true;
                    self.obey(index, output);
                }
            }
            if let Some((index, happening)) = self.queue.pop_front() {
                moved = true;
                if self.slow == Some(index) {
                    self.held.push((index, happening));
                    continue;
                }
                let bytes = self.random(self.nodes[index].policy.random_len_wanted());
                self.nodes[index].policy.refill(&bytes);
                let input = Input::Happening(happening);
                self.nodes[index].policy.handle_input(self.now, input);
            }
            moved |= self.connect();
            if !moved {
                return;
            }
        }
    }

    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.nodes.iter().filter_map(|n| n.policy.poll_timeout()).min() {
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            for index in 0..self.nodes.len() {
                self.nodes[index].policy.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = end;
    }

    fn obey(&mut self, index: usize, output: Output) {
        match output {
            Output::Notice(notice) => self.nodes[index].notices.push(notice),
            Output::Command(command) => self.obey_command(index, command),
            Output::Action(action) => self.carry(index, action),
        }
    }

    fn obey_command(&mut self, index: usize, command: Command) {
        let node = &mut self.nodes[index];
        match command {
            Command::OpenLink {
                peer, controlling, head_start_ms, session, local, remote, ..
            } => {
                let (state, candidates) = (LinkState::Checking, vec![]);
                let link =
                    Link { session, controlling, head_start_ms, local, remote, state, candidates };
                node.links.insert(peer, link);
                node.opened += 1;
            }
            Command::AddRemoteCandidate { peer, session, candidate } => {
                let link = node.links.get_mut(&peer).expect("a candidate needs a link");
                assert_eq!(link.session, session);
                link.candidates.push(candidate.address);
            }
            Command::Say { peer, words } => self.say(index, &peer, words),
            Command::SetRemote { peer, session, credentials } => {
                let link = node.links.get_mut(&peer).expect("SetRemote needs a link");
                assert_eq!(link.session, session);
                link.remote = Some(credentials);
            }
            Command::CloseLink { peer } => {
                node.links.remove(&peer);
                node.routes.retain(|_, to| *to != peer);
            }
            Command::AddRoute { peer, address, .. } => {
                assert!(node.links.contains_key(&peer), "a route needs a link");
                node.routes.insert(address, peer);
            }
            Command::RemoveRoute { address, .. } => {
                node.routes.remove(&address);
            }
            Command::ConfigureInterface { addresses, .. } => node.addresses = addresses,
            _ => {}
        }
    }

    /// The test's network: presence to all, the rest to the one it is for.
    fn carry(&mut self, from: usize, action: Action) {
        let source = self.nodes[from].room.clone();
        let (to, happening) = match action {
            Action::Announce(announcement) => return self.announce(from, announcement),
            Action::Offer { to, session, credentials, fingerprint, candidates } => {
                self.nodes[from].offers += 1;
                let from = source;
                (to, Happening::Offered { from, session, credentials, fingerprint, candidates })
            }
            Action::Answer { to, session, credentials, fingerprint, candidates } => {
                let from = source;
                (to, Happening::Answered { from, session, credentials, fingerprint, candidates })
            }
            Action::Candidates { to, session, candidates, end } => {
                (to, Happening::Candidates { from: source, session, candidates, end })
            }
            Action::Bye { to, session, reason } => {
                (to, Happening::ByeReceived { from: source, session, reason })
            }
        };
        let found = self.nodes.iter().position(|node| node.room == to && node.online);
        match found {
            Some(index) if self.deaf != Some((from, index)) => {
                self.queue.push_back((index, happening))
            }
            _ => {}
        }
    }

    fn announce(&mut self, from: usize, mut announcement: Announcement) {
        // The client keeps it until it is in the room.
        if !self.nodes[from].online {
            return;
        }
        if !self.nodes[from].invites {
            announcement.invitation = None;
        }
        let is_new = self.nodes[from].announced.is_none();
        self.nodes[from].announced = Some(announcement.clone());
        let own = announcement.at(self.nodes[from].room.clone());
        for other in (0..self.nodes.len()).filter(|other| *other != from) {
            if !self.nodes[other].online {
                continue;
            }
            let theirs = self.nodes[other].announced.clone();
            if let (true, Some(theirs)) = (is_new, theirs) {
                let member = theirs.at(self.nodes[other].room.clone());
                self.queue.push_back((from, Happening::MemberAppeared(self.seen_by(from, member))));
            }
            let own = self.seen_by(other, own.clone());
            let happening =
                if is_new { Happening::MemberAppeared(own) } else { Happening::MemberChanged(own) };
            self.queue.push_back((other, happening));
        }
        if is_new {
            let address = self.nodes[from].room.clone();
            self.queue.push_back((from, Happening::Online { address }));
        }
    }

    fn seen_by(&self, index: usize, member: Member) -> Member {
        let invitation = member.invitation.filter(|_| self.nodes[index].invites);
        Member { invitation, ..member }
    }

    /// Two ends that know each other's credentials are a link.
    fn connect(&mut self) -> bool {
        for a in 0..self.nodes.len() {
            for b in 0..self.nodes.len() {
                let (x, y) = (self.nodes[a].fingerprint, self.nodes[b].fingerprint);
                let (Some(p), Some(q)) = (self.nodes[a].links.get(&y), self.nodes[b].links.get(&x))
                else {
                    continue;
                };
                let fits =
                    p.remote.as_ref() == Some(&q.local) && q.remote.as_ref() == Some(&p.local);
                let is_path = self.is_path((a, p), (b, q));
                if fits && is_path && p.state == LinkState::Checking {
                    let session = p.session;
                    let path = self.path(a, b);
                    self.nodes[a].links.get_mut(&y).unwrap().state = LinkState::Up;
                    let (state, reason) = (LinkState::Up, String::new());
                    let event = Event::LinkState { peer: y, session, state, path, reason };
                    self.event(a, event);
                    return true;
                }
            }
        }
        false
    }

    fn all_linked(&self) -> bool {
        let count = self.nodes.iter().filter(|node| node.online).count();
        let up = |node: &Node| node.links.values().filter(|l| l.state == LinkState::Up).count();
        self.nodes.iter().filter(|node| node.online).all(|node| up(node) >= count - 1)
    }

    fn fail(&mut self, index: usize, peer: usize) {
        let other = self.nodes[peer].fingerprint;
        let link = self.nodes[index].links.get_mut(&other).unwrap();
        link.state = LinkState::Failed;
        let session = link.session;
        let (state, reason) = (LinkState::Failed, "gone".to_owned());
        self.event(index, Event::LinkState { peer: other, session, state, path: None, reason });
        self.settle();
    }
}

#[test]
fn members_that_invite_nobody_are_linked_with_one_offer_a_pair() {
    let mut room = Room::without_invitations();
    for byte in [9, 3, 200, 77, 5] {
        room.add(byte, plan(None));
    }
    assert!(room.all_linked());
    assert_eq!(room.nodes.iter().map(|node| node.offers).sum::<usize>(), 10);
    for node in &room.nodes {
        assert_eq!(node.routes.len(), 8, "one IPv4 and one IPv6 route to each of four");
        assert_eq!(node.addresses.len(), 2);
    }
}

#[test]
fn a_configured_address_beats_a_derived_one_and_both_ends_agree() {
    let mut room = Room::new();
    let a = room.add(1, plan(None));
    let taken = room.nodes[a].addresses[0].0;
    let IpAddr::V4(v4) = taken else { panic!("IPv4 first") };
    let fixed = AddressPlan::fixed(v4, 16, group_prefix6("g")).unwrap();
    let b = room.add(2, fixed);
    assert_eq!(room.nodes[b].addresses[0].0, taken);
    assert_ne!(room.nodes[a].addresses[0].0, taken);
    assert_eq!(room.nodes[a].routes[&taken], room.nodes[b].fingerprint);
    let moved = room.nodes[a].addresses[0].0;
    assert_eq!(room.nodes[b].routes[&moved], room.nodes[a].fingerprint);
}

#[test]
fn of_two_equal_configured_addresses_the_lower_fingerprint_keeps_it_and_a_person_is_told() {
    let mut room = Room::new();
    let a = room.add(1, plan(Some("10.77.0.9")));
    let b = room.add(2, plan(Some("10.77.0.9")));
    let told = |index: usize| {
        let notices = room.nodes[index].notices.iter();
        notices.filter(|n| matches!(n, Notice::AddressTaken { .. })).count()
    };
    assert_eq!((told(a), told(b)), (0, 1));
    let address: IpAddr = "10.77.0.9".parse().unwrap();
    assert_eq!(room.nodes[b].routes[&address], room.nodes[a].fingerprint);
    assert!(!room.nodes[a].routes.contains_key(&address));
}

#[test]
fn a_new_controller_finds_the_links_and_offers_nothing() {
    let mut room = Room::new();
    let a = room.add(200, plan(None));
    room.add(3, plan(None));
    room.add(5, plan(None));
    let before = room.nodes[a].links.clone();
    let offers = room.nodes[a].offers;
    room.replace_controller(a, plan(None));
    room.advance(Duration::from_secs(60));
    assert_eq!(room.nodes[a].links, before);
    assert_eq!(room.nodes[a].offers, offers);
}

#[test]
fn a_failed_link_is_tried_again_until_it_is_up() {
    let mut room = Room::new();
    let (a, b) = (room.add(200, plan(None)), room.add(3, plan(None)));
    room.fail(a, b);
    room.fail(b, a);
    assert!(!room.all_linked());
    room.advance(Duration::from_secs(2));
    assert!(room.all_linked());
}

#[test]
fn the_lower_one_offers_when_the_other_does_not() {
    let mut room = Room::without_invitations();
    let a = room.add(200, plan(None));
    room.deaf = Some((0, 1));
    let b = room.add(3, plan(None));
    assert!(!room.all_linked());
    room.deaf = None;
    // The lost offer stays unanswered; the other end's patience is shorter.
    room.advance(Duration::from_secs(20));
    assert!(room.all_linked());
    assert!(room.nodes[a].offers + room.nodes[b].offers >= 2);
}

#[test]
fn a_member_that_left_keeps_its_link_for_a_while() {
    let mut room = Room::new();
    let (a, b) = (room.add(200, plan(None)), room.add(3, plan(None)));
    room.leave(b);
    room.advance(Duration::from_secs(100));
    assert_eq!((room.nodes[a].links.len(), room.nodes[a].routes.len()), (1, 2));
    room.advance(Duration::from_secs(100));
    assert_eq!((room.nodes[a].links.len(), room.nodes[a].routes.len()), (0, 0));
}

#[test]
fn a_new_machine_takes_a_dead_ones_address() {
    let mut room = Room::new();
    let a = room.add(200, plan(None));
    let dead = room.add(3, plan(Some("10.77.0.2")));
    room.leave(dead);
    let c = room.add(90, plan(Some("10.77.0.2")));
    let address: IpAddr = "10.77.0.2".parse().unwrap();
    assert_eq!(room.nodes[a].routes[&address], room.nodes[c].fingerprint);
    assert!(!room.nodes[c].notices.iter().any(|n| matches!(n, Notice::AddressTaken { .. })));
    room.fail(a, dead);
    let gone = room.nodes[dead].fingerprint;
    assert!(!room.nodes[a].links.contains_key(&gone), "a dead link to a gone member is forgotten");
}

#[test]
fn an_address_is_free_as_soon_as_its_owner_has_left_the_room() {
    let mut room = Room::new();
    let a = room.add(200, plan(None));
    let dying = room.add(3, plan(Some("10.77.0.2")));
    let c = room.add(90, plan(Some("10.77.0.2")));
    let address: IpAddr = "10.77.0.2".parse().unwrap();
    assert_eq!(room.nodes[a].routes[&address], room.nodes[dying].fingerprint);
    room.leave(dying);
    assert_eq!(room.nodes[a].routes[&address], room.nodes[c].fingerprint);
}

#[test]
fn goodbye_ends_the_link_at_once() {
    let mut room = Room::new();
    let (a, b) = (room.add(200, plan(None)), room.add(3, plan(None)));
    room.nodes[b].policy.leave();
    room.settle();
    assert!(room.nodes[a].links.is_empty() && room.nodes[a].routes.is_empty());
}

#[test]
fn an_offer_in_another_ones_name_is_refused() {
    let mut room = Room::new();
    let a = room.add(200, plan(None));
    let b = room.add(3, plan(None));
    let before = room.nodes[a].links.clone();
    let happening = Happening::Offered {
        from: room.nodes[b].room.clone(),
        session: ipop_signal::SessionId::new("evil").unwrap(),
        credentials: ipop_signal::IceCredentials::new("abcd", "0123456789abcdefABCDEF").unwrap(),
        fingerprint: ipop_signal::Fingerprint([66; 32]),
        candidates: vec![],
    };
    room.queue.push_back((a, happening));
    room.settle();
    assert_eq!(room.nodes[a].links, before);
}
