//! Why a link is as it is: what `trace`, `status` and `ping` say of paths that were taken, and of
//! those that were not.

#![allow(missing_docs, clippy::unwrap_used)]

use std::process::{Child, Output, Stdio};
use std::time::Duration;

use ipop_lab::Nat;
use ipop_system_tests::{Node, Stage, binary, eventually};
use serde_json::Value;

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The steps that a trace for programs shows.
fn steps(output: &Output) -> Vec<Value> {
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    lines.lines().map(parse).collect()
}

/// Asserts that these steps come in this order, others in between.
fn assert_order(told: &[Value], names: &[&str]) {
    let mut rest = told.iter();
    for name in names {
        assert!(rest.any(|step| step["step"] == *name), "no `{name}` in its place: {told:#?}");
    }
}

/// Begins to trace in the background.
fn trace(node: &Node, words: &str) -> Child {
    let mut command = node.command(binary());
    command.arg("trace").args(words.split_whitespace()).args(["--name", &node.name]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_trace_shows_how_a_link_came_up_and_goes_on() {
    let stage = Stage::prosody().join([Nat::PortRestricted, Nat::PortRestricted]);
    stage.await_links();
    let (a, b) = stage.pair();
    for (node, peer) in [(a, b), (b, a)] {
        let output = node.ipop(&format!("trace {} --for 0 --json", peer.name));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let told = steps(&output);
        let begin = ["opened", "local_candidate", "remote_candidate", "pair_formed", "check_sent"];
        // A handshake may begin before our check is answered, behind a check of the peer.
        for end in [
            &["check_answered", "selected"][..],
            &["handshake_started", "keys_installed", "keys_confirmed"],
        ] {
            assert_order(&told, &[&begin, end].concat());
        }
        assert!(told.iter().all(|step| step["peer"] == peer.name.as_str()), "{told:#?}");
        let is_in_order =
            |pair: &[Value]| pair[0]["unix_us"].as_u64() <= pair[1]["unix_us"].as_u64();
        assert!(told.windows(2).all(is_in_order), "{told:#?}");
        let selected = told.iter().find(|step| step["step"] == "selected").unwrap();
        assert!(!selected["cause"].is_null() && !selected["remote"].is_null(), "{selected}");
    }
    let shown = text(&a.ipop("trace --for 0"));
    for words in ["check sent", " srflx ", "selected", "keys confirmed", " ms"] {
        assert!(shown.contains(words), "`{words}` is not in: {shown}");
    }
    let output = a.ipop("trace nobody --for 0");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));

    // While it follows, the peer's datapath dies, and then our own.
    let child = trace(a, &format!("{} --for 20 --json", b.name));
    let before = b.kill("datapath");
    b.await_successor("datapath", before);
    eventually("a new link", Duration::from_secs(15), || a.is_linked_to(b) && b.is_linked_to(a));
    let before = a.kill("datapath");
    a.await_successor("datapath", before);
    eventually("another", Duration::from_secs(15), || a.is_linked_to(b));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let opened = steps(&output).iter().filter(|step| step["step"] == "opened").count();
    assert!(opened >= 3, "one of the beginning, one for each death: {}", text(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("anew"), "{}", text(&output));
}

#[test]
fn a_relayed_link_says_why_it_is_not_direct() {
    let stage = Stage::prosody().join([Nat::Symmetric, Nat::Symmetric]);
    stage.await_links();
    let (a, b) = stage.pair();
    for (node, peer) in [(a, b), (b, a)] {
        eventually("the direct pairs are given up", Duration::from_secs(20), || {
            let why = node.link_to(peer)["why"].as_str().unwrap_or_default().to_owned();
            why.contains("no direct pair") && why.contains(": no answer")
        });
        let link = node.link_to(peer);
        assert_eq!(link["path"], "relayed", "{link}");
        assert!(link["path_age_s"].as_f64().unwrap() > 0.0, "{link}");
        let tried = link["tried"].as_array().unwrap();
        let of = |local: &str, remote: &str| {
            tried.iter().find(|t| t["local"] == local && t["remote"] == remote).unwrap_or_else(
                || {
                    panic!("{local} to {remote}: {link}");
                },
            )
        };
        let direct = of("host", "srflx");
        assert_eq!((&direct["working"], &direct["last_failure"]), (&0.into(), &"no answer".into()));
        assert!(direct["checks"].as_u64().unwrap() >= 8, "{link}");
        assert!(tried.iter().any(|t| t["working"].as_u64() > Some(0)), "{link}");

        let shown = text(&node.ipop("status --verbose"));
        for words in ["why       no direct pair", "tried     host to srflx, IPv4: 0 of "] {
            assert!(shown.contains(words), "`{words}` is not in: {shown}");
        }
        let shown = text(&node.ipop(&format!("ping {} --count 1", peer.name)));
        for words in ["why: no direct pair", "tried: host to srflx"] {
            assert!(shown.contains(words), "`{words}` is not in: {shown}");
        }
    }
}
