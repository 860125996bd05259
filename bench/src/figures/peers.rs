//! Ours alone: what one node sends to many peers at once, beside what it sends to one of them, and
//! what a flood to one costs another.

mod flood;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use ipop_lab::{Impairment, Internet, InternetConfig, Nat, Site};

use super::tcp::{GIB, MARGIN, PORT, Received, parse};
use super::{Figure, Values};
use crate::cost;
use crate::error::BenchError;
use crate::process::Process;
use crate::stage::{Scratch, wait_for_port};
use crate::stop::Stop;
use crate::systems::{Group, Variant};

/// What reports call the network that this is measured on.
pub(crate) const UNDERLAY: &str = "24 peers";
/// Peers of the node that sends.
const PEERS: usize = 24;
/// How long all links may take.
const LINK_PATIENCE: Duration = Duration::from_secs(60);

/// The machines of all nodes, each on a cable of its own to a router in the middle. The first one
/// sends.
#[derive(Debug)]
pub(crate) struct Crowd {
    sites: Vec<Site>,
    internet: Internet,
    folder: Scratch,
    stop: Stop,
}

impl Crowd {
    /// Builds the machines.
    pub(crate) fn build(stop: Stop) -> Result<Self, BenchError> {
        let mut internet = Internet::build(InternetConfig::default())?;
        let mut sites = Vec::new();
        for _ in 0..=PEERS {
            stop.check()?;
            sites.push(internet.add_site(Nat::None, Impairment::default())?);
        }
        Ok(Self { sites, internet, folder: Scratch::new("peers")?, stop })
    }

    /// Starts a hub and all nodes, and measures: one TCP stream to one peer, then one to each;
    /// then a ping to one while another is flooded.
    pub(crate) fn measure(
        &self,
        program: &Path,
        variant: &Variant,
        seconds: u32,
    ) -> Result<Values, BenchError> {
        self.folder.empty()?;
        let group = Group {
            program: program.to_owned(),
            variant: variant.clone(),
            folder: self.folder.path().to_owned(),
            stop: self.stop.clone(),
        };
        let _hub = group.start_hub(self.internet.hub(), self.internet.hub_address())?;
        let start = |index: usize| {
            let address = format!("{}/24", overlay(index));
            group.start_node(&self.sites[index].node, &name(index), &address)
        };
        let mut nodes = (0..=PEERS).map(start).collect::<Result<Vec<_>, _>>()?;
        self.wait_for_links(program)?;
        let (one, cost_of_one) = self.streams(&nodes, 1, seconds)?;
        let (all, cost_of_all) = self.streams(&nodes, PEERS, seconds)?;
        let flood = self.flood(seconds)?;
        nodes.iter_mut().try_for_each(Process::check)?;
        let mut values = vec![
            (Figure::PeersOne, one),
            (Figure::PeersAll, all),
            (Figure::PeersShare, 100.0 * all / one),
            (Figure::CpuPeersOne, cost_of_one),
            (Figure::CpuPeersAll, cost_of_all),
        ];
        values.extend(flood);
        Ok(values)
    }

    fn wait_for_links(&self, program: &Path) -> Result<(), BenchError> {
        let mut command = self.sites[0].node.command(program);
        command.args(["wait", "--name", &name(0), "--peers", &PEERS.to_string()]);
        command.args(["--timeout", &LINK_PATIENCE.as_secs().to_string()]);
        let wait = Process::start(command, self.folder.path(), "wait")?;
        wait.finish(LINK_PATIENCE + MARGIN, &self.stop).map(drop)
    }

    /// Gbit/s of one stream to each of the first `count` peers at the same time, in all, and the
    /// CPU seconds of all nodes for one GiB.
    fn streams(
        &self,
        nodes: &[Process],
        count: usize,
        seconds: u32,
    ) -> Result<(f64, f64), BenchError> {
        let _servers = (1..=count).map(|peer| self.serve(peer)).collect::<Result<Vec<_>, _>>()?;
        let pids: Vec<u32> = nodes.iter().map(Process::id).collect();
        let before = cost::cpu_seconds(&pids)?;
        let clients = (1..=count).map(|peer| self.send(peer, seconds));
        // All of them run before the first is waited for.
        let clients = clients.collect::<Result<Vec<_>, _>>()?;
        let patience = Duration::from_secs(u64::from(seconds)) + MARGIN;
        let mut sum = Received { gbit_s: 0.0, bytes: 0.0 };
        for client in clients {
            let received = parse(&client.finish(patience, &self.stop)?)?;
            sum.gbit_s += received.gbit_s;
            sum.bytes += received.bytes;
        }
        let used = cost::cpu_seconds(&pids)? - before;
        Ok((sum.gbit_s, used / (sum.bytes / GIB)))
    }

    fn serve(&self, peer: usize) -> Result<Process, BenchError> {
        let mut command = self.sites[peer].node.command("iperf3");
        command.args(["-s", "-1", "-B", &overlay(peer).to_string(), "-p", &PORT.to_string()]);
        let mut server =
            Process::start(command, self.folder.path(), &format!("iperf3-server-{peer}"))?;
        wait_for_port(&self.stop, &mut server, "tcp", PORT)?;
        Ok(server)
    }

    fn send(&self, peer: usize, seconds: u32) -> Result<Process, BenchError> {
        let mut command = self.sites[0].node.command("iperf3");
        command.args(["-c", &overlay(peer).to_string(), "-p", &PORT.to_string(), "--json"]).args([
            "-C",
            "cubic",
            "--connect-timeout",
            "5000",
            "-t",
            &seconds.to_string(),
        ]);
        Process::start(command, self.folder.path(), &format!("iperf3-{peer}"))
    }
}

/// Instance and interface of a node: unlike those of any other run on this machine.
fn name(index: usize) -> String {
    format!("ib{}p{index}", std::process::id())
}

fn overlay(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 88, 1, u8::try_from(index + 1).unwrap_or(u8::MAX))
}
