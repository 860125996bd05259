//! Links that are opened once more with the credentials of a session that was up before: what
//! nodes do that start, or lose a link, while nobody carries new ones.

use std::time::Duration;

use crate::support::nat::Kind;
use crate::support::{Faults, World};
use ipop_link::{CommandError, Event, LinkState, WORDS_LEN_MAX};

const NATS: [Kind; 2] = [Kind::PortRestricted, Kind::PortRestricted];

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Machine 0 has offered, and both are up since a while.
fn up(kinds: &[Kind], lanes: u8) -> World {
    let mut world = World::with_lanes(&[lanes; 2], kinds, Faults::default(), 1).with_servers();
    world.run(Duration::from_millis(200));
    world.open(0, 1, 1);
    world.run_until(seconds(10), |world| world.is_up(0, 1)).expect("up");
    world.run(seconds(20));
    world
}

#[test]
fn a_restarted_node_is_noticed_at_once_in_both_roles() {
    for restarted in [0, 1] {
        for (lanes, kinds) in [(1, NATS), (3, [Kind::Public, Kind::Public])] {
            let mut world = up(&kinds, lanes);
            let peer = 1 - restarted;
            let before = world.machines[peer].told().len();
            world.restart(restarted, lanes);
            world.reopen(restarted, peer, (9, 1), restarted == 0);
            let of_restarted = world.fingerprint(restarted);
            let of_peer = world.fingerprint(peer);
            let took = world.run_until(seconds(30), |world| {
                world.machines[restarted].state(of_peer) == Some(LinkState::Up)
            });
            let took = took.unwrap_or_else(|| panic!("{:?}", world.machines[restarted].told()));
            assert!(took < Duration::from_millis(500), "{took:?}");
            world.run(seconds(1));
            assert_eq!(world.talk(0, 1, 50), [50, 50]);
            assert_eq!(world.machines[peer].state(of_restarted), Some(LinkState::Up));
            let told = world.machines[peer].told();
            assert_eq!(told.len(), before, "never down: {told:?}");
            let paths = world.machines[restarted].lane_paths(of_peer);
            assert_eq!(paths.iter().flatten().count(), usize::from(lanes) - 1, "its lanes");
        }
    }
}

#[test]
fn both_ends_restarted_meet_again_without_a_word() {
    let mut world = up(&NATS, 1);
    world.restart(0, 1);
    world.restart(1, 1);
    let known = [0, 1].map(|at| world.machines[at].node.local_candidates().to_vec());
    assert!(known.iter().all(|candidates| !candidates.is_empty()));
    world.reopen(0, 1, (5, 1), true);
    world.run(seconds(3));
    world.reopen(1, 0, (6, 1), false);
    let outside = [0, 1].map(|at| {
        let host = world.machines[at].hosts[0];
        world.routers[at].leave(world.now, host, "198.51.100.1:3478".parse().expect("an address"))
    });
    for (at, peer) in [(0, 1), (1, 0)] {
        let session = [5, 6][at];
        let mut candidate = known[peer][0].clone();
        candidate.address = outside[peer].expect("translated");
        candidate.kind = ipop_link::CandidateKind::ServerReflexive;
        let (now, of_peer) = (world.now, world.fingerprint(peer));
        let node = &mut world.machines[at].node;
        node.add_remote_candidate(now, of_peer, session, candidate).expect("of use");
    }
    let took = world.run_until(seconds(15), |world| world.is_up(0, 1)).expect("up");
    assert!(took < seconds(2), "{took:?}");
    assert_eq!(world.talk(0, 1, 50), [50, 50]);
}

