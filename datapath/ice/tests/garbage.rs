//! Whatever comes in, an agent neither panics nor grows without bound.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipop_ice::{Agent, AgentConfig, Candidate, CandidateKind, Credentials, Packet};
use proptest::prelude::*;

fn agent(now: Instant) -> Agent {
    let local = Credentials { ufrag: "abcd".into(), pwd: "0123456789abcdef0123456789".into() };
    Agent::new(AgentConfig::new(local, true, 1, [3; 32]), now)
}

fn candidates() -> impl Strategy<Value = Candidate> {
    let kind = prop_oneof![
        Just(CandidateKind::Host),
        Just(CandidateKind::ServerReflexive),
        Just(CandidateKind::Relayed),
    ];
    (kind, any::<[u8; 4]>(), any::<u16>(), any::<u32>(), 0u16..3).prop_map(
        |(kind, ip, port, priority, component)| {
            let address = SocketAddr::new(IpAddr::from(ip), port);
            let foundation = "f".to_owned();
            Candidate {
                component,
                kind,
                address,
                base: address,
                related: None,
                priority,
                foundation,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200), known in any::<bool>()) {
        let now = Instant::now();
        let mut agent = agent(now);
        if known {
            let pwd = "fedcba9876543210fedcba9876".to_owned();
            agent.set_remote(now, Credentials { ufrag: "efgh".into(), pwd });
        }
        let address: SocketAddr = "192.0.2.1:9".parse().unwrap();
        let packet = Packet { local: address, remote: address, data: &data };
        prop_assert!(agent.handle_input(now, packet).is_err());
    }

    #[test]
    fn any_candidates_in_any_order(
        local in proptest::collection::vec(candidates(), 0..80),
        remote in proptest::collection::vec(candidates(), 0..200),
    ) {
        let now = Instant::now();
        let mut agent = agent(now);
        local.into_iter().for_each(|candidate| agent.add_local(now, candidate));
        let pwd = "fedcba9876543210fedcba9876".to_owned();
        agent.set_remote(now, Credentials { ufrag: "efgh".into(), pwd });
        for candidate in remote {
            agent.add_remote(now, candidate);
        }
        let mut at = now;
        let mut sent = 0;
        for _ in 0..20_000 {
            while agent.poll_output().is_some() {
                sent += 1;
            }
            let Some(next) = agent.poll_timeout() else { break };
            at = at.max(next);
            agent.handle_timeout(at);
        }
        prop_assert!(at <= now + Duration::from_secs(21));
        prop_assert!(sent <= 256 * 25);
    }
}
