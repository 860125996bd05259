//! Sessions by what both ends have announced.

use std::collections::BTreeSet;
use std::time::Duration;

use ipop_group::{GroupConfig, GroupVpn, Memory};
use ipop_steer::{Candidate, CandidateKind, Event};

use super::{Link, Room, plan};

impl Room {
    fn offers(&self) -> usize {
        self.nodes.iter().map(|node| node.offers).sum()
    }

    fn link(&self, index: usize, peer: usize) -> &Link {
        &self.nodes[index].links[&self.nodes[peer].fingerprint]
    }

    fn learn(&mut self, index: usize, address: &str) {
        let candidate = Candidate {
            component: 1,
            kind: CandidateKind::ServerReflexive,
            address: address.parse().unwrap(),
            related: None,
            priority: 1,
            foundation: address.replace(|c: char| !c.is_alphanumeric(), ""),
        };
        self.event(index, Event::LocalCandidate { candidate });
        self.settle();
    }

    /// The node dies and is there again before anybody misses it.
    fn die_and_return(&mut self, index: usize, memory: Memory) {
        let name = format!("node{}", self.nodes[index].fingerprint.0[0]);
        let config = GroupConfig { name, plan: plan(None), mtu: 0, ca_file: String::new() };
        self.nodes[index].policy = GroupVpn::new(config).remembering(self.now, 1, memory);
        self.nodes[index].links.clear();
        self.nodes[index].routes.clear();
        self.nodes[index].announced = None;
        let fingerprint = self.nodes[index].fingerprint;
        self.event(index, Event::Ready { fingerprint, mac: [2; 6], interface: "t".into() });
        self.settle();
    }
}

#[test]
fn all_members_are_linked_without_an_offer() {
    let mut room = Room::new();
    for byte in [9, 3, 200, 77, 5] {
        room.add(byte, plan(None));
    }
    assert!(room.all_linked());
    assert_eq!(room.offers(), 0);
    let mut fragments = BTreeSet::new();
    for newcomer in 0..5 {
        for other in 0..newcomer {
            let (ours, theirs) = (room.link(newcomer, other), room.link(other, newcomer));
            assert_ne!(ours.controlling, theirs.controlling);
            assert_eq!((ours.head_start_ms, theirs.head_start_ms), (20, 1000));
            fragments.extend([ours.local.ufrag.clone(), theirs.local.ufrag.clone()]);
        }
    }
    assert_eq!(fragments.len(), 20, "each end of each pair has its own credentials");
}

#[test]
fn whoever_invites_nobody_is_offered_a_session() {
    let mut room = Room::new();
    room.add(9, plan(None));
    room.invites = false;
    room.add(3, plan(None));
    room.add(200, plan(None));
    assert!(room.all_linked());
    assert_eq!(room.offers(), 3);
}

#[test]
fn what_an_end_learns_later_gets_to_the_other() {
    let (early, late, last) = ("192.0.2.1:1", "192.0.2.2:2", "192.0.2.3:3");
    let mut room = Room::new();
    let a = room.add(9, plan(None));
    // Nobody is there to be told, and the room is not told of each address.
    room.learn(a, early);
    let b = room.add(3, plan(None));
    assert_eq!(room.link(b, a).candidates, [early.parse().unwrap()]);
    room.learn(b, late);
    room.learn(a, last);
    assert_eq!(room.link(a, b).candidates, [late.parse().unwrap()]);
    assert_eq!(room.link(b, a).candidates, [early, last].map(|at| at.parse().unwrap()));
    // Once it is complete, the room hears all of it, and nobody twice.
    room.event(a, Event::GatheringDone);
    room.settle();
    let announced = room.nodes[a].announced.clone().unwrap().invitation.unwrap();
    assert_eq!(announced.candidates.len(), 2);
}

#[test]
fn one_that_came_back_unnoticed_offers_after_a_while() {
    for (first, second) in [(9, 3), (3, 9)] {
        let mut room = Room::new();
        let (_, b) = (room.add(first, plan(None)), room.add(second, plan(None)));
        room.die_and_return(b, Memory::default());
        assert!(!room.all_linked(), "the other end still thinks that it is linked");
        assert_eq!(room.offers(), 0);
        room.advance(Duration::from_secs(9));
        assert!(room.all_linked());
        assert_eq!(room.nodes[b].offers, 1);
    }
}

#[test]
fn one_that_came_back_and_remembers_offers_at_once() {
    for (first, second) in [(9, 3), (3, 9)] {
        let mut room = Room::new();
        let (_, b) = (room.add(first, plan(None)), room.add(second, plan(None)));
        let now = room.now;
        let memory = room.nodes[b].policy.memory_to_keep(now).cloned().unwrap();
        room.die_and_return(b, memory);
        assert!(room.all_linked());
        assert_eq!(room.nodes[b].offers, 1);
    }
}

#[test]
fn an_invitation_is_good_for_one_session() {
    let mut room = Room::new();
    let (a, b) = (room.add(200, plan(None)), room.add(3, plan(None)));
    let first = room.link(a, b).local.clone();
    room.fail(a, b);
    room.fail(b, a);
    room.advance(Duration::from_secs(2));
    assert!(room.all_linked());
    assert_ne!(room.link(a, b).local, first);
    assert_eq!(room.offers(), 1);
}

#[test]
fn a_session_waits_for_an_end_that_hears_late() {
    for (first, second) in [(9, 3), (3, 9)] {
        let mut room = Room::new();
        let a = room.add(first, plan(None));
        room.slow = Some(1);
        let b = room.add(second, plan(None));
        let session = room.link(a, b).session;
        room.advance(Duration::from_secs(6));
        assert!(!room.all_linked());
        room.slow = None;
        let held = std::mem::take(&mut room.held);
        room.queue.extend(held);
        room.settle();
        assert!(room.all_linked());
        assert_eq!(room.link(a, b).session, session, "nothing is begun anew");
    }
}

#[test]
fn a_newcomer_waits_as_long_as_the_servers_word_may_be_held_up() {
    for (rtt_ms, head_start_ms) in [(0, 20), (60, 50), (1000, 200)] {
        let mut room = Room::new();
        let a = room.add(9, plan(None));
        room.newcomers_rtt = Duration::from_millis(rtt_ms);
        let b = room.add(3, plan(None));
        assert_eq!(room.link(b, a).head_start_ms, head_start_ms);
        assert_eq!(room.link(a, b).head_start_ms, 1000);
    }
}
