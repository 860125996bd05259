//! The lab's machines and the programs on them.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipop_lab::{Impairment, Internet, InternetConfig, Nat, Site};
use rustix::process::{Pid, Signal, kill_process};

use crate::args::Lab;
use crate::failure::Failure;

const HUB_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Everything that is up; dropping it takes all of it down.
pub(super) struct Stage {
    nodes: Vec<Node>,
    hub: Option<Process>,
    internet: Internet,
    folder: Folder,
    /// Flags of every node.
    tuning: Vec<String>,
}

/// One member of the group.
pub(super) struct Node {
    /// Instance name.
    pub name: String,
    /// Its machine.
    pub site: Site,
    /// Its overlay address.
    pub overlay: Ipv4Addr,
    /// When its process was started.
    pub started: Option<Instant>,
    process: Option<Process>,
}

impl Stage {
    /// Builds the machines; nothing runs yet.
    pub(super) fn build(flags: &Lab, nats: &[Nat]) -> Result<Self, Failure> {
        ipop_lab::remove_stale().map_err(Failure::failed)?;
        let folder = Folder::create(&flags.name)?;
        let delay = Duration::from_millis(flags.delay);
        let config = InternetConfig { delay, ..InternetConfig::default() };
        let mut internet = Internet::build(config).map_err(Failure::failed)?;
        let nodes = nats.iter().enumerate().map(|(index, nat)| {
            let number = index + 1;
            let octets = u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes();
            let site = internet.add_site(*nat, Impairment::default()).map_err(Failure::failed)?;
            Ok(Node {
                name: format!("{}{number}", flags.name),
                site,
                overlay: Ipv4Addr::new(10, 77, octets[0], octets[1]),
                started: None,
                process: None,
            })
        });
        let nodes = nodes.collect::<Result<Vec<_>, Failure>>()?;
        let tuning = flags.tuning.to_args();
        Ok(Self { nodes, hub: None, internet, folder, tuning })
    }

    /// Starts the hub, then all nodes at once.
    pub(super) fn start(&mut self, stop: &AtomicBool) -> Result<(), Failure> {
        let ticket = self.start_hub(stop)?;
        let program = own_program()?;
        for node in &mut self.nodes {
            let log = self.folder.0.join(format!("{}.log", node.name));
            let mut command = node.site.node.command(&program);
            command
                .args(["up", "--join", &format!("@{}", ticket.display()), "--name", &node.name])
                .args(["--address", &format!("{}/16", node.overlay)])
                .args(&self.tuning)
                .arg("--identity")
                .arg(self.folder.0.join(format!("{}.pem", node.name)));
            node.started = Some(Instant::now());
            node.process = Some(Process::start(command, &log)?);
        }
        Ok(())
    }

    /// The members.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What a node that ended on its own said last.
    pub(super) fn dead_node(&mut self) -> Option<String> {
        let folder = &self.folder.0;
        self.nodes.iter_mut().find_map(|node| {
            let is_dead = node.process.as_mut().is_some_and(Process::has_ended);
            is_dead.then(|| last_words(&folder.join(format!("{}.log", node.name))))
        })
    }

    fn start_hub(&mut self, stop: &AtomicBool) -> Result<PathBuf, Failure> {
        let ticket = self.folder.0.join("ticket");
        let log = self.folder.0.join("hub.log");
        let mut command = self.internet.hub().command(own_program()?);
        command
            .args(["hub", "--domain", "hub.lab"])
            .args(["--listen", &format!("{}:5222", self.internet.hub_address())])
            .arg("--state")
            .arg(self.folder.0.join("hub"))
            .arg("--ticket-file")
            .arg(&ticket);
        let hub = self.hub.insert(Process::start(command, &log)?);
        let deadline = Instant::now() + HUB_PATIENCE;
        while !ticket.exists() {
            if hub.has_ended() || Instant::now() > deadline || stop.load(Ordering::Relaxed) {
                return Err(Failure::failed(format!(
                    "the hub did not start: {}",
                    last_words(&log)
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(ticket)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // All nodes at once, each says goodbye while the hub still listens; namespaces go last.
        let processes = || self.nodes.iter().filter_map(|node| node.process.as_ref());
        processes().for_each(Process::ask_to_stop);
        for node in &mut self.nodes {
            node.process = None;
        }
        self.hub = None;
    }
}

/// This very program, under a name that holds in every process.
fn own_program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::failed(format!("cannot find this program's file: {error}")))
}

/// A running program; stopped when dropped.
struct Process(Child);

impl Process {
    fn start(mut command: Command, log: &Path) -> Result<Self, Failure> {
        let wrong = |error| Failure::failed(format!("cannot start {command:?}: {error}"));
        let log = File::create(log).map_err(wrong)?;
        let again = log.try_clone().map_err(wrong)?;
        command.stdin(Stdio::null()).stdout(again).stderr(log);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn();
        child.map(Self).map_err(|error| Failure::failed(format!("cannot start: {error}")))
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    fn ask_to_stop(&self) {
        if let Some(pid) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        self.ask_to_stop();
        let deadline = Instant::now() + STOP_PATIENCE;
        while !self.has_ended() {
            if Instant::now() > deadline {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The lab's own folder for keys, logs and the ticket.
struct Folder(PathBuf);

impl Folder {
    fn create(name: &str) -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("ipop-{name}-{}", std::process::id()));
        let made = fs::DirBuilder::new();
        let made = {
            let mut made = made;
            std::os::unix::fs::DirBuilderExt::mode(&mut made, 0o700);
            made.create(&path)
        };
        made.map_err(|error| Failure::failed(format!("cannot make {}: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
