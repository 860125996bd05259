//! A hub and two nodes on the lab's machines.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipop_lab::{Impairment, Internet, InternetConfig, LabError, Nat, Site};
use rustix::process::{Pid, Signal, kill_process};

/// Why a figure could not be measured.
#[derive(Debug)]
pub(crate) struct BenchError(String);

impl std::fmt::Display for BenchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<LabError> for BenchError {
    fn from(error: LabError) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for BenchError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl BenchError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The machines, a running hub, and a folder for files.
pub(crate) struct Stage {
    pub(crate) sites: Vec<Site>,
    ticket: PathBuf,
    _hub: Process,
    _internet: Internet,
    folder: PathBuf,
}

/// A running node.
pub(crate) struct Node {
    /// Instance name.
    pub(crate) name: String,
    /// Overlay address.
    pub(crate) overlay: Ipv4Addr,
    process: Process,
}

impl Stage {
    /// Builds a site for each of `nats`, on cables of that delay.
    pub(crate) fn build(nats: &[Nat], delay: Duration) -> Result<Self, BenchError> {
        let folder = std::env::temp_dir().join(format!("ipop-bench-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let mut internet = Internet::build(InternetConfig { delay, ..InternetConfig::default() })?;
        let sites = nats.iter().map(|nat| internet.add_site(*nat, Impairment::default()));
        let sites = sites.collect::<Result<_, _>>()?;
        let ticket = folder.join("ticket");
        let mut command = internet.hub().command(binary()?);
        command
            .args(["hub", "--domain", "hub.bench"])
            .args(["--listen", &format!("{}:5222", internet.hub_address())])
            .arg("--state")
            .arg(folder.join("hub"))
            .arg("--ticket-file")
            .arg(&ticket);
        let hub = Process::start(command, &folder.join("hub.log"))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ticket.exists() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(folder.join("hub.log")).unwrap_or_default();
                return Err(BenchError::new(format!("the hub does not start: {log}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { sites, ticket, _hub: hub, _internet: internet, folder })
    }

    /// Starts the node of a site.
    pub(crate) fn start_node(&self, index: usize) -> Result<Node, BenchError> {
        let name = format!("bench{}-{index}", std::process::id());
        let overlay = Ipv4Addr::new(10, 77, 1, u8::try_from(index + 1).unwrap_or(u8::MAX));
        let mut command = self.sites[index].node.command(binary()?);
        command
            .args(["up", "--join", &format!("@{}", self.ticket.display()), "--name", &name])
            .args(["--address", &format!("{overlay}/16")])
            .arg("--identity")
            .arg(self.folder.join(format!("{index}.pem")));
        let process = Process::start(command, &self.folder.join(format!("{index}.log")))?;
        Ok(Node { name, overlay, process })
    }

    /// Runs a command on a site's machine to its end.
    pub(crate) fn run(&self, index: usize, line: &str) -> Result<String, BenchError> {
        Ok(self.sites[index].node.run(line)?)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Node {
    /// Waits until so many peers answer.
    pub(crate) fn wait(&self, stage: &Stage, index: usize, peers: usize) -> Result<(), BenchError> {
        let program = binary()?;
        let line =
            format!("{} wait --name {} --peers {peers} --timeout 20", program.display(), self.name);
        stage.run(index, &line).map(drop)
    }

    /// The process ids of its datapath and its controller.
    pub(crate) fn pids(&self) -> Result<[u32; 2], BenchError> {
        let read = |role: &str| {
            let path = format!("/run/ipop/{}/{role}.pid", self.name);
            let text = fs::read_to_string(path)?;
            text.trim().parse().map_err(|_| BenchError::new("a pid file is not a number"))
        };
        Ok([read("datapath")?, read("controller")?])
    }

    /// Stops it and waits until it is gone.
    pub(crate) fn stop(self) {
        drop(self.process);
    }
}

/// The release build of `ipop` beside this program.
pub(crate) fn binary() -> Result<PathBuf, BenchError> {
    let path = std::env::current_exe()?.with_file_name("ipop");
    if !path.exists() {
        let text = format!("{} is missing: run `cargo build --release` first", path.display());
        return Err(BenchError::new(text));
    }
    Ok(path)
}

/// A program that ends with its value.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self, BenchError> {
        let log = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.0.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
