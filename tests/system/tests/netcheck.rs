//! `ipop netcheck` against coturn, from behind different NATs.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use ipop_lab::{Impairment, Nat, Site};
use ipop_system_tests::{Ended, Stage, binary, ended, ended_within, turn_credential};
use serde_json::Value;

fn netcheck(stage: &Stage, site: usize, words: &[&str]) -> Ended {
    let mut command = stage.sites[site].node.command(binary());
    command.arg("netcheck").args(words);
    ended(command)
}

fn report(ended: &Ended) -> Value {
    serde_json::from_str(&ended.text).unwrap_or_else(|error| panic!("{error}: {}", ended.text))
}

const SERVER: &str = "stun:198.18.0.10:3478";

#[test]
fn each_nat_is_known_by_what_it_does() {
    let mut stage = Stage::prosody();
    let kinds = [
        (Nat::None, false, "endpoint-independent", "endpoint-independent"),
        (Nat::FullCone, true, "endpoint-independent", "endpoint-independent"),
        (Nat::PortRestricted, true, "endpoint-independent", "address- and port-dependent"),
        (Nat::Symmetric, true, "address- and port-dependent", "address- and port-dependent"),
    ];
    for (nat, ..) in kinds {
        stage.add_site(nat, Impairment::default());
    }
    for (site, (nat, translated, mapping, filtering)) in kinds.into_iter().enumerate() {
        let ended = netcheck(&stage, site, &["--json", "--stun", SERVER]);
        assert_eq!(ended.code, Some(0), "{nat}: {}", ended.text);
        let report = report(&ended);
        let stun = &report["stun"][0];
        assert_eq!(report["udp_blocked"], false, "{nat}: {report}");
        assert_eq!(stun["translated"], translated, "{nat}: {report}");
        assert_eq!(stun["mapping"], mapping, "{nat}: {report}");
        assert_eq!(stun["filtering"], filtering, "{nat}: {report}");
        let mapped = stun["mapped"].as_str().unwrap();
        assert!(mapped.starts_with(&format!("{}:", stage.sites[site].public)), "{nat}: {report}");
    }
}

#[test]
fn each_family_is_told_as_a_whole() {
    let mut stage = Stage::prosody_on_cables_of(1400);
    let kinds = [
        (Nat::None, Value::Null, Value::Null, true, "direct links with everybody"),
        (Nat::PortRestricted, true.into(), true.into(), true, "a usual NAT"),
        (Nat::Symmetric, false.into(), false.into(), false, "a hard NAT"),
    ];
    for (nat, ..) in &kinds {
        stage.add_site(*nat, Impairment::default());
    }
    let servers = ["--stun", SERVER, "--stun", "stun:198.18.0.11:3478"];
    for (site, (nat, preserved, hairpins_or_not, is_one, outlook)) in kinds.iter().enumerate() {
        let ended = netcheck(&stage, site, &[&["--json"][..], &servers].concat());
        let report = report(&ended);
        let (v4, v6) = (&report["families"][0], &report["families"][1]);
        assert_eq!(v4["reachable"], true, "{nat}: {report}");
        assert_eq!(v4["translated"], !preserved.is_null(), "{nat}: {report}");
        assert_eq!(v4["port_preserved"], *preserved, "{nat}: {report}");
        assert_eq!(v4["hairpinning"].is_null(), hairpins_or_not.is_null(), "{nat}: {report}");
        assert_eq!(v4["mapping_is_one"], *is_one, "{nat}: {report}");
        for server in v4["servers"].as_array().unwrap() {
            assert_eq!(server["path_mtu"], 1400, "{nat}: {report}");
            assert!(server["rtt_ms"].as_f64().unwrap() > 0.0, "{nat}: {report}");
        }
        assert_eq!((&v6["reachable"], &v6["local"]), (&false.into(), &Value::Null), "{report}");
        let ended = netcheck(&stage, site, &servers);
        for words in [*outlook, "IPv6  no route", "packets of 1400 bytes arrive, ", "seen as"] {
            let words = words.trim_end_matches(", ");
            assert!(ended.text.contains(words), "{nat}: no `{words}` in {}", ended.text);
        }
    }
}

