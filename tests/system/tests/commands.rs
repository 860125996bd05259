//! What a user asks a running instance, and how it ends.

#![allow(missing_docs, clippy::unwrap_used)]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use ipop_lab::Nat;
use ipop_system_tests::{Node, Scratch, Stage, binary, eventually, is_running};
use rustix::process::{Pid, Signal};

const NOT_RUNNING: i32 = 3;
const TIMED_OUT: i32 = 4;

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The processes that an instance started.
fn processes(node: &Node) -> [Pid; 2] {
    ["datapath", "controller"].map(|role| node.pid_of(role))
}

fn assert_gone(node: &Node, processes: &[Pid]) {
    for pid in processes {
        assert!(!is_running(*pid), "process {pid:?} is left: {}", node.log());
    }
    assert!(!node.run_dir().exists(), "{} is left", node.run_dir().display());
    let links = node.command("ip").args(["-o", "link"]).output().unwrap();
    assert!(!text(&links).contains("ipop0"), "{}", text(&links));
}

#[test]
fn signals_end_an_instance_without_a_trace() {
    let mut stage = Stage::prosody().join([Nat::None, Nat::PortRestricted, Nat::None]);
    stage.await_links();
    for (signal, node) in [Signal::TERM, Signal::INT, Signal::HUP].into_iter().zip(&mut stage.nodes)
    {
        let processes = processes(node);
        node.process().signal(signal);
        let begin = Instant::now();
        let status = node.process().wait(Duration::from_secs(8)).expect("it ends");
        assert_eq!(status.code(), Some(0), "{signal:?}: {}", node.log());
        assert!(begin.elapsed() < Duration::from_secs(5), "{signal:?}");
        assert_gone(node, &processes);
    }
}

#[test]
fn signals_end_an_instance_that_is_not_linked_yet() {
    let mut stage = Stage::prosody();
    stage.server.kill();
    stage.add(Nat::None);
    stage.add(Nat::None);
    // One at once, one when it is under way.
    for (node, pause) in stage.nodes.iter_mut().zip([Duration::ZERO, Duration::from_secs(1)]) {
        eventually("it runs", Duration::from_secs(5), || node.run_dir().exists());
        std::thread::sleep(pause);
        node.process().signal(Signal::INT);
        let status = node.process().wait(Duration::from_secs(8)).expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", node.log());
        assert_gone(node, &[]);
    }
}

#[test]
fn down_stops_an_instance() {
    let mut stage = Stage::prosody().join([Nat::None]);
    let node = &mut stage.nodes[0];
    eventually("it runs", Duration::from_secs(10), || {
        node.ipop("status").status.success() && node.run_dir().join("controller.pid").exists()
    });
    let processes = processes(node);
    let output = node.ipop("down");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let status = node.process().wait(Duration::from_secs(1)).expect("it has ended");
    assert_eq!(status.code(), Some(0));
    assert_gone(node, &processes);
    let output = node.ipop("down");
    assert_eq!(output.status.code(), Some(NOT_RUNNING), "{}", text(&output));
    assert!(text(&output).contains(&node.name), "{}", text(&output));
}

#[test]
fn who_asks_for_nothing_is_told() {
    for words in ["status", "status --json", "down", "ping peer"] {
        let mut command = Command::new(binary());
        command.args(words.split_whitespace()).args(["--name", "nobody-has-this-name"]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(NOT_RUNNING), "{words}: {}", text(&output));
        assert!(text(&output).contains("nobody-has-this-name"), "{words}: {}", text(&output));
        assert!(text(&output).contains("ipop up"), "{words}: {}", text(&output));
    }
    // Without a name, and with an empty /run: other tests' instances are out of sight.
    let scratch = Scratch::new();
    let script = format!(
        "mount --bind {} /run && exec {} status",
        scratch.folder().display(),
        binary().display()
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(NOT_RUNNING), "{}", text(&output));
    assert!(text(&output).contains("no instance is running"), "{}", text(&output));
}

#[test]
fn wait_gives_up_when_the_time_is_over() {
    let stage = Stage::prosody().join([Nat::None]);
    let node = &stage.nodes[0];
    eventually("it runs", Duration::from_secs(10), || node.ipop("status").status.success());
    let begin = Instant::now();
    let output = node.ipop("wait --peers 1 --timeout 1.5");
    assert_eq!(output.status.code(), Some(TIMED_OUT), "{}", text(&output));
    assert!(text(&output).contains("0 of 1"), "{}", text(&output));
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(1400) && took < Duration::from_secs(6), "{took:?}");
    // Nobody by that name: waited for as well, it may be about to start.
    let output = Command::new(binary())
        .args(["wait", "--name", "nobody-has-this-name", "--timeout", "0.5"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(NOT_RUNNING), "{}", text(&output));
}

#[test]
fn wait_says_how_many_answer() {
    let stage = Stage::prosody().join([Nat::None, Nat::None]);
    stage.await_links();
    let (a, b) = stage.pair();
    let output = a.ipop("wait --peers 2 --timeout 1");
    assert_eq!(output.status.code(), Some(TIMED_OUT), "{}", text(&output));
    assert!(text(&output).contains("1 of 2"), "{}", text(&output));
    assert!(text(&output).contains(&b.name), "{}", text(&output));
}

#[test]
fn ping_and_status_show_the_path() {
    let stage = Stage::prosody().join([Nat::PortRestricted, Nat::None, Nat::Symmetric]);
    stage.await_links();
    let (a, b, c) = (&stage.nodes[0], &stage.nodes[1], &stage.nodes[2]);
    let address = b.v4().to_string();
    eventually("the direct path is taken", Duration::from_secs(10), || {
        a.link_to(b)["path"] == "direct"
    });
    for peer in [&b.name, &address] {
        let output = a.ipop(&format!("ping {peer} --count 2 --interval 0.1"));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let shown = text(&output);
        assert_eq!(shown.lines().filter(|line| line.contains(" ms, direct from ")).count(), 2);
        assert!(shown.contains(&stage.sites[1].public.to_string()), "{shown}");
    }
    let shown = text(&a.ipop(&format!("ping {} --count 1", c.name)));
    assert!(shown.contains("relayed"), "{shown}");
    let output = a.ipop("ping nobody");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains(&b.name), "it names who is there: {}", text(&output));

    let shown = text(&a.ipop("status"));
    for word in [&a.name, &b.name, "direct", "relayed", "RTT", "handshake", &address, "2 of 2 up"] {
        assert!(shown.contains(word), "`{word}` is not in: {shown}");
    }
    let link = a.link_to(b);
    for key in [
        "fingerprint",
        "state",
        "path",
        "local",
        "remote",
        "rtt_us",
        "datagram_len",
        "handshake_age_s",
    ] {
        assert!(!link[key].is_null(), "{key}: {link}");
    }
    assert_eq!(b.link_to(a)["name"], a.name.as_str());
}
