//! Real servers from Debian's packages, each in a network of its own, and clients to talk to them.
#![allow(dead_code, reason = "each test binary uses its share")]

pub mod dns;
pub mod ejabberd;
pub mod network;
pub mod peer;
pub mod prosody;
pub mod scenarios;
pub mod scratch;
pub mod slow;

use ipop_xmpp::{Config, Trust};
use scratch::Scratch;
use std::process::Child;
use std::time::{Duration, Instant};

/// A server that runs, from unmodified software and a configuration of ours.
pub trait Server {
    /// The domain that it serves.
    fn domain(&self) -> &'static str;
    /// Ends it as an operator would, and waits until it has.
    fn stop(&mut self);
    /// Starts it again, with what it had stored.
    fn start(&mut self);
    /// Where its files are; the certificates among them.
    fn scratch(&self) -> &Scratch;

    /// What it wrote down.
    fn log(&self) -> String {
        String::from_utf8_lossy(&self.scratch().read("log")).into_owned()
    }

    /// What a client needs for an account at this server.
    fn config(&self, user: &str) -> Config {
        let room = format!("net@conference.{}", self.domain());
        let mut config = Config::new(&format!("{user}@{}", self.domain()), "secret", &room);
        config.servers = vec!["127.0.0.1:5222".parse().unwrap()];
        config.trust = Trust::from_pem(&self.scratch().read("ca.crt")).unwrap();
        config
    }
}

/// Accounts that every server has, all with the password `secret`.
pub const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// Waits until somebody listens on a port.
pub fn await_port(child: &mut Child, port: u16) {
    let patience = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < patience, "nothing listens on port {port}");
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the server ended at once: {status}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks a process to end, and waits for it.
pub fn terminate(child: &mut Child) {
    let pid = child.id().to_string();
    let kill = std::process::Command::new("kill").arg(pid).status().unwrap();
    assert!(kill.success());
    child.wait().unwrap();
}
