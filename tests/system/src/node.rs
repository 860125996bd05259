//! A node: the real `ipop up` on a machine of the lab.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipop_lab::Namespace;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Process, Scratch, binary, eventually};

/// What goes into a node's configuration file.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// `[overlay] address`.
    pub address: String,
    /// `[xmpp]` and `[groupvpn]`.
    pub signalling: String,
    /// `[nat]`, if any.
    pub nat: String,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Instance name.
    pub name: String,
    /// Overlay address without prefix length.
    pub address: String,
    process: Process,
    scratch: Scratch,
    namespace: PathBuf,
    exec: Vec<String>,
}

impl Node {
    /// Starts a node from a configuration file.
    pub fn start(namespace: &Namespace, config: &NodeConfig) -> Self {
        let name = unique_name();
        let scratch = Scratch::new();
        let text = format!(
            "name = \"{name}\"\nidentity = \"{}\"\n[overlay]\naddress = \"{}\"\n{}{}",
            scratch.path("identity.pem").display(),
            config.address,
            config.signalling,
            config.nat
        );
        let file = scratch.write("node.toml", &text);
        let arguments = ["up".to_owned(), "--config".to_owned(), file.display().to_string()];
        Self::launch(namespace, name, &config.address, scratch, &arguments)
    }

    /// Starts a node from a ticket.
    pub fn join(namespace: &Namespace, ticket: &str, address: &str) -> Self {
        let name = unique_name();
        let scratch = Scratch::new();
        let identity = scratch.path("identity.pem").display().to_string();
        let words = ["up", "--join", ticket, "--name", &name, "--address", address, "--identity"];
        let mut arguments: Vec<_> = words.map(str::to_owned).into();
        arguments.push(identity);
        Self::launch(namespace, name, address, scratch, &arguments)
    }

    fn launch(
        namespace: &Namespace,
        name: String,
        address: &str,
        scratch: Scratch,
        arguments: &[String],
    ) -> Self {
        let mut command = namespace.command(binary());
        command.args(arguments).env("RUST_LOG", "debug");
        let process = Process::start(command, scratch.path("log"));
        let address = address.split('/').next().unwrap_or_default().to_owned();
        let exec = ["ip", "netns", "exec", namespace.name()].map(str::to_owned).into();
        Self { name, address, process, scratch, namespace: namespace.path(), exec }
    }

    /// Runs `ipop <words> --name <this>` on the node's machine.
    pub fn ipop(&self, words: &str) -> Output {
        let mut command = Command::new(&self.exec[0]);
        command.args(&self.exec[1..]).arg(binary()).args(words.split_whitespace());
        command.args(["--name", &self.name]).output().unwrap()
    }

    /// `ipop wait`: panics unless so many peers answer in time.
    pub fn wait_for(&self, peers: usize, seconds: u32) {
        let output = self.ipop(&format!("wait --peers {peers} --timeout {seconds}"));
        assert!(
            output.status.success(),
            "{}: {}\n{}",
            self.name,
            String::from_utf8_lossy(&output.stderr),
            self.process.log()
        );
    }

    /// `ipop status --json`.
    pub fn status(&self) -> Value {
        let output = self.ipop("status --json");
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The link to `peer` in the status; null when there is none.
    pub fn link_to(&self, peer: &Self) -> Value {
        let status = self.status();
        let links = status["links"].as_array().cloned().unwrap_or_default();
        links.into_iter().find(|link| link["name"] == peer.name.as_str()).unwrap_or(Value::Null)
    }

    /// A drop counter.
    pub fn drops(&self, reason: &str) -> u64 {
        self.status()["drops"][reason].as_u64().unwrap_or(0)
    }

    /// The process id of `datapath` or `controller`.
    pub fn pid_of(&self, role: &str) -> Pid {
        let path = format!("/run/ipop/{}/{role}.pid", self.name);
        let text = std::fs::read_to_string(path).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    /// Kills `datapath` or `controller`, without a warning.
    pub fn kill(&self, role: &str) -> Pid {
        let pid = self.pid_of(role);
        kill_process(pid, Signal::KILL).unwrap();
        pid
    }

    /// Waits until `role` runs under another process id.
    pub fn await_successor(&self, role: &str, before: Pid) {
        eventually(&format!("a new {role}"), Duration::from_secs(10), || {
            self.pid_of(role) != before
        });
    }

    /// Where its machine is.
    pub fn namespace(&self) -> &PathBuf {
        &self.namespace
    }

    /// What it printed.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its supervisor.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops it by SIGTERM and returns its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.process.stop().and_then(|status| status.code())
    }

    /// Its own files.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}

/// Instances share /run/ipop with whatever else runs on the machine.
fn unique_name() -> String {
    static STARTED: AtomicU32 = AtomicU32::new(1);
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    format!("t{}-{number}", std::process::id())
}
