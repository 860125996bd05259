//! A node: the real `ipop up` on a machine of the lab.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipop_lab::Namespace;
use ipop_steer::{LinkRow, TraceRecord};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Process, Scratch, binary, eventually};

/// What goes into a node's configuration file, as TOML lines.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's key; made when it is not there.
    pub identity: PathBuf,
    /// Inside `[overlay]`.
    pub overlay: String,
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
    process: Process,
    scratch: Scratch,
    namespace: String,
}

impl NodeConfig {
    /// Writes the file of an instance.
    pub fn write(&self, scratch: &Scratch, name: &str) -> PathBuf {
        let identity = self.identity.display();
        let head = format!("name = \"{name}\"\nidentity = \"{identity}\"\n");
        let text = format!("{head}[overlay]\n{}{}{}", self.overlay, self.signalling, self.nat);
        scratch.write("node.toml", &text)
    }
}

impl Node {
    /// Starts a node from a configuration file.
    pub fn start(namespace: &Namespace, config: &NodeConfig) -> Self {
        let name = unique_name();
        let scratch = Scratch::new();
        let file = config.write(&scratch, &name);
        let arguments = ["up".to_owned(), "--config".to_owned(), file.display().to_string()];
        Self::launch(namespace, name, scratch, &arguments)
    }

    /// Starts a node from a ticket.
    pub fn join(namespace: &Namespace, ticket: &str) -> Self {
        Self::join_with(namespace, ticket, "")
    }

    /// As [`Node::join`], with further words for `ipop up`.
    pub fn join_with(namespace: &Namespace, ticket: &str, further: &str) -> Self {
        let name = unique_name();
        let scratch = Scratch::new();
        let identity = scratch.path("identity.pem").display().to_string();
        let words = ["up", "--join", ticket, "--name", &name, "--identity", &identity];
        let words: Vec<_> =
            words.into_iter().chain(further.split_whitespace()).map(str::to_owned).collect();
        Self::launch(namespace, name, scratch, &words)
    }

    fn launch(namespace: &Namespace, name: String, scratch: Scratch, arguments: &[String]) -> Self {
        let mut command = namespace.command(binary());
        command.args(arguments).env("RUST_LOG", "debug");
        let process = Process::start(command, scratch.path("log"));
        Self { name, process, scratch, namespace: namespace.name().to_owned() }
    }

