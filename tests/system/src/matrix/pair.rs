//! One pair on a stage that is otherwise empty, and is so again afterwards.

use std::path::Path;
use std::time::{Duration, Instant};

use ipop_lab::{Impairment, Nat};
use ipop_steer::{LinkRow, LinkState, PathKind};

use super::traces::connected;
use super::{Hope, Outcome, hope};
use crate::{Node, Pinging, Scratch, Stage, first_answer};

const LINK_PATIENCE: Duration = Duration::from_secs(30);
/// Two tries of what takes luck.
const DIRECT_PATIENCE: Duration = Duration::from_secs(45);
/// As long as a relayed pair is watched for becoming direct against hope.
const RELAY_PATIENCE: Duration = Duration::from_secs(5);
/// As long as one is watched that has no UDP to be direct by.
const STREAM_PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);
/// A link that took longer is worth a look.
const SLOW: Duration = Duration::from_secs(3);

/// How two nodes behind routers of these kinds, which never met, find to each other. What they say
/// of it is left in `folder` where they fall short or are slow, or `keeps_all`.
pub fn measure(stage: &mut Stage, nats: [Nat; 2], folder: &Path, keeps_all: bool) -> Outcome {
    let keys = Scratch::new();
    let numbers = nats.map(|nat| stage.add_site(nat, Impairment::default()));
    let configs = numbers.map(|number| {
        let mut config = stage.config(number);
        config.identity = keys.path(&format!("{number}.pem"));
        config
    });
    let start = Instant::now();
    for (number, config) in numbers.into_iter().zip(&configs) {
        stage.start(number, config);
    }
    let mut outcome = std::thread::scope(|scope| {
        let (a, _) = stage.pair();
        let to = Stage::overlay_address(numbers[1]).into();
        let pinged = scope.spawn(move || first_answer(a, to, start, LINK_PATIENCE));
        let outcome = watch(stage, nats, start);
        Outcome { pinged: pinged.join().unwrap(), ..outcome }
    });
    if outcome.linked.is_some() {
        let (a, b) = stage.pair();
        outcome.connected = connected(a, b);
        outcome.answers = answer(a, b);
    }
    let is_slow = outcome.linked.is_none_or(|linked| linked > SLOW);
    let is_unlucky = hope(nats) == Hope::Likely && outcome.direct.is_none();
    if keeps_all || outcome.shortfall().is_some() || is_slow || is_unlucky {
        stage.nodes.iter().zip(["first", "second"]).for_each(|(node, name)| {
            keep(node, &folder.join(name), &outcome);
        });
    }
    stage.clear();
    outcome
}

/// When the two are linked, and direct.
fn watch(stage: &Stage, nats: [Nat; 2], start: Instant) -> Outcome {
    let (a, b) = stage.pair();
    let both = |holds: fn(&LinkRow) -> bool| {
        [(a, b), (b, a)].iter().all(|(one, other)| one.row(other).as_ref().is_some_and(holds))
    };
    let linked = until(start, LINK_PATIENCE, || both(|row| row.state == LinkState::Up));
    let outcome = Outcome::new(nats);
    let patience = match hope(nats) {
        Hope::Direct | Hope::Likely => DIRECT_PATIENCE,
        Hope::Relayed if outcome.needs_stream() => STREAM_PATIENCE,
        Hope::Relayed => RELAY_PATIENCE,
    };
    let is_direct =
        |row: &LinkRow| (row.state, row.path) == (LinkState::Up, Some(PathKind::Direct));
    let direct = linked.and_then(|_| until(start, patience, || both(is_direct)));
    Outcome { linked, direct, ..outcome }
}

/// How long after `start` it holds, if it does in time.
fn until(start: Instant, patience: Duration, holds: impl Fn() -> bool) -> Option<Duration> {
    loop {
        if holds() {
            return Some(start.elapsed());
        }
        if start.elapsed() > patience {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

fn answer(a: &Node, b: &Node) -> bool {
    let pings = [(a, b), (b, a)]
        .map(|(from, to)| Pinging::start(from, to.v4(), 3, Duration::from_millis(20)));
    pings.map(Pinging::finish).iter().all(Vec::is_empty)
}

/// All that a node can say.
fn keep(node: &Node, folder: &Path, outcome: &Outcome) {
    std::fs::create_dir_all(folder).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    write("outcome", format!("{outcome:?}\n{}\n", node.name).as_bytes());
    write("status", &node.ipop("status --verbose").stdout);
    write("trace", &node.ipop("trace --for 0").stdout);
    write("log", node.log().as_bytes());
}
