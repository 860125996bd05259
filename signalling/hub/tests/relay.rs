//! STUN and TURN with coturn's client, which knows nothing of us.

#![allow(clippy::unwrap_used)]

mod common;

use common::peer::{Peer, announcement};
use common::{HubServer, network};
use ipop_signal::TurnServer;
use std::process::{Child, Command, Output, Stdio};

/// The hub's address as clients reach it, and where the peer is.
const HUB: &str = "192.0.2.1";
const PEER: &str = "198.51.100.1";
const UID: &str = "00112233445566778899aabbccddeeff00112233";

fn run(command: &str) -> Output {
    let mut words = command.split_whitespace();
    Command::new(words.next().unwrap()).args(words).output().expect(command)
}

fn add_addresses() {
    for address in [HUB, PEER] {
        assert!(run(&format!("ip addr add {address}/32 dev lo")).status.success());
    }
    assert!(run("ip -6 addr add 2001:db8::1/128 dev lo").status.success());
}

/// What the hub offers to a node.
async fn offered(server: &HubServer) -> TurnServer {
    let mut config = server.node_config(UID);
    config.servers[0].host = HUB.to_owned();
    let mut peer = Peer::start(config, announcement("alpha", 1));
    let servers = peer.ice_servers().await;
    assert_eq!(servers.stun[0].to_string(), format!("{HUB}:3478"));
    peer.stop().await;
    servers.turn[0].clone()
}

struct EchoPeer(Child);

impl EchoPeer {
    fn start(address: &str) -> Self {
        let mut command = Command::new("turnutils_peer");
        command.args(["-L", address, "-p", "3480"]).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("this test needs Debian's package coturn");
        std::thread::sleep(std::time::Duration::from_millis(200));
        Self(child)
    }
}

impl Drop for EchoPeer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends some packets through the relay and back; what the client said about it.
async fn relayed(turn: &TurnServer, options: &str) -> String {
    let (user, password) = (&turn.username, &turn.password);
    let login = format!("timeout 60 turnutils_uclient -u {user} -w {password}");
    let command = format!("{login} -n 50 -m 5 -l 1000 -z 5 {options} {HUB}");
    let output = tokio::task::spawn_blocking(move || run(&command)).await.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn lost_nothing(said: &str) -> bool {
    said.contains("Total lost packets 0 (0.000000%)") && !said.contains("tot_recv_msgs=0\n")
}

#[test]
fn data_are_relayed() {
    network::private("data_are_relayed", async {
        add_addresses();
        let server = HubServer::new();
        let turn = offered(&server).await;
        let _peer = EchoPeer::start(PEER);
        for options in [
            format!("-c -e {PEER} -r 3480"),
            format!("-c -s -e {PEER} -r 3480"),
            "-y -c".to_owned(),
            "-y".to_owned(),
        ] {
            let said = relayed(&turn, &options).await;
            assert!(lost_nothing(&said), "{options}: {said}");
        }
    });
}

/// On the port of XMPP, beside logins.
#[test]
fn data_are_relayed_over_tcp() {
    network::private("data_are_relayed_over_tcp", async {
        add_addresses();
        let server = HubServer::new();
        let turn = offered(&server).await;
        let _peer = EchoPeer::start(PEER);
        let port = common::PORT;
        for options in [
            format!("-t -p {port} -c -e {PEER} -r 3480"),
            format!("-t -p {port} -c -s -e {PEER} -r 3480"),
            format!("-t -p {port} -y -c"),
        ] {
            let said = relayed(&turn, &options).await;
            assert!(lost_nothing(&said), "{options}: {said}");
        }
        let said = relayed(&turn, &format!("-t -p {port} -c -e 127.0.0.1 -r 3480")).await;
        assert!(said.contains("403"), "{said}");
        offered(&server).await;
    });
}

#[test]
fn relaying_to_ipv6_works_from_ipv4() {
    network::private("relaying_to_ipv6_works_from_ipv4", async {
        add_addresses();
        let server = HubServer::new();
        let turn = offered(&server).await;
        let _peer = EchoPeer::start("2001:db8::1");
        let said = relayed(&turn, "-x -c -e 2001:db8::1 -r 3480").await;
        assert!(lost_nothing(&said), "{said}");
    });
}

#[test]
fn who_and_where_not_to_relay() {
    network::private("who_and_where_not_to_relay", async {
        add_addresses();
        let server = HubServer::new();
        let turn = offered(&server).await;
        let _peer = EchoPeer::start(PEER);
        for place in ["127.0.0.1 -r 3480", "192.0.2.1 -r 3478", "192.0.2.1 -r 5223"] {
            let said = relayed(&turn, &format!("-c -e {place}")).await;
            assert!(said.contains("403"), "{place}: {said}");
        }
        let wrong = TurnServer { password: "guess".into(), ..turn.clone() };
        let said = relayed(&wrong, &format!("-c -e {PEER} -r 3480")).await;
        assert!(said.contains("Cannot complete Allocation"), "{said}");
        let stranger = TurnServer { username: "9999999999:eve".into(), ..turn.clone() };
        let said = relayed(&stranger, &format!("-c -e {PEER} -r 3480")).await;
        assert!(said.contains("Cannot complete Allocation"), "{said}");
    });
}
