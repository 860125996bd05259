//! The embedded rendezvous: the real `ipop hub`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipop_lab::Namespace;
use rustix::process::Signal;

use crate::{Process, Scratch, binary, eventually};

/// A hub on a public machine; its state outlives its process.
#[derive(Debug)]
pub struct Hub {
    namespace: String,
    address: SocketAddr,
    process: Option<Process>,
    scratch: Scratch,
}

impl Hub {
    /// Starts one in a namespace, at this address; `::` stands for all of both families.
    pub fn new(namespace: &Namespace, address: impl Into<IpAddr>) -> Self {
        let address = SocketAddr::new(address.into(), 5222);
        let namespace = namespace.name().to_owned();
        let mut hub = Self { namespace, address, process: None, scratch: Scratch::new() };
        hub.start();
        hub
    }

    /// Starts it over the state that it had.
    pub fn start(&mut self) {
        let ticket = self.scratch.path("ticket");
        let _ = std::fs::remove_file(&ticket);
        let mut command = std::process::Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(binary())
            .args(["hub", "--domain", "hub.test", "--listen", &self.address.to_string()])
            .arg("--state")
            .arg(self.scratch.path("state"))
            .arg("--ticket-file")
            .arg(&ticket);
        let process = Process::start(command, self.scratch.path("log"));
        let process = self.process.insert(process);
        eventually("the hub writes its ticket", Duration::from_secs(10), || {
            assert!(process.is_running(), "{}", process.log());
            ticket.exists()
        });
    }

    /// What a node needs to join.
    pub fn ticket(&self) -> String {
        self.scratch.read("ticket").trim().to_owned()
    }

    /// Its files.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Its process, while it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// It dies without a goodbye.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::KILL);
            process.wait(Duration::from_secs(10)).expect("a killed hub ends");
        }
    }
}