#[test]
fn relays_are_tried() {
    let mut stage = Stage::prosody();
    stage.add_site(Nat::Symmetric, Impairment::default());
    let (username, password) = turn_credential();
    let turn = format!("turn:198.18.0.10:3478,{username},{password}");
    let ended = netcheck(&stage, 0, &["--json", "--stun", SERVER, "--turn", &turn]);
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    let relayed = report(&ended)["turn"][0]["relayed"].as_str().unwrap_or_default().to_owned();
    assert!(relayed.starts_with("198.18.0.10:"), "{}", ended.text);
    let turn = format!("turn:198.18.0.10:3478,{username},guess");
    let ended = netcheck(&stage, 0, &["--json", "--turn", &turn]);
    let report = report(&ended);
    assert_eq!(report["turn"][0]["answered"], true, "{report}");
    assert!(report["turn"][0]["relayed"].is_null(), "{report}");
    assert!(!report["turn"][0]["error"].is_null(), "{report}");
}

#[test]
fn blocked_udp_is_told() {
    let mut stage = Stage::prosody();
    stage.add_site(Nat::UdpBlocked, Impairment::default());
    let ended = netcheck(&stage, 0, &["--stun", SERVER]);
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert!(ended.text.contains("UDP is blocked"), "{}", ended.text);
    let json = report(&netcheck(&stage, 0, &["--json", "--stun", SERVER]));
    assert_eq!(json["udp_blocked"], true, "{json}");
}

#[test]
fn servers_come_from_an_instance_or_a_configuration() {
    let stage = Stage::prosody().join([Nat::PortRestricted, Nat::PortRestricted]);
    stage.await_links();
    let node = &stage.nodes[0];
    let output = node.ipop("netcheck --json");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!report["stun"][0]["mapped"].is_null(), "{report}");
    assert!(!report["turn"][0]["relayed"].is_null(), "{report}");
    let scratch = node.scratch();
    let text = format!("[nat]\nstun = [\"{SERVER}\"]\n");
    let file = scratch.write("servers.toml", &text).display().to_string();
    let ended = netcheck(&stage, 0, &["--json", "--config", &file]);
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    let ended = netcheck(&stage, 0, &["--stun", "stun:"]);
    assert_eq!(ended.code, Some(2), "{}", ended.text);
    assert!(ended.text.contains("--stun"), "{}", ended.text);
}

/// coturn answers to another port than that of who asks, so that a mapping is seen to be there
/// although the NAT keeps ports.
#[test]
fn the_lifetime_of_mappings_is_measured() {
    const LIFETIME_S: f64 = 7.0;
    let mut stage = Stage::prosody();
    for nat in [Nat::PortRestricted, Nat::Symmetric] {
        stage.add_site(nat, Impairment::default());
    }
    let timeout = format!("net.netfilter.nf_conntrack_udp_timeout={LIFETIME_S}");
    let begin = |site: &Site| {
        site.router().unwrap().run(&format!("sysctl -qw {timeout}")).unwrap();
        let mut command = site.node.command(binary());
        command.args(["netcheck", "--json", "--lifetime", "--stun", SERVER]);
        std::thread::spawn(|| ended_within(command, Duration::from_secs(90)))
    };
    let running: Vec<_> = stage.sites.iter().map(begin).collect();
    for one in running {
        let report = report(&one.join().unwrap());
        let lifetime = &report["families"][0]["lifetime"];
        let [alive, gone] =
            ["alive_s", "gone_s"].map(|name| lifetime[name].as_f64().unwrap_or_default());
        // The kernel's clock and the way to the server are a little late.
        assert!(alive < LIFETIME_S + 0.3 && gone > LIFETIME_S - 0.3, "{lifetime}");
        assert!(gone - alive <= 0.51, "{lifetime}");
        assert!(report["families"][1]["lifetime"].is_null(), "{report}");
    }
    let ended = netcheck(&stage, 0, &["--json", "--stun", SERVER]);
    assert!(report(&ended)["families"][0]["lifetime"].is_null(), "{}", ended.text);
}
