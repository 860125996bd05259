//! The hub with a standard client: slixmpp from Debian's packages.

#![allow(clippy::unwrap_used)]

mod common;

use common::{HubServer, Server, network};
use ipop_hub::Hub;
use std::process::Command;

#[test]
fn slixmpp_talks() {
    network::private("slixmpp_talks", async {
        let server = HubServer::new();
        let password = |user| Hub::add_account(server.state(), user).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/standard_client.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).arg("5223").arg(server.state().join("ca.crt"));
        command.arg(server.domain()).arg(password("alice")).arg(password("bob"));
        let run = tokio::task::spawn_blocking(move || command.output());
        let output = run.await.unwrap().expect("this test needs Debian's package python3-slixmpp");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success() && text(&output.stdout).contains("all well"),
            "{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
    });
}
