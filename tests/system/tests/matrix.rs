//! A few kinds of the NAT matrix with real Prosody and coturn and 15 ms per cable; `tests/matrix`
//! has all of them, as often as wanted.

#![allow(missing_docs, clippy::unwrap_used)]

use ipop_lab::Nat;
use ipop_system_tests::matrix::{Crew, Hope, Report, hope, pairs};

/// What takes luck gets a second try here, instead of a count.
#[test]
fn a_few_kinds_of_each_sort() {
    let kinds = [Nat::Rejecting, Nat::PortRestricted, Nat::Carrier, Nat::TcpOnly];
    let folder = std::env::temp_dir().join(format!("ipop-test-{}-matrix", std::process::id()));
    let crew = Crew { at_once: 2, folder, keeps_all: false, has_nagle: true, is_tls_direct: false };
    let mut report = Report::new(&kinds);
    report.add(crew.run(&pairs(&kinds), 1, |outcome| println!("{}", outcome.line(1))));
    println!("{}\n{}", report.table(), report.summary());
    for outcome in report.outcomes() {
        let likely = hope(outcome.nats) == Hope::Likely;
        assert!(outcome.shortfall().is_none(), "{outcome:?}");
        assert!(!likely || outcome.direct.is_some(), "{outcome:?}");
    }
}
