//! Each of an instance's two processes is killed under load.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipop_lab::Nat;
use ipop_system_tests::{
    Node, Pinging, Process, Stage, assert_all_answer, binary, eventually, is_running, transfer,
};
use rustix::process::Signal;

/// Conversion between clocks may round.
const ROUNDING_MS: u64 = 5;

#[test]
fn a_killed_controller_costs_no_packet() {
    let mut stage = Stage::prosody().join([Nat::PortRestricted, Nat::PortRestricted]);
    stage.await_links();
    let (a, b) = stage.pair();
    let (there, back) = (b.v4(), a.v4());
    let before = [a.row(b).unwrap(), b.row(a).unwrap()];
    let pings = [
        Pinging::start(a, there, 4000, Duration::from_millis(2)),
        Pinging::start(b, back, 4000, Duration::from_millis(2)),
    ];
    for _ in 0..3 {
        let dead = a.kill("controller");
        a.await_successor("controller", dead);
        std::thread::sleep(Duration::from_millis(500));
    }
    eventually("the new controller attaches", Duration::from_secs(10), || {
        let status = a.status();
        status["controller_alive"] == true
            && status["controller"]["signalling"].to_string().contains("online")
    });
    assert!(pings.iter().all(Pinging::is_running), "the pings cover it");
    pings.into_iter().for_each(Pinging::assert_lossless);
    let after = [a.row(b).unwrap(), b.row(a).unwrap()];
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.session, after.session, "the same session");
        let moved = before.established_ms.abs_diff(after.established_ms);
        assert!(moved <= ROUNDING_MS, "the same handshake: {before:?} {after:?}");
    }
    assert!(a.link_to(b)["handshake_age_s"].as_f64().unwrap() > 8.0);
    // It steers: a third is linked by it.
    stage.add(Nat::PortRestricted);
    stage.await_links();
}

#[test]
fn a_killed_controller_does_not_stop_a_transfer() {
    let stage = Stage::prosody().join([Nat::None, Nat::None]);
    stage.await_links();
    let (a, b) = stage.pair();
    let target = b.v4();
    let is_done = AtomicBool::new(false);
    let kills = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut kills = 0;
            while !is_done.load(Ordering::Relaxed) {
                for node in [a, b] {
                    let dead = node.kill("controller");
                    node.await_successor("controller", dead);
                }
                kills += 1;
            }
            kills
        });
        let result = transfer(a, b, target, 128 << 20);
        is_done.store(true, Ordering::Relaxed);
        assert_eq!((result.bytes, result.corrupted), (128 << 20, 0));
        killer.join().unwrap()
    });
    assert!(kills > 0);
}

#[test]
fn a_killed_datapath_comes_back_with_its_links() {
    let stage = Stage::prosody().join([Nat::PortRestricted, Nat::PortRestricted]);
    stage.await_links();
    let (a, b) = stage.pair();
    let before = a.row(b).unwrap();
    let dead = a.kill("datapath");
    a.await_successor("datapath", dead);
    eventually("a new link", Duration::from_secs(30), || {
        a.row(b).is_some_and(|row| row.established_ms > before.established_ms + ROUNDING_MS)
    });
    for node in [a, b] {
        node.wait_for(1, 30);
    }
    assert_all_answer(&stage.nodes);
}

/// Supervisor and both processes die at once, as by a power cut: nobody says goodbye.
fn kill_all(node: &mut Node) {
    node.process().signal(Signal::KILL);
    for role in ["controller", "datapath"] {
        node.kill(role);
    }
    node.process().wait(Duration::from_secs(5)).expect("killed");
}

#[test]
fn a_machine_comes_back_after_a_power_cut() {
    let mut stage = Stage::prosody().join([Nat::PortRestricted, Nat::PortRestricted]);
    stage.await_links();
    let mut dead = stage.nodes.pop().unwrap();
    kill_all(&mut dead);
    let config = stage.config(1);
    stage.start(1, &config);
    stage.await_links();
}

/// The configured address moves to another key while the dead one's link is still believed in.
#[test]
fn a_new_machine_takes_a_dead_ones_place() {
    let mut stage = Stage::prosody().join([Nat::PortRestricted, Nat::PortRestricted]);
    stage.await_links();
    let mut dead = stage.nodes.pop().unwrap();
    kill_all(&mut dead);
    let mut config = stage.config(1);
    config.identity = dead.scratch().path("another.pem");
    stage.start(1, &config);
    for node in &stage.nodes {
        node.wait_for(1, 60);
    }
}

#[test]
fn an_instance_whose_supervisor_was_killed_starts_again() {
    let mut stage = Stage::prosody().join([Nat::None, Nat::None]);
    stage.await_links();
    let mut first = stage.nodes.remove(0);
    let processes = ["datapath", "controller"].map(|role| first.pid_of(role));
    first.process().signal(Signal::KILL);
    first.process().wait(Duration::from_secs(5)).expect("killed");
    let mut command = first.command(binary());
    command.args(["up", "--config"]).arg(first.scratch().path("node.toml"));
    let mut again = Process::start(command, first.scratch().path("again"));
    eventually("it starts over what the dead one left", Duration::from_secs(30), || {
        assert!(again.is_running(), "{}", again.log());
        first.ipop("wait --peers 1 --timeout 1").status.success()
    });
    assert!(!processes.into_iter().any(is_running), "orphans are left");
    assert_eq!(again.stop().and_then(|status| status.code()), Some(0));
    assert!(!first.run_dir().exists());
}

/// The relays that the network offers are known to nobody but the controller that dies, and the
/// network, which is away.
#[test]
fn a_killed_controller_leaves_relays_alone() {
    let mut stage = Stage::prosody().join([Nat::Symmetric, Nat::Symmetric]);
    stage.await_links();
    stage.server.kill();
    let (a, b) = stage.pair();
    let before = a.link_to(b);
    assert_eq!(before["path"], "relayed", "{before}");
    let pings = [
        Pinging::start(a, b.v4(), 1500, Duration::from_millis(5)),
        Pinging::start(b, a.v4(), 1500, Duration::from_millis(5)),
    ];
    for node in [a, b] {
        let dead = node.kill("controller");
        node.await_successor("controller", dead);
        eventually("the new controller attaches", Duration::from_secs(10), || {
            node.status()["controller_alive"] == true
        });
    }
    assert!(pings.iter().all(Pinging::is_running), "the pings cover it");
    pings.into_iter().for_each(Pinging::assert_lossless);
    let after = a.link_to(b);
    assert_eq!((&after["local"], &after["remote"]), (&before["local"], &before["remote"]));
}