#[test]
fn credentials_serve_again_once_their_session_is_over() {
    let mut world = up(&NATS, 1);
    let of_peer = world.fingerprint(1);
    let now = world.now;
    let wish = |world: &World, session| ipop_link::OpenLink {
        peer: world.fingerprint(1),
        session,
        controlling: true,
        head_start: Duration::ZERO,
        local: crate::support::credentials(0, 1, 1),
        remote: Some(crate::support::credentials(1, 0, 1)),
    };
    let early = wish(&world, 2);
    let refused = world.machines[0].node.open_link(now, early);
    assert_eq!(refused, Err(CommandError::UfragInUse), "the session carries");
    let outside = [1, 2].map(|number| [203, 0, 113, number].into());
    world.cut.push((outside[0], outside[1]));
    world.cut.push((outside[0], [198, 51, 100, 1].into()));
    world.cut.push((outside[1], [198, 51, 100, 1].into()));
    let is_over = |world: &World| {
        [(0, 1), (1, 0)].into_iter().all(|(at, peer)| {
            world.machines[at].state(world.fingerprint(peer)) == Some(LinkState::Failed)
        })
    };
    world.run_until(seconds(60), is_over).expect("over");
    world.cut.clear();
    world.reopen(0, 1, (2, 1), true);
    world.run(seconds(2));
    world.reopen(1, 0, (3, 1), false);
    let took = world.run_until(seconds(15), |world| world.is_up(0, 1)).expect("up");
    assert!(took < seconds(1), "{took:?}");
    assert_eq!(world.talk(0, 1, 50), [50, 50]);
    assert_eq!(world.machines[0].status(of_peer).map(|status| status.session), Some(2));
}

/// While the link is silent, the controller looks for another way to the peer. The link comes back
/// first: the controller is told of it, under its own number, and the attempt is over.
#[test]
fn a_silent_link_that_comes_back_ends_the_attempt_at_another() {
    let mut world = up(&NATS, 1);
    let of_peer = world.fingerprint(1);
    let [ours, theirs, server] =
        [[203, 0, 113, 1], [203, 0, 113, 2], [198, 51, 100, 1]].map(std::net::IpAddr::from);
    world.cut.extend([(ours, theirs), (ours, server), (theirs, server)]);
    let is_silent =
        |world: &World| world.machines[0].state(of_peer) == Some(LinkState::Disconnected);
    world.run_until(seconds(20), is_silent).expect("silent");
    world.open_end(0, 1, 2, true, None);
    world.run(seconds(1));
    assert_eq!(world.machines[0].status(of_peer).map(|status| status.session), Some(2));
    world.cut.clear();
    let is_back = |world: &World| world.machines[0].state(of_peer) == Some(LinkState::Up);
    world.run_until(seconds(10), is_back).expect("back");
    assert_eq!(world.machines[0].status(of_peer).map(|status| status.session), Some(1));
    assert_eq!(world.machines[0].told().last(), Some(&LinkState::Up));
    world.run(seconds(60));
    assert!(world.is_up(0, 1));
    assert_eq!(world.talk(0, 1, 50), [50, 50]);
}

#[test]
fn controllers_talk_over_a_link_within_bounds() {
    let mut world = up(&NATS, 1);
    let (of_0, of_1) = (world.fingerprint(0), world.fingerprint(1));
    let say = |world: &mut World, words: Vec<u8>| {
        let now = world.now;
        world.machines[0].node.say(now, of_1, words)
    };
    let heard = |world: &World| {
        let events = world.machines[1].events.iter();
        let said = events.filter_map(|(_, event)| match event {
            Event::Words { peer, words } if *peer == of_0 => Some(words.clone()),
            _ => None,
        });
        said.collect::<Vec<_>>()
    };
    say(&mut world, vec![7; WORDS_LEN_MAX]).expect("said");
    assert_eq!(say(&mut world, vec![7; WORDS_LEN_MAX + 1]), Err(CommandError::CannotSay));
    world.run(seconds(1));
    assert_eq!(heard(&world), [vec![7; WORDS_LEN_MAX]]);
    for _ in 0..1000 {
        say(&mut world, vec![8]).expect("said");
    }
    world.run(seconds(1));
    let count = heard(&world).len();
    assert!((64..100).contains(&count), "{count}");
    world.run(seconds(10));
    say(&mut world, vec![9]).expect("said");
    world.run(seconds(1));
    assert_eq!(heard(&world).len(), count + 1, "it is heard again later");
    let now = world.now;
    let nobody = ipop_crypto::Fingerprint([0; 32]);
    let refused = world.machines[0].node.say(now, nobody, vec![1]);
    assert_eq!(refused, Err(CommandError::UnknownLink));
}
