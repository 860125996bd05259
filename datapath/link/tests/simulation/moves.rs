//! Machines that move while their link carries traffic, and routers that forget.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::nat::Kind;
use crate::support::{Faults, World};
use ipop_link::{LinkState, PathKind};

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn up(kinds: [Kind; 2]) -> World {
    let mut world = World::new(&kinds, Faults::default(), 1).with_servers();
    world.run(milliseconds(200));
    world.open(0, 1, 1);
    world.run_until(Duration::from_secs(10), |world| world.is_up(0, 1)).expect("up");
    world.run(Duration::from_secs(7));
    traffic(&mut world, Duration::from_secs(2));
    world
}

/// A frame each way every 20 ms. Returns the longest time in which none came, either way.
fn traffic(world: &mut World, time: Duration) -> Duration {
    let mut pause = [milliseconds(0); 2];
    let mut heard = [world.now; 2];
    let end = world.now + time;
    let mut report = world.now;
    while world.now < end {
        for at in [0, 1] {
            let peer = world.fingerprint(1 - at);
            world.machines[at].send_frame(peer, b"frame");
            if world.now >= report {
                world.machines[at].report_traffic(world.now, peer);
            }
        }
        if world.now >= report {
            report = world.now + milliseconds(500);
        }
        world.machines.iter_mut().for_each(|machine| machine.frames.clear());
        world.run(milliseconds(20));
        for at in [0, 1] {
            if !world.machines[at].frames.is_empty() {
                heard[at] = world.now;
            }
            pause[at] = pause[at].max(world.now - heard[at]);
        }
    }
    pause[0].max(pause[1])
}

/// The machine has these addresses now, and knows it.
fn move_to(world: &mut World, at: usize, address: &str) {
    let hosts: Vec<SocketAddr> = vec![address.parse().expect("an address")];
    let now = world.now;
    world.machines[at].hosts.clone_from(&hosts);
    world.machines[at].node.set_hosts(now, &hosts);
}

#[test]
fn a_machine_that_changes_its_address_is_back_within_half_a_second() {
    for mover in [0, 1] {
        for other in [Kind::Public, Kind::PortRestricted] {
            let kinds = if mover == 0 {
                [Kind::PortRestricted, other]
            } else {
                [other, Kind::PortRestricted]
            };
            let mut world = up(kinds);
            let again = format!("10.0.{mover}.77:5000");
            move_to(&mut world, mover, &again);
            let pause = traffic(&mut world, Duration::from_secs(5));
            assert!(pause <= milliseconds(500), "machine {mover}, the other {other:?}: {pause:?}");
            let peer = world.fingerprint(1 - mover);
            let machine = &world.machines[mover];
            assert_eq!(machine.state(peer), Some(LinkState::Up));
            assert_eq!(
                machine.status(peer).expect("a link").path.expect("a path").local.to_string(),
                again
            );
            assert_eq!(machine.installed, 1, "with the same keys");
        }
    }
}

#[test]
fn a_router_that_is_switched_off_and_on_costs_less_than_three_seconds() {
    for mover in [0, 1] {
        for kind in [Kind::PortRestricted, Kind::Symmetric] {
            let kinds = if mover == 0 { [kind, Kind::Public] } else { [Kind::Public, kind] };
            let mut world = up(kinds);
            world.routers[mover].restart();
            let pause = traffic(&mut world, Duration::from_secs(6));
            assert!(pause <= milliseconds(3000), "machine {mover} behind {kind:?}: {pause:?}");
            assert!(world.is_up(0, 1));
        }
    }
}

#[test]
fn a_direct_path_that_dies_silently_gives_way_to_the_relay_within_two_seconds() {
    let mut world = up([Kind::PortRestricted, Kind::PortRestricted]);
    let outside = [world.routers[0].outside(), world.routers[1].outside()];
    world.cut.push((outside[0], outside[1]));
    let pause = traffic(&mut world, Duration::from_secs(10));
    assert!(pause <= milliseconds(2000), "{pause:?}");
    let status = world.machines[0].status(world.fingerprint(1)).expect("a link");
    assert_eq!(status.path.expect("a path").kind, PathKind::Relayed);
    // Until the relay's channel is there, frames go where they went.
    assert_eq!(world.machines.iter().map(|machine| machine.pathless).sum::<usize>(), 0);
}

#[test]
fn an_address_that_goes_and_comes_back_is_used_again() {
    let mut world = up([Kind::Public, Kind::Public]);
    let home = world.machines[0].hosts[0];
    let now = world.now;
    world.machines[0].node.set_hosts(now, &[]);
    world.run(Duration::from_secs(3));
    assert_eq!(world.machines[0].state(world.fingerprint(1)), Some(LinkState::Disconnected));
    let now = world.now;
    world.machines[0].node.set_hosts(now, &[home]);
    let took = world.run_until(Duration::from_secs(5), |world| world.is_up(0, 1)).expect("up");
    assert!(took < milliseconds(200), "{took:?}");
}

/// One way only, as of a camera: who only sends hears nothing but answers to its own pings.
#[test]
fn traffic_one_way_is_no_reason_for_suspicion() {
    let mut world = up([Kind::Public, Kind::Public]);
    let before = world.datagrams;
    let mut frames = 0;
    for round in 0..1500 {
        let peer = world.fingerprint(1);
        frames += u64::from(world.machines[0].send_frame(peer, b"frame"));
        if round % 25 == 0 {
            world.machines[0].report_traffic(world.now, peer);
        }
        world.run(milliseconds(20));
    }
    let others = world.datagrams - before - frames;
    assert!(others < 30 * 12, "{others} datagrams besides in 30 s");
    assert!(world.is_up(0, 1));
}

#[test]
fn the_other_lanes_never_stay_behind_the_first() {
    let kinds = [Kind::PortRestricted, Kind::Public];
    let mut world = World::with_lanes(&[2, 2], &kinds, Faults::default(), 1);
    world.run(milliseconds(200));
    world.open(0, 1, 1);
    let peers = [world.fingerprint(1), world.fingerprint(0)];
    let lanes_of = |world: &World| [0, 1].map(|at| world.machines[at].lane_paths(peers[at]));
    let has_lanes = |world: &World| lanes_of(world).iter().all(|lanes| lanes[..] != [None]);
    let both_up = |world: &World| world.is_up(0, 1) && has_lanes(world);
    world.run_until(Duration::from_secs(10), both_up).expect("two lanes");
    let before = world.machines[0].status(peers[0]).expect("a link").path;
    move_to(&mut world, 0, "10.0.0.77:5000");
    for _ in 0..1000 {
        world.run(milliseconds(1));
        let path = world.machines[0].status(peers[0]).expect("a link").path;
        if path != before {
            let home = path.expect("a path").local.ip();
            let [lanes, _] = lanes_of(&world);
            assert!(lanes.iter().flatten().all(|lane| lane.local.ip() == home), "{lanes:?}");
        }
    }
    assert!(both_up(&world), "{:?}", lanes_of(&world));
    let home = "10.0.0.77".parse::<std::net::IpAddr>().expect("an address");
    assert!(lanes_of(&world)[0].iter().flatten().all(|lane| lane.local.ip() == home));
}
