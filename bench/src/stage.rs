//! Two machines, joined by a cable, and a folder for files.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ipop_lab::Namespace;

use crate::error::BenchError;
use crate::process::Process;
use crate::stop::Stop;
use crate::underlay::Underlay;

/// The cable's name at both ends.
pub(crate) const CABLE: &str = "eth0";
/// Addresses of both ends inside the overlay under test.
pub(crate) const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 88, 0, 1), Ipv4Addr::new(10, 88, 0, 2)];
/// The overlay's network.
pub(crate) const INNER_NETWORK: &str = "10.88.0.0/24";
/// Addresses of both ends on the cable.
pub(crate) const OUTER: [Ipv4Addr; 2] =
    [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 2)];

/// Every folder of ours begins so, followed by the process id.
const PREFIX: &str = "ipop-bench-";

/// Where all systems run, one after the other.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The sender's machine and the receiver's.
    pub ends: [Namespace; 2],
    /// What joins them.
    pub underlay: Underlay,
    /// Whether somebody wants the end.
    pub stop: Stop,
    folder: Scratch,
}

impl Stage {
    /// Builds both machines and the cable.
    pub(crate) fn build(underlay: Underlay, stop: Stop) -> Result<Self, BenchError> {
        let ends = [Namespace::create("bench-a")?, Namespace::create("bench-b")?];
        for end in &ends {
            // IPv4 only: what IPv6 says on its own would differ from system to system.
            end.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1")?;
            end.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")?;
        }
        underlay.join([&ends[0], &ends[1]], CABLE)?;
        for (end, address) in ends.iter().zip(OUTER) {
            end.ip(&format!("address add {address}/24 dev {CABLE}"))?;
            // As long as the overlay is not there, nothing for it may leave by another way: some
            // systems need a default route, and the far end answers to all of its addresses.
            end.ip(&format!("route add unreachable {INNER_NETWORK} metric 1000000"))?;
            end.ip(&format!("route add default via {} metric 1000", other(address)))?;
        }
        Ok(Self { ends, underlay, stop, folder: Scratch::new(underlay.name())? })
    }

    /// An empty folder for one run of one system.
    pub(crate) fn empty_folder(&self) -> Result<&Path, BenchError> {
        self.folder.empty()?;
        Ok(self.folder.path())
    }

    /// The folder for files of this run.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Runs `command` to its end; returns what it printed.
    pub(crate) fn run(
        &self,
        command: Command,
        name: &str,
        patience: Duration,
    ) -> Result<String, BenchError> {
        Process::start(command, self.folder(), name)?.finish(patience, &self.stop)
    }

    /// Starts this program's own traffic tool (a hidden subcommand) at an end.
    pub(crate) fn tool(&self, end: usize, words: &[&str]) -> Result<Command, BenchError> {
        let mut command = self.ends[end].command(std::env::current_exe()?);
        command.args(words);
        Ok(command)
    }

    /// Waits until `process` has a socket on `port`: `table` is `tcp` or `udp`.
    pub(crate) fn wait_for_port(
        &self,
        process: &mut Process,
        table: &str,
        port: u16,
    ) -> Result<(), BenchError> {
        wait_for_port(&self.stop, process, table, port)
    }

    /// An end's overlay address with its prefix length.
    pub(crate) fn inner(&self, end: usize) -> String {
        format!("{}/24", INNER[end])
    }

    /// Name of an overlay interface at an end: unlike that of any other run on this machine,
    /// because control sockets of some systems are named after it.
    pub(crate) fn interface(&self, end: usize) -> String {
        format!("ib{}{}", std::process::id(), ["a", "b"][end])
    }
}

/// Waits until `process` has a socket on `port`: `table` is `tcp` or `udp`.
pub(crate) fn wait_for_port(
    stop: &Stop,
    process: &mut Process,
    table: &str,
    port: u16,
) -> Result<(), BenchError> {
    let path = format!("/proc/{}/net/{table}", process.id());
    let found = stop.wait(Duration::from_secs(5), || {
        process.check()?;
        let text = fs::read_to_string(&path).unwrap_or_default();
        Ok(has_port(&text, port).then_some(()))
    })?;
    found.ok_or_else(|| BenchError::new(format!("nobody listens on {table} port {port}")))
}

/// The far end of a cable's address.
fn other(address: Ipv4Addr) -> Ipv4Addr {
    if address == OUTER[0] { OUTER[1] } else { OUTER[0] }
}

/// Looks for a local port in a table such as `/proc/net/tcp`; TCP has to listen.
fn has_port(table: &str, port: u16) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().and_then(|local| local.rsplit_once(':'));
        let state = fields.nth(1);
        // 0A is TCP_LISTEN; 07 is what an unconnected UDP socket shows.
        local.is_some_and(|(_, digits)| u16::from_str_radix(digits, 16) == Ok(port))
            && matches!(state, Some("0A" | "07"))
    })
}

/// A folder that goes with its value.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// The folder of this process for that purpose, empty.
    pub(crate) fn new(label: &str) -> Result<Self, BenchError> {
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}-{label}", std::process::id()));
        // Keys lie in it.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// Removes folders whose process was killed before it could.
    pub(crate) fn remove_stale() {
        for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
            let owner = entry.file_name().to_str().and_then(owner);
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Removes all that is in it.
    pub(crate) fn empty(&self) -> Result<(), BenchError> {
        fs::remove_dir_all(&self.0)?;
        Ok(fs::create_dir_all(&self.0)?)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The process that made a folder.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

/// An address as programs take it.
pub(crate) fn socket(address: Ipv4Addr, port: u16) -> String {
    SocketAddrV4::new(address, port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue\n\
        0: 0100007F:1451 00000000:0000 0A 0:0\n\
        1: 0100007F:1452 0100007F:1451 01 0:0\n\
        2: 00000000:1453 00000000:0000 07 0:0\n";

    #[test]
    fn only_our_folders_have_an_owner() {
        assert_eq!(owner("ipop-bench-12-jumbo"), Some(12));
        assert_eq!(owner("ipop-bench-test-12-run"), None);
        assert_eq!(owner("ipop-12-run"), None);
    }

    #[test]
    fn only_listening_sockets_count() {
        assert!(has_port(TABLE, 0x1451));
        assert!(!has_port(TABLE, 0x1452));
        assert!(has_port(TABLE, 0x1453));
        assert!(!has_port(TABLE, 1));
    }
}