    /// A command that will run on the node's machine.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// Runs `ipop <words> --name <this>` on the node's machine.
    pub fn ipop(&self, words: &str) -> Output {
        let mut command = self.command(binary());
        command.args(words.split_whitespace()).args(["--name", &self.name]).output().unwrap()
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

    /// Whether the link to `peer` carries packets.
    pub fn is_linked_to(&self, peer: &Self) -> bool {
        self.link_to(peer)["state"] == "up"
    }

    /// The link to `peer` as the segment has it, session and all.
    pub fn row(&self, peer: &Self) -> Option<LinkRow> {
        let observer =
            ipop_shm::observe(&self.run_dir().join("segment"), ipop_steer::WORDS_VERSION).ok()?;
        let mut buffer = vec![0; observer.links.row_len()];
        (0..observer.links.count()).find_map(|index| {
            let content = observer.links.read(index, &mut buffer).ok()??;
            let row = LinkRow::parse(content.try_into().ok()?).ok()?;
            (row.name == peer.name).then_some(row)
        })
    }

    /// The steps that its links took, as far back as its journal goes.
    pub fn journal(&self) -> Vec<TraceRecord> {
        let Ok(mut observer) =
            ipop_shm::observe(&self.run_dir().join("segment"), ipop_steer::WORDS_VERSION)
        else {
            return Vec::new();
        };
        let mut buffer = vec![0; observer.journal.record_len()];
        let mut steps = Vec::new();
        while let Some(record) = observer.journal.next(&mut buffer) {
            steps.extend(TraceRecord::decode(record));
        }
        steps
    }

    /// Its own overlay addresses, without prefix lengths; waits until it has some.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        eventually("the node has addresses", Duration::from_secs(15), || {
            addresses = self.known_addresses();
            !addresses.is_empty()
        });
        addresses
    }

    fn known_addresses(&self) -> Vec<IpAddr> {
        let output = self.ipop("status --json");
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let text = status["controller"]["addresses"].as_str().unwrap_or_default();
        text.split_whitespace().filter_map(|cidr| cidr.split('/').next()?.parse().ok()).collect()
    }

    /// Its overlay address of IPv4.
    pub fn v4(&self) -> IpAddr {
        self.addresses().into_iter().find(IpAddr::is_ipv4).unwrap()
    }

    /// Its overlay address of IPv6.
    pub fn v6(&self) -> IpAddr {
        self.addresses().into_iter().find(IpAddr::is_ipv6).unwrap()
    }

    /// A drop counter.
    pub fn drops(&self, reason: &str) -> u64 {
        self.status()["drops"][reason].as_u64().unwrap_or(0)
    }

    /// The process id of `datapath` or `controller`.
    pub fn pid_of(&self, role: &str) -> Pid {
        let mut pid = None;
        // The file is written anew while a successor starts.
        eventually(&format!("{role}.pid"), Duration::from_secs(10), || {
            let text = std::fs::read_to_string(self.run_dir().join(format!("{role}.pid")));
            pid = text.ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
            pid.is_some()
        });
        pid.unwrap()
    }

    /// Kills `datapath` or `controller`, without a warning.
    pub fn kill(&self, role: &str) -> Pid {
        let pid = self.pid_of(role);
        kill_process(pid, Signal::KILL).unwrap();
        pid
    }

    /// Supervisor and both processes die at once, as by a power cut: nobody says goodbye.
    pub fn power_cut(&mut self) {
        self.process.signal(Signal::KILL);
        for role in ["controller", "datapath"] {
            self.kill(role);
        }
        self.process.wait(Duration::from_secs(5)).expect("killed");
    }

    /// Starts it again from the configuration that it had.
    pub fn start_again(&mut self) {
        let mut command = self.command(binary());
        command.args(["up", "--config"]).arg(self.scratch.path("node.toml"));
        command.env("RUST_LOG", "debug");
        self.process = Process::start(command, self.scratch.path("again"));
    }

    /// A counter of what goes well.
    pub fn counter(&self, name: &str) -> u64 {
        self.status()["counters"][name].as_u64().unwrap_or(0)
    }

    /// Waits until `role` runs under another process id.
    pub fn await_successor(&self, role: &str, before: Pid) {
        eventually(&format!("a new {role}"), Duration::from_secs(10), || {
            self.pid_of(role) != before
        });
    }

    /// The file that names its machine to the kernel.
    pub fn namespace(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.namespace)
    }

    /// Its run directory.
    pub fn run_dir(&self) -> PathBuf {
        PathBuf::from("/run/ipop").join(&self.name)
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

impl Drop for Node {
    /// Ends it, and what it left because the test killed it.
    fn drop(&mut self) {
        self.process.end();
        for role in ["controller", "datapath"] {
            let text = std::fs::read_to_string(self.run_dir().join(format!("{role}.pid")));
            let pid = text.ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
            if let Some(pid) = pid.filter(|pid| is_of(*pid, &self.run_dir())) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = std::fs::remove_dir_all(self.run_dir());
    }
}

/// Process ids come round again: is it the one of this run directory?
fn is_of(pid: Pid, run_dir: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
    let folder = run_dir.display().to_string();
    line.is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == folder.as_bytes()))
}

/// Instances share /run/ipop with whatever else runs on the machine.
pub(crate) fn unique_name() -> String {
    static STARTED: AtomicU32 = AtomicU32::new(1);
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    format!("t{}-{number}", std::process::id())
}
