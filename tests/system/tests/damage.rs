//! Datagrams that were damaged, cut or repeated on the way are dropped and counted; what arrives
//! through the overlay is right to the last byte.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::atomic::Ordering;
use std::time::Duration;

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{Stage, eventually, transfer};

const BYTES: u64 = 12 << 20;

/// Two public machines, the first on a cable of its own.
fn on_a_cable(delay: Duration) -> Stage {
    let mut stage = Stage::prosody();
    stage.add_site(Nat::None, Impairment { delay, ..Impairment::default() });
    stage.add_site(Nat::None, Impairment::default());
    for number in 0..2 {
        let config = stage.config(number);
        stage.start(number, &config);
    }
    stage.await_links();
    stage
}

#[test]
fn damaged_datagrams_are_dropped_and_counted() {
    let delay = Duration::from_micros(200);
    let stage = on_a_cable(delay);
    let (a, b) = stage.pair();
    let wire = stage.sites[0].wire.as_ref().unwrap();
    wire.impair(Impairment {
        delay,
        corrupt: 0.01,
        truncate: 0.02,
        duplicate: 0.02,
        reorder: 0.01,
        seed: 7,
        ..Impairment::default()
    });
    for (from, to) in [(a, b), (b, a)] {
        for address in [to.v4(), to.v6()] {
            let result = transfer(from, to, address, BYTES);
            assert_eq!((result.bytes, result.corrupted), (BYTES, 0), "{address}");
        }
    }
    let faults = wire.faults();
    for count in [&faults.corrupted, &faults.truncated, &faults.duplicated] {
        assert!(count.load(Ordering::Relaxed) > 100, "{faults:?}");
    }
    for node in [a, b] {
        eventually("each damage is counted", Duration::from_secs(5), || {
            ["forged", "truncated", "replayed"].iter().all(|reason| node.drops(reason) > 0)
        });
    }
    wire.impair(Impairment { delay, ..Impairment::default() });
    assert_eq!(transfer(a, b, b.v4(), BYTES).corrupted, 0);
    assert!(a.is_linked_to(b));
}

#[test]
fn a_lossy_way_still_links_and_carries() {
    let mut stage = Stage::prosody();
    let delay = Duration::from_millis(5);
    for _ in 0..2 {
        let number = stage.add_site(
            Nat::PortRestricted,
            Impairment {
                delay,
                loss: 0.05,
                duplicate: 0.02,
                reorder: 0.05,
                ..Impairment::default()
            },
        );
        let config = stage.config(number);
        stage.start(number, &config);
    }
    stage.await_links();
    let (a, b) = stage.pair();
    let result = transfer(a, b, b.v4(), 2 << 20);
    assert_eq!((result.bytes, result.corrupted), (2 << 20, 0));
}
