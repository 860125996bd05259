//! Server-reflexive addresses: one STUN client per host address and server.

use super::*;
use ipop_stun::{BindingClient, BindingConfig, BindingError, BindingOutput, Dropped, Input};

/// One host address asking one server.
pub(super) struct Probe {
    host: SocketAddr,
    client: BindingClient,
    /// It has an answer, or none came.
    is_settled: bool,
    failure: Option<BindingError>,
}

impl Probe {
    pub fn server(&self) -> SocketAddr {
        self.client.server()
    }

    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    pub fn handle_input(&mut self, now: Instant, input: Datagram<'_>) -> Result<(), Refused> {
        if input.local != self.host {
            return Err(Refused::Stranger);
        }
        let input = Input { remote: input.remote, data: input.data };
        self.client.handle_input(now, input).map_err(refused)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| now >= at) {
            self.client.handle_timeout(now);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.client.poll_timeout()
    }
}

/// How a STUN client's refusal counts.
pub(super) fn refused(dropped: Dropped) -> Refused {
    match dropped {
        Dropped::Stranger => Refused::Stranger,
        Dropped::Unexpected => Refused::Unexpected,
        Dropped::Malformed(_) | Dropped::Channel(_) => Refused::Malformed,
        Dropped::Forged(_) => Refused::Forged,
    }
}

impl Gatherer {
    pub(super) fn restart_probes(&mut self, now: Instant) {
        let wanted: Vec<_> = self
            .hosts
            .iter()
            .flat_map(|host| {
                self.stun.iter().chain(&self.others).map(move |server| (*host, *server))
            })
            .filter(|(host, server)| host.is_ipv4() == server.is_ipv4())
            .collect();
        self.probes.retain(|probe| wanted.contains(&(probe.host, probe.server())));
        for (host, server) in wanted {
            let exists = |probe: &Probe| (probe.host, probe.server()) == (host, server);
            if !self.probes.iter().any(exists) {
                let retransmission = RETRANSMISSION;
                let config = BindingConfig { retransmission, ..BindingConfig::new(server) };
                let client = BindingClient::new(config, self.random.block(), now);
                // Nobody waits for what a server only says that it has.
                let is_settled = !self.stun.contains(&server);
                self.probes.push(Probe { host, client, is_settled, failure: None });
            }
        }
    }

    pub(super) fn drain_probes(&mut self, now: Instant) {
        let mut at = 0;
        while at < self.probes.len() {
            while let Some(output) = self.probes[at].client.poll_output() {
                self.on_probe(at, output);
            }
            if self.note_other(at) {
                self.restart_probes(now);
            }
            at += 1;
        }
    }

    /// Whether a server has named another address that is not asked yet.
    fn note_other(&mut self, at: usize) -> bool {
        let probe = &self.probes[at];
        let other = probe.client.other().filter(|_| self.stun.contains(&probe.server()));
        let is_known =
            |other: &SocketAddr| self.stun.contains(other) || self.others.contains(other);
        let has_room = self.others.len() < STUN_SERVERS_MAX;
        let other = other.filter(|other| has_room && !is_known(other));
        self.others.extend(other);
        other.is_some()
    }

    fn on_probe(&mut self, at: usize, output: BindingOutput) {
        let probe = &mut self.probes[at];
        let (host, server) = (probe.host, probe.server());
        match output {
            BindingOutput::Transmit { to: remote, data } => {
                self.outputs.push_back(GathererOutput::Transmit { local: host, remote, data });
            }
            BindingOutput::Mapped { address, .. } => {
                probe.is_settled = true;
                probe.failure = None;
                self.announce_reflexive(host, address, server);
            }
            BindingOutput::Failed(error) => {
                probe.is_settled = true;
                probe.failure = Some(error.clone());
                self.report_if_useless(server, &error);
            }
        }
    }

    /// Tells of an address at which a server sees us; its predecessor is no longer told to links.
    pub(super) fn announce_reflexive(
        &mut self,
        host: SocketAddr,
        address: SocketAddr,
        server: SocketAddr,
    ) {
        let kind = CandidateKind::ServerReflexive;
        let candidate = self.candidate(kind, address, host, Some(host), Some(server.ip()));
        let stays = |known: &Candidate| {
            known.foundation != candidate.foundation || known.address == candidate.address
        };
        self.candidates.retain(stays);
        self.witnesses.retain(stays);
        self.announce(candidate);
    }

    /// What the router maps to one of our sockets by its own word: `host`, and where others send
    /// to. `None`: nothing any more.
    pub fn set_mapping(&mut self, mapping: Option<(SocketAddr, SocketAddr)>) {
        let kind = CandidateKind::ServerReflexive;
        let before = std::mem::replace(&mut self.mapping, mapping);
        if let Some((host, external)) = before.filter(|before| Some(*before) != mapping) {
            let foundation = foundation(kind, host.ip(), None);
            let is_before =
                |known: &Candidate| known.foundation == foundation && known.address == external;
            self.candidates.retain(|known| !is_before(known));
        }
        if let Some((host, external)) = mapping.filter(|(host, _)| self.hosts.contains(host)) {
            let candidate = self.candidate(kind, external, host, Some(host), None);
            self.announce(candidate);
        }
    }

    /// A server that answers on one of our addresses is of use.
    fn report_if_useless(&mut self, server: SocketAddr, error: &BindingError) {
        let mut same = self.probes.iter().filter(|probe| probe.server() == server);
        if self.stun.contains(&server) && same.all(|probe| probe.failure.is_some()) {
            let text = match error {
                BindingError::Timeout => {
                    "no answer to STUN: unreachable, or UDP is blocked".to_owned()
                }
                other => format!("STUN: {other}"),
            };
            self.outputs.push_back(GathererOutput::ServerFailed { address: server, text });
        }
    }
}
