//! The hub with our own client.

#![allow(clippy::unwrap_used)]

mod common;

use common::peer::{Peer, announcement};
use common::{HubServer, PORT, network, scenarios, slow};
use ipop_xmpp::Offer;
use std::time::Duration;

#[test]
fn logs_in_and_is_refused() {
    network::private("logs_in_and_is_refused", async {
        let server = HubServer::new();
        scenarios::logins(&server).await;
        scenarios::expectations(&server).await;
        scenarios::refusals(&server).await;
    });
}

#[test]
fn members_talk() {
    network::private("members_talk", async {
        let server = HubServer::new();
        scenarios::exchange(&server).await;
        scenarios::rooms(&server).await;
        scenarios::crowd(&server).await;
    });
}

#[test]
fn a_restart_is_survived() {
    network::private("a_restart_is_survived", async {
        scenarios::restart(&mut HubServer::new()).await;
    });
}

/// TLS, the user's first word, and then its last one together with all that enters the room; the
/// round trip for TCP is not counted.
#[test]
fn who_has_a_ticket_is_in_after_three_round_trips() {
    network::private("who_has_a_ticket_is_in_after_three_round_trips", async {
        let server = HubServer::new();
        // So long that what one end says at once is one word.
        let slow = slow::proxy(PORT, Duration::from_millis(100)).await;
        let node = announcement("alpha", 1);
        let mut config = server.node_config(&node.fingerprint.uid_hex());
        config.servers[0].port = slow.port;
        config.servers[0].security = ipop_xmpp::Security::DirectTls;
        config.expected = Some(Offer {
            mechanisms: ipop_hub::MECHANISMS.map(str::to_owned).to_vec(),
            binds_exporter: false,
            pipelines: true,
        });
        let mut peer = Peer::start(config, node);
        peer.online().await;
        assert_eq!(slow.turns(), 3);
        peer.stop().await;
    });
}
