//! The control ring's words on one side, the agent's on the other.

use std::net::IpAddr;

use ipop_ice::{Candidate, CandidateKind, Credentials, foundation};
use ipop_link as link;
use ipop_shm::{Producer, PushError};
use ipop_steer as steer;

/// The event ring, with what to do when the controller does not read: count, and say so once it
/// does.
pub(crate) struct Events {
    ring: Producer,
    lost: u64,
}

impl Events {
    pub(crate) fn new(ring: Producer) -> Self {
        Self { ring, lost: 0 }
    }

    /// Tells the controller; `false` when there was no room.
    pub(crate) fn publish(&mut self, event: &steer::Event) -> bool {
        if self.lost > 0 && self.push(&steer::Event::Lost { count: self.lost }) {
            self.lost = 0;
        }
        let is_told = self.lost == 0 && self.push(event);
        if !is_told {
            self.lost += 1;
        }
        is_told
    }

    fn push(&mut self, event: &steer::Event) -> bool {
        let mut record = Vec::new();
        if let Err(error) = event.encode(&mut record) {
            // Every text is cut to fit, so this is a mistake of ours, and better said than hidden.
            tracing::error!("an event cannot be encoded: {error}");
            return true;
        }
        match self.ring.push(&record) {
            Ok(()) => true,
            Err(PushError::Full) => false,
            Err(error) => {
                tracing::error!("the event ring is damaged: {error}");
                false
            }
        }
    }
}

/// Why a command was refused, for programs and for people.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: steer::RefusalReason,
    pub(crate) text: String,
}

impl Refusal {
    pub(crate) fn new(reason: steer::RefusalReason, text: impl ToString) -> Self {
        Self { reason, text: text.to_string() }
    }
}

impl From<link::CommandError> for Refusal {
    fn from(error: link::CommandError) -> Self {
        let reason = match error {
            link::CommandError::UnknownLink | link::CommandError::CannotSay => {
                steer::RefusalReason::UnknownLink
            }
            link::CommandError::StaleSession => steer::RefusalReason::StaleSession,
            link::CommandError::TooManyLinks => steer::RefusalReason::TableFull,
            link::CommandError::UfragInUse | link::CommandError::UselessCandidate => {
                steer::RefusalReason::InvalidArgument
            }
        };
        Self::new(reason, error)
    }
}

pub(crate) fn credentials(from: steer::IceCredentials) -> Credentials {
    Credentials { ufrag: from.ufrag, pwd: from.pwd }
}

pub(crate) fn candidate_in(from: steer::Candidate) -> Candidate {
    Candidate {
        component: from.component,
        kind: kind_in(from.kind),
        address: from.address,
        base: from.address,
        related: from.related,
        priority: from.priority,
        foundation: from.foundation,
    }
}

pub(crate) fn candidate_out(from: &Candidate) -> steer::Candidate {
    let is_short = from.foundation.len() <= steer::limits::FOUNDATION_LEN_MAX;
    steer::Candidate {
        component: from.component,
        kind: kind_out(from.kind),
        address: from.address,
        related: from.related,
        priority: from.priority,
        foundation: match is_short {
            true => from.foundation.clone(),
            false => foundation(from.kind, from.base.ip(), None),
        },
    }
}

fn kind_in(kind: steer::CandidateKind) -> CandidateKind {
    match kind {
        steer::CandidateKind::Host => CandidateKind::Host,
        steer::CandidateKind::ServerReflexive => CandidateKind::ServerReflexive,
        steer::CandidateKind::PeerReflexive => CandidateKind::PeerReflexive,
        steer::CandidateKind::Relayed => CandidateKind::Relayed,
    }
}

pub(crate) fn kind_out(kind: CandidateKind) -> steer::CandidateKind {
    match kind {
        CandidateKind::Host => steer::CandidateKind::Host,
        CandidateKind::ServerReflexive => steer::CandidateKind::ServerReflexive,
        CandidateKind::PeerReflexive => steer::CandidateKind::PeerReflexive,
        CandidateKind::Relayed => steer::CandidateKind::Relayed,
    }
}

pub(crate) fn state_out(state: link::LinkState) -> steer::LinkState {
    match state {
        link::LinkState::Idle => steer::LinkState::Idle,
        link::LinkState::Checking => steer::LinkState::Checking,
        link::LinkState::Handshaking => steer::LinkState::Handshaking,
        link::LinkState::Up => steer::LinkState::Up,
        link::LinkState::Disconnected => steer::LinkState::Disconnected,
        link::LinkState::Failed => steer::LinkState::Failed,
    }
}

pub(crate) fn path_kind_out(kind: link::PathKind) -> steer::PathKind {
    match kind {
        link::PathKind::Direct => steer::PathKind::Direct,
        link::PathKind::Relayed => steer::PathKind::Relayed,
    }
}

/// What the controller hears of a link's state.
pub(crate) fn link_state(status: &link::LinkStatus) -> steer::Event {
    let rtt_us = status.rtt.map_or(0, |rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX));
    steer::Event::LinkState {
        peer: steer::Fingerprint(status.peer.0),
        session: status.session,
        state: state_out(status.state),
        path: status.path.map(|path| steer::PathInfo {
            kind: path_kind_out(path.kind),
            local: path.local,
            remote: path.remote,
            rtt_us,
        }),
        reason: status.reason.clone(),
    }
}

/// The network with the bits behind the prefix cleared, or a refusal.
pub(crate) fn network(address: IpAddr, prefix: u8) -> Result<(IpAddr, u8), Refusal> {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if prefix > longest {
        let text = format!("prefix length {prefix} of {address}: at most {longest}");
        return Err(Refusal::new(steer::RefusalReason::InvalidArgument, text));
    }
    Ok((address, prefix))
}
