//! The soak program's rounds, each small: whatever the underlay does, what arrives is right.

#![allow(missing_docs, clippy::unwrap_used)]

use ipop_system_tests::soak::{Limit, Place, Sums, WEATHERS, Weather};

/// For debug builds of everything on a busy machine.
const LIMIT: Limit = Limit { stream_bytes: 64 << 20, datagrams: 20_000, until: None };

fn round(name: &str) -> (Weather, Sums) {
    let weather = *WEATHERS.iter().find(|weather| weather.name == name).unwrap();
    let sums = Place::build(&weather).round(LIMIT, 1);
    assert!(sums.is_right(), "{name}: {sums:#?}");
    assert_eq!(sums.stream_bytes, 4 * LIMIT.stream_bytes, "{name}: {sums:#?}");
    assert_eq!(sums.datagrams_sent, 4 * LIMIT.datagrams, "{name}: {sums:#?}");
    assert!(sums.datagrams > 2 * LIMIT.datagrams, "{name}: {sums:#?}");
    (weather, sums)
}

#[test]
fn joined_datagrams_arrive_right() {
    round("joined datagrams");
}

#[test]
fn all_is_right_in_a_storm_over_ipv6() {
    let (_, sums) = round("storm, IPv6 underlay");
    for count in [sums.cable_lost, sums.cable_doubled, sums.cable_delayed] {
        assert!(count > 0, "{sums:#?}");
    }
}

#[test]
fn all_is_right_in_a_storm_with_frames_that_are_too_large() {
    let (_, sums) = round("storm, large and usual MTU");
    assert!(sums.cable_lost > 0 && sums.cable_damaged > 0, "{sums:#?}");
}

#[test]
fn all_is_right_in_a_storm_of_single_datagrams() {
    round("storm of single datagrams");
}
