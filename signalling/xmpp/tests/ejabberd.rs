//! The client against ejabberd.

#![allow(clippy::unwrap_used)]

mod common;

use common::ejabberd::Ejabberd;
use common::peer::{Peer, announcement};
use common::{Server, network, scenarios};

#[test]
fn logs_in_and_is_refused() {
    network::private("logs_in_and_is_refused", async {
        let server = Ejabberd::new();
        scenarios::logins(&server).await;
        scenarios::expectations(&server).await;
        assert!(server.log().contains("Accepted c2s SCRAM-SHA-256 authentication"));
        scenarios::refusals(&server).await;
    });
}

#[test]
fn members_talk() {
    network::private("members_talk", async {
        let server = Ejabberd::new();
        scenarios::exchange(&server).await;
        scenarios::rooms(&server).await;
        scenarios::crowd(&server).await;
    });
}

#[test]
fn a_restart_is_survived() {
    network::private("a_restart_is_survived", async {
        scenarios::restart(&mut Ejabberd::new()).await;
    });
}

/// mod_stun_disco gives literal addresses of both families.
#[test]
fn servers_are_found() {
    network::private("servers_are_found", async {
        let server = Ejabberd::new();
        let mut peer = Peer::start(server.config("alice"), announcement("alpha", 1));
        let servers = peer.ice_servers().await;
        assert_eq!(servers.stun[0].to_string(), "203.0.113.3:3478");
        assert_eq!(servers.turn.len(), 2);
        for turn in &servers.turn {
            assert!(turn.username.contains(':') && !turn.password.is_empty());
            assert!(turn.expires_unix_s.is_some());
        }
        peer.stop().await;
    });
}
