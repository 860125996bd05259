//! The NAT matrix with real Prosody and coturn and 15 ms per cable: a few kinds always, and all of
//! them by `tests/matrix`, which takes half an hour and leaves a table and a picture in
//! `target/matrix`. `IPOP_MATRIX` names other kinds, as `ipop lab --nat` does.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use ipop_lab::{InternetConfig, Nat};
use ipop_system_tests::{Hope, Outcome, Stage, hope, summary, svg, table};

const DELAY: Duration = Duration::from_millis(15);
const LINK_PATIENCE: Duration = Duration::from_secs(20);
/// Two tries of what takes luck.
const DIRECT_PATIENCE: Duration = Duration::from_secs(45);
/// As long as a relayed pair is watched for becoming direct against hope.
const RELAY_PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

fn until(limit: Instant, mut holds: impl FnMut() -> bool) -> bool {
    while !holds() {
        if Instant::now() > limit {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    true
}

/// Two nodes on a stage that is otherwise empty, and is so again afterwards.
fn measure(stage: &mut Stage, nats: [Nat; 2]) -> Outcome {
    let start = Instant::now();
    for nat in nats {
        stage.add(nat);
    }
    let (a, b) = stage.pair();
    let hope = hope(nats);
    // Without UDP the answer is known; a look at that suffices.
    let patience = if hope == Hope::Nothing { PAUSE } else { LINK_PATIENCE };
    let both = |holds: &dyn Fn(&_, &_) -> bool| holds(a, b) && holds(b, a);
    let is_linked = until(start + patience, || {
        // There is no status before there is a node.
        both(&|one, other| one.row(other).is_some()) && both(&|one, other| one.is_linked_to(other))
    });
    let linked = is_linked.then(|| start.elapsed());
    let patience = match hope {
        Hope::Direct => DIRECT_PATIENCE,
        Hope::Perhaps | Hope::Relayed => RELAY_PATIENCE,
        Hope::Nothing => Duration::ZERO,
    };
    let is_direct = is_linked
        && until(start + patience, || {
            both(&|one, other| {
                let link = one.link_to(other);
                link["path"] == "direct" && link["state"] == "up"
            })
        });
    let direct = is_direct.then(|| start.elapsed());
    stage.clear();
    Outcome { nats, linked, direct }
}

fn run(kinds: &[Nat]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for row in kinds {
        let config = InternetConfig { delay: DELAY, ..InternetConfig::default() };
        let mut stage = Stage::prosody_in(config);
        for column in kinds {
            let outcome = measure(&mut stage, [*row, *column]);
            println!("{row} {column}: linked {:?}, direct {:?}", outcome.linked, outcome.direct);
            outcomes.push(outcome);
        }
    }
    println!("{}\n{}", table(kinds, &outcomes), summary(&outcomes));
    outcomes
}

fn assert_hopes(outcomes: &[Outcome]) {
    for outcome in outcomes {
        let hope = hope(outcome.nats);
        assert!(outcome.linked.is_some() || hope == Hope::Nothing, "{outcome:?}");
        assert!(outcome.direct.is_some() || hope != Hope::Direct, "{outcome:?}");
    }
}

#[test]
fn a_few_kinds_of_each_sort() {
    assert_hopes(&run(&[Nat::AddressRestricted, Nat::PortRestricted, Nat::Carrier]));
}

#[test]
#[ignore = "takes half an hour: tests/matrix"]
fn all_kinds() {
    let named = std::env::var("IPOP_MATRIX").ok();
    let kinds: Vec<Nat> = match &named {
        Some(names) => names.split(',').map(|name| name.parse().unwrap()).collect(),
        None => Nat::all().to_vec(),
    };
    let outcomes = run(&kinds);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/matrix");
    std::fs::create_dir_all(&folder).unwrap();
    let text = format!("{}\n{}\n", table(&kinds, &outcomes), summary(&outcomes));
    std::fs::write(folder.join("matrix.md"), text).unwrap();
    std::fs::write(folder.join("matrix.svg"), svg(&kinds, &outcomes)).unwrap();
    assert_hopes(&outcomes);
}
