//! The same things in the words of signalling and of the datapath.

use ipop_signal as signal;
use ipop_steer as steer;

pub(crate) fn to_steer(fingerprint: &signal::Fingerprint) -> steer::Fingerprint {
    steer::Fingerprint(fingerprint.0)
}

pub(crate) fn to_signal(fingerprint: &steer::Fingerprint) -> signal::Fingerprint {
    signal::Fingerprint(fingerprint.0)
}

pub(crate) fn credentials_to_steer(from: &signal::IceCredentials) -> steer::IceCredentials {
    steer::IceCredentials { ufrag: from.ufrag.clone(), pwd: from.pwd.clone() }
}

pub(crate) fn candidate_to_steer(from: &signal::Candidate) -> steer::Candidate {
    steer::Candidate {
        component: from.component,
        kind: match from.kind {
            signal::CandidateKind::Host => steer::CandidateKind::Host,
            signal::CandidateKind::ServerReflexive => steer::CandidateKind::ServerReflexive,
            signal::CandidateKind::PeerReflexive => steer::CandidateKind::PeerReflexive,
            signal::CandidateKind::Relayed => steer::CandidateKind::Relayed,
        },
        address: from.address,
        related: from.related,
        priority: from.priority,
        foundation: from.foundation.clone(),
    }
}

pub(crate) fn candidate_to_signal(from: &steer::Candidate) -> signal::Candidate {
    signal::Candidate {
        component: from.component,
        kind: match from.kind {
            steer::CandidateKind::Host => signal::CandidateKind::Host,
            steer::CandidateKind::ServerReflexive => signal::CandidateKind::ServerReflexive,
            steer::CandidateKind::PeerReflexive => signal::CandidateKind::PeerReflexive,
            steer::CandidateKind::Relayed => signal::CandidateKind::Relayed,
        },
        address: from.address,
        related: from.related,
        priority: from.priority,
        foundation: from.foundation.clone(),
    }
}
