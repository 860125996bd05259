//! A hub in a thread of its own, and the client's own scenarios to try it with.
#![allow(dead_code, reason = "each test binary uses its share")]

#[path = "../../../xmpp/tests/common/network.rs"]
pub mod network;
#[path = "../../../xmpp/tests/common/peer.rs"]
pub mod peer;
#[path = "../../../xmpp/tests/common/scenarios.rs"]
pub mod scenarios;
#[path = "../../../xmpp/tests/common/slow.rs"]
pub mod slow;

use ipop_hub::{Hub, HubConfig, Ticket};
use ipop_xmpp::{Config, Trust};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

pub const DOMAIN: &str = "hub.test";
pub const USERS: [&str; 3] = ["alice", "bob", "carol"];
/// Where the client's scenarios expect TLS from the first byte; STARTTLS is there too.
pub const PORT: u16 = 5223;

/// What the client's scenarios want to know of a server.
pub trait Server {
    fn domain(&self) -> &'static str;
    fn stop(&mut self);
    fn start(&mut self);
    fn scratch(&self) -> &Self;
    fn leaf_sha256(&self) -> [u8; 32];
    fn config(&self, user: &str) -> Config;
}

/// A hub with named accounts, which goes with its value.
pub struct HubServer {
    state: PathBuf,
    running: Option<Running>,
}

struct Running {
    ticket: Ticket,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl HubServer {
    pub fn new() -> Self {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        let unique = u64::from_ne_bytes(random);
        let state = std::env::temp_dir().join(format!("ipop-hub-test-{unique:016x}"));
        let mut server = Self { state, running: None };
        server.start();
        server
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    pub fn ticket(&self) -> &Ticket {
        &self.running.as_ref().unwrap().ticket
    }

    /// The account of a node, as its ticket makes it.
    pub fn node_config(&self, uid_hex: &str) -> Config {
        let ticket = self.ticket();
        let (account, password) = ipop_hub::account_for(ticket, uid_hex);
        let mut config = Config::new(&account, &password, &ticket.room_address());
        config.servers = vec![format!("127.0.0.1:{PORT}").parse().unwrap()];
        config.trust = Trust::Certificate(ticket.certificate);
        config
    }

    pub fn hub_config(&self) -> HubConfig {
        HubConfig {
            listen: ([0, 0, 0, 0], PORT).into(),
            domain: DOMAIN.to_owned(),
            ticket_file: Some(self.state.join("ticket")),
            ..HubConfig::new(&self.state)
        }
    }
}

impl Server for HubServer {
    fn domain(&self) -> &'static str {
        DOMAIN
    }

    fn start(&mut self) {
        let config = self.hub_config();
        let (stop, stopped) = oneshot::channel();
        let (started, start) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let hub = Hub::bind(config).await.unwrap();
                started.send(hub.ticket().clone()).unwrap();
                hub.run(async { drop(stopped.await) }).await;
            });
        });
        let ticket = start.recv().unwrap();
        self.running = Some(Running { ticket, stop, thread });
    }

    fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.stop.send(()).unwrap();
        running.thread.join().unwrap();
    }

    fn scratch(&self) -> &Self {
        self
    }

    fn leaf_sha256(&self) -> [u8; 32] {
        self.ticket().certificate
    }

    fn config(&self, user: &str) -> Config {
        let password = Hub::add_account(&self.state, user).unwrap();
        let room = format!("net@conference.{DOMAIN}");
        let mut config = Config::new(&format!("{user}@{DOMAIN}"), &password, &room);
        config.servers = vec![format!("127.0.0.1:{PORT}").parse().unwrap()];
        config.servers[0].security = ipop_xmpp::Security::StartTls;
        let root = std::fs::read(self.state.join("ca.crt")).unwrap();
        config.trust = Trust::from_pem(&root).unwrap();
        config
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.stop();
        }
        let _ = std::fs::remove_dir_all(&self.state);
    }
}
