//! The hub with our own client.

#![allow(clippy::unwrap_used)]

mod common;

use common::{HubServer, network, scenarios};

#[test]
fn logs_in_and_is_refused() {
    network::private("logs_in_and_is_refused", async {
        let server = HubServer::new();
        scenarios::logins(&server).await;
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
