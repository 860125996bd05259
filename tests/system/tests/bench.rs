//! `ipop bench`: figures of a link beside the network below it, from peers that agree, for members.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{SocketAddr, TcpStream};
use std::process::Output;
use std::time::Duration;

use ipop_lab::Nat;
use ipop_system_tests::{Node, Process, Stage, binary, eventually};
use rustix::process::Signal;
use serde_json::Value;

const PORT: u16 = 7077;
const FIGURES: [&str; 8] = [
    "tcp_1_to_gbit_s",
    "tcp_1_from_gbit_s",
    "tcp_4_to_gbit_s",
    "tcp_4_from_gbit_s",
    "packets_to_per_s",
    "packets_from_per_s",
    "round_trip_idle",
    "round_trip_loaded",
];

/// Lets members measure through a node.
fn serve(node: &Node, flags: &[&str]) -> Process {
    let mut command = node.command(binary());
    command.args(["bench", "--serve", "--name", &node.name]).args(flags);
    let serving = Process::start(command, node.scratch().path("serving"));
    eventually("it serves", Duration::from_secs(10), || serving.log().contains("may measure"));
    serving
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn figures(from: &Node, to: &Node) -> Value {
    let output = from.ipop(&format!("bench {} --seconds 0.3 --json", to.name));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All are there, and more than nothing.
fn assert_measured(figures: &Value) {
    for name in FIGURES {
        let figure = &figures[name];
        let number = if figure.is_object() { &figure["p50_us"] } else { figure };
        assert!(number.as_f64().is_some_and(|number| number > 0.0), "{name}: {figures:#}");
    }
}

#[test]
fn a_link_is_measured_beside_its_underlay() {
    let stage = Stage::prosody().join([Nat::None, Nat::None]);
    stage.await_links();
    let (a, b) = stage.pair();
    for (peer, code, reason) in [(&*b.name, 1, "ipop bench --serve"), ("nobody", 2, &*b.name)] {
        let output = a.ipop(&format!("bench {peer}"));
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(text(&output).contains(reason), "{}", text(&output));
    }

    let mut serving = serve(b, &[]);
    eventually("the direct path is taken", Duration::from_secs(10), || {
        [(a, b), (b, a)].iter().all(|(one, other)| one.link_to(other)["path"] == "direct")
    });
    let report = figures(a, b);
    assert_measured(&report["overlay"]);
    assert_measured(&report["underlay"]);
    for end in ["cpu_here_s_per_gib", "cpu_peer_s_per_gib"] {
        assert!(report["overlay"][end].is_number(), "{report:#}");
        assert!(report["underlay"][end].is_null(), "{report:#}");
    }
    assert!(report["underlay_missing"].is_null(), "{report:#}");
    // Nobody gets in from below.
    let below = SocketAddr::new(stage.sites[1].address.into(), PORT);
    let connected = ipop_lab::inside(&a.namespace(), move || {
        TcpStream::connect_timeout(&below, Duration::from_secs(2))
    });
    assert!(connected.is_err());

    let output = a.ipop(&format!("bench {} --seconds 0.2", b.v4()));
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    for word in ["overlay", "underlay", "Gbit/s", "direct", "CPU of the datapath here"] {
        assert!(shown.contains(word), "`{word}` is not in: {shown}");
    }
    serving.signal(Signal::INT);
    let status = serving.wait(Duration::from_secs(5)).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", serving.log());
}

#[test]
fn an_underlay_that_is_closed_has_no_figures_but_a_reason() {
    let stage = Stage::prosody().join([Nat::PortRestricted, Nat::PortRestricted, Nat::None]);
    stage.await_links();
    let [a, behind_nat, shy] = &stage.nodes[..] else { unreachable!() };
    let _serving = serve(behind_nat, &[]);
    let _shy = serve(shy, &["--overlay-only"]);
    for (peer, reason) in [(behind_nat, " to "), (shy, "the peer keeps it closed")] {
        let report = figures(a, peer);
        assert_measured(&report["overlay"]);
        assert!(FIGURES.iter().all(|name| report["underlay"][name].is_null()), "{report:#}");
        let missing = report["underlay_missing"].as_str().unwrap();
        assert!(missing.contains(reason), "{missing}");
    }
}

/// Measures for a long time, from `from` to `to`.
fn measure_long(from: &Node, to: &Node) -> Process {
    let mut command = from.command(binary());
    command.args(["bench", &to.name, "--seconds", "20", "--name", &from.name]);
    Process::start(command, from.scratch().path("measuring"))
}

#[test]
fn members_come_one_at_a_time_and_either_end_may_stop() {
    let stage = Stage::prosody().join([Nat::None, Nat::None, Nat::None]);
    stage.await_links();
    let [a, b, c] = &stage.nodes[..] else { unreachable!() };
    let soon = Duration::from_secs(10);
    let mut serving = serve(b, &[]);
    let mut measuring = measure_long(a, b);
    eventually("it is served", soon, || serving.log().contains(&format!("{} measures", a.name)));
    let output = c.ipop(&format!("bench {} --seconds 0.2", b.name));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let refusal = format!("{} measures just now", a.name);
    assert!(text(&output).contains(&refusal), "{}", text(&output));

    measuring.signal(Signal::INT);
    let status = measuring.wait(Duration::from_secs(5)).expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", measuring.log());
    assert!(measuring.log().contains("stopped before the end"), "{}", measuring.log());
    eventually("the next one may come", soon, || {
        c.ipop(&format!("bench {} --seconds 0.05", b.name)).status.success()
    });

    let mut measuring = measure_long(a, b);
    let count = || serving.log().matches(&format!("{} measures\n", a.name)).count();
    eventually("it is served", soon, || count() == 2);
    serving.signal(Signal::INT);
    let status = serving.wait(Duration::from_secs(5)).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", serving.log());
    measuring.signal(Signal::TERM);
    assert!(measuring.wait(Duration::from_secs(5)).is_some());
}

#[test]
fn it_serves_the_interface_of_a_new_datapath_and_ends_with_the_instance() {
    let mut stage = Stage::prosody().join([Nat::None, Nat::None]);
    stage.await_links();
    let (a, b) = stage.pair();
    let mut serving = serve(b, &[]);
    let before = b.kill("datapath");
    b.await_successor("datapath", before);
    eventually("it is measured again", Duration::from_secs(60), || {
        a.ipop(&format!("bench {} --seconds 0.05", b.name)).status.success()
    });
    let _ = stage.nodes[1].stop();
    let status = serving.wait(Duration::from_secs(5)).expect("it ends");
    assert_eq!(status.code(), Some(3), "{}", serving.log());
}
