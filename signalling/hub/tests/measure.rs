//! What a hub bears. Run with `--release --ignored --nocapture`; prints, and asserts little.

#![allow(clippy::unwrap_used)]

mod common;

use common::peer::{Peer, announcement};
use common::{HubServer, network};
use ipop_signal::Fingerprint;
use std::time::Instant;

const NODES: usize = 300;

#[test]
#[ignore = "a measurement"]
fn a_crowd_enters() {
    network::private("a_crowd_enters", async {
        let server = HubServer::new();
        let start = Instant::now();
        let mut peers: Vec<Peer> = (0..NODES)
            .map(|number| {
                let mut node = announcement(&format!("node{number}"), number as u8);
                node.fingerprint = Fingerprint(std::array::from_fn(|at| match at {
                    0 => (number >> 8) as u8,
                    1 => number as u8,
                    _ => 7,
                }));
                let config = server.node_config(&node.fingerprint.uid_hex());
                Peer::start(config, node)
            })
            .collect();
        for peer in &mut peers {
            peer.online().await;
        }
        println!("{NODES} nodes online after {:?}", start.elapsed());
        let last = peers[NODES - 1].announcement.clone();
        for peer in &mut peers[..NODES - 1] {
            peer.sees(&last).await;
        }
        println!("all see the last after {:?}", start.elapsed());
    });
}
