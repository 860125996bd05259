//! The client against Prosody.

#![allow(clippy::unwrap_used)]

mod common;

use common::peer::{Peer, announcement};
use common::prosody::Prosody;
use common::{Server, network, scenarios};
use ipop_signal::Transport;

#[test]
fn logs_in_and_is_refused() {
    network::private("logs_in_and_is_refused", async {
        let server = Prosody::new();
        scenarios::logins(&server).await;
        scenarios::expectations(&server).await;
        // Its default storage of passwords allows no more than SHA-1.
        let log = server.log();
        assert!(log.contains("mechanism='SCRAM-SHA-1'") && !log.contains("mechanism='PLAIN'"));
        scenarios::refusals(&server).await;
    });
}

#[test]
fn members_talk() {
    network::private("members_talk", async {
        let server = Prosody::new();
        scenarios::exchange(&server).await;
        scenarios::rooms(&server).await;
        scenarios::crowd(&server).await;
    });
}

#[test]
fn a_restart_is_survived() {
    network::private("a_restart_is_survived", async {
        scenarios::restart(&mut Prosody::new()).await;
    });
}

/// mod_turn_external leaves the credentials of `turns` out; those of `turn` are meant.
#[test]
fn servers_are_found() {
    network::private("servers_are_found", async {
        let server = Prosody::new();
        let mut peer = Peer::start(server.config("alice"), announcement("alpha", 1));
        let servers = peer.ice_servers().await;
        assert_eq!(servers.stun[0].to_string(), "turn.prosody.test:3478");
        let over = |transport| servers.turn.iter().find(|turn| turn.transport == transport);
        let udp = over(Transport::Udp).unwrap();
        assert!(!udp.username.is_empty() && !udp.password.is_empty());
        let tls = over(Transport::Tls).unwrap();
        assert_eq!((&tls.username, &tls.password), (&udp.username, &udp.password));
        assert!(udp.expires_unix_s.is_some());
        peer.stop().await;
    });
}
