//! Inner headers survive: packets that crossed the overlay are compared with those that were sent,
//! and with the same packets over a plain cable, bit by bit.
//!
//! Three ways to get packets: made by hand, for headers that hosts rarely send; recorded from real
//! traffic over plain cables, and sent again; and real traffic through the overlay itself. What may
//! differ is named in `ipop_system_tests::headers::Allowed`.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "headers/crafted.rs"]
mod crafted;
#[path = "headers/link.rs"]
mod link;
#[path = "headers/real.rs"]
mod real;

use std::time::Duration;

use ipop_lab::Impairment;
use ipop_system_tests::headers::{Way, compare, on_wire};

use link::{Overlay, Plain};

/// What is sent at once in tests of batches: more than the datapath handles in one turn.
const BURST: usize = 24;

/// For frames that a packet socket sends with a VLAN tag in them: the kernel takes their IP header
/// for the tag's rest when it chooses a tap queue, so frames of one flow and different length take
/// different queues and lanes. Those of a VLAN interface or a bridge, whose tag stands beside them,
/// do not.
const ONE_LANE: &str = "--workers 1 --queues 1";

fn packets(frames: &[ipop_lab::RawFrame]) -> Vec<Vec<u8>> {
    frames.iter().flat_map(on_wire).collect()
}

#[test]
fn crafted_frames_cross_a_cable_and_the_overlay_alike() {
    cross_alike("", &crafted::groups());
}

#[test]
fn tagged_frames_cross_a_cable_and_the_overlay_alike() {
    cross_alike(ONE_LANE, &[crafted::vlan()]);
}

fn cross_alike(flags: &str, groups: &[crafted::Group]) {
    let plain = Plain::new(None);
    let overlay = Overlay::new(flags, Impairment::default());
    for (name, frames) in groups {
        let sent = packets(frames);
        for burst in [1, BURST] {
            let by_cable = plain.link().cross(frames, burst);
            let by_overlay = overlay.link().cross(frames, burst);
            for (way, got) in [("cable", by_cable), ("overlay", by_overlay)] {
                compare(&sent, &got, Way::Faithful)
                    .unwrap_or_else(|text| panic!("{name}, {burst} at once, by {way}: {text}"));
            }
        }
    }
}

#[test]
fn frames_larger_than_the_path_cross_whole() {
    let overlay = Overlay::new(&format!("--mtu 9000 {ONE_LANE}"), Impairment::default());
    let tagged = [crafted::vlan()];
    for (name, frames) in crafted::groups().into_iter().chain(crafted::large()).chain(tagged) {
        let got = overlay.link().cross(&frames, BURST);
        let allowed = compare(&packets(&frames), &got, Way::Faithful);
        allowed.unwrap_or_else(|text| panic!("{name}: {text}"));
    }
}

#[test]
fn recorded_traffic_crosses_the_overlay_unchanged() {
    let lossy = Impairment { delay: Duration::from_millis(1), loss: 0.01, ..Impairment::default() };
    let overlay = Overlay::new("", Impairment::default());
    for (name, cable) in [("clear", None), ("lossy", Some(lossy))] {
        let plain = Plain::new(cable);
        let recorded = real::record(&plain.link(), || real::traffic(&plain.link()));
        for (way, frames) in recorded.into_iter().enumerate() {
            let seen = real::seen(&packets(&frames));
            assert!(seen.is_rich(name == "lossy"), "{name}, way {way}: {seen:?}");
            let got = overlay.link().turned(way == 1).cross(&frames, BURST);
            let allowed = compare(&packets(&frames), &got, Way::Faithful)
                .unwrap_or_else(|text| panic!("{name}, way {way}: {text}"));
            println!("{name}, way {way}: {} packets, {allowed:?}", got.len());
        }
    }
}

#[test]
fn live_traffic_comes_out_as_it_went_in() {
    live(Impairment::default(), Way::Lossy);
}

#[test]
fn what_comes_of_super_segments_with_gaps_is_right() {
    let delay = Duration::from_micros(200);
    live(Impairment { delay, loss: 0.01, joins: true, ..Impairment::default() }, Way::Lossy);
}

#[test]
fn what_comes_of_swapped_and_doubled_datagrams_is_right() {
    let delay = Duration::from_micros(200);
    let cable = Impairment { reorder: 0.01, duplicate: 0.02, delay, ..Impairment::default() };
    live(Impairment { joins: true, ..cable }, Way::Unordered);
}

/// Compares real traffic at both taps. Even without a fault of the cable a queue may overflow.
fn live(cable: Impairment, way: Way) {
    let overlay = Overlay::new("", cable);
    let link = overlay.link();
    let captured = real::capture_ends(&link, || real::traffic(&link));
    for (number, [sent, got]) in captured.into_iter().enumerate() {
        let (sent, got) = (packets(&sent), packets(&got));
        assert!(got.len() > 1000, "way {number}: {} packets", got.len());
        let allowed =
            compare(&sent, &got, way).unwrap_or_else(|text| panic!("way {number}: {text}"));
        println!("way {number}: {} packets sent, {} came, {allowed:?}", sent.len(), got.len());
    }
}
