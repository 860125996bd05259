//! `ipop lab`: what a new user runs first.

#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ipop_system_tests::{Process, Scratch, binary, ended, eventually};
use rustix::process::Signal;
use serde_json::Value;

/// Labs that run at once have different names, as their nodes share /run/ipop.
fn unique_name() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    format!("lab{}-{}-", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed))
}

fn lab(words: &str) -> (Command, String) {
    let name = unique_name();
    let mut command = Command::new(binary());
    command.arg("lab").args(words.split_whitespace()).args(["--name", &name]);
    (command, name)
}

fn assert_nothing_left(name: &str, pid: u32) {
    let namespaces = ipop_lab::run("ip netns list").unwrap();
    assert!(!namespaces.contains(&format!("ipl{pid}-")), "{namespaces}");
    for folder in ["/run/ipop", "/tmp"] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let left: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|entry| entry.contains(name))
            .collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    for process in processes {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(!line.contains(name), "{line}");
    }
}

#[test]
fn a_group_is_shown_measured_and_taken_down() {
    let scratch = Scratch::new();
    let file = scratch.path("results.json");
    let (mut command, name) = lab("--nodes 3 --nat portres,portres,symmetric --traffic 1");
    command.arg("--json").arg(&file);
    let mut process = Process::start(command, scratch.path("log"));
    let pid = process.pid().as_raw_nonzero().get().cast_unsigned();
    let status = process.wait(Duration::from_secs(60)).expect("it ends");
    let text = process.log();
    assert_eq!(status.code(), Some(0), "{text}");
    assert_nothing_left(&name, pid);
    let table: Vec<_> = text.lines().filter(|line| line.contains(" - ")).collect();
    assert_eq!(table.len(), 3, "{text}");
    let results: Value = serde_json::from_str(&scratch.read("results.json")).unwrap();
    let pairs = results["pairs"].as_array().unwrap();
    let paths: Vec<_> = pairs.iter().map(|pair| pair["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["direct", "relayed", "relayed"], "{results}");
    for pair in pairs {
        for key in ["first_ping", "rtt_ms", "gbit_s"] {
            assert!(pair[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {results}");
        }
    }
}

#[test]
fn a_lab_that_is_interrupted_leaves_nothing() {
    // While it builds, while nodes join, while traffic runs.
    for (signal, milliseconds) in
        [(Signal::INT, 100), (Signal::INT, 500), (Signal::TERM, 1500), (Signal::INT, 5000)]
    {
        let scratch = Scratch::new();
        let (command, name) = lab("--nodes 3 --traffic 20");
        let mut process = Process::start(command, scratch.path("log"));
        let pid = process.pid().as_raw_nonzero().get().cast_unsigned();
        std::thread::sleep(Duration::from_millis(milliseconds));
        process.signal(signal);
        let begin = Instant::now();
        let status = process.wait(Duration::from_secs(20)).expect("it ends");
        assert!(begin.elapsed() < Duration::from_secs(10), "{milliseconds} ms: {}", process.log());
        assert_ne!(status.code(), Some(0), "{milliseconds} ms: {}", process.log());
        assert!(!process.log().contains("panicked"), "{}", process.log());
        assert_nothing_left(&name, pid);
    }
}

#[test]
fn a_lab_that_is_kept_runs_until_ctrl_c() {
    let scratch = Scratch::new();
    let (command, name) = lab("--nodes 2 --nat none --traffic 0 --keep");
    let mut process = Process::start(command, scratch.path("log"));
    let pid = process.pid().as_raw_nonzero().get().cast_unsigned();
    eventually("it says how to look at the nodes", Duration::from_secs(30), || {
        process.log().contains(&format!("ipop status --name {name}2"))
    });
    let text = process.log();
    let line = text.lines().find(|line| line.contains(&format!("--name {name}1"))).unwrap();
    let line = line.trim().replace(" ipop ", &format!(" {} ", binary().display()));
    let shown = ipop_lab::run(&line).unwrap();
    assert!(shown.contains("1 of 1 up"), "{shown}");
    process.signal(Signal::INT);
    let status = process.wait(Duration::from_secs(20)).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", process.log());
    assert_nothing_left(&name, pid);
}

#[test]
fn what_cannot_be_built_is_told() {
    for (words, named) in
        [("--nodes 1", "--nodes"), ("--nat cone", "portres"), ("--nodes 300 --traffic 0", "200")]
    {
        let (command, name) = lab(words);
        let ended = ended(command);
        assert!(matches!(ended.code, Some(1 | 2)), "{words}: {ended:?}");
        assert!(ended.text.contains(named), "{words}: {}", ended.text);
        let left = format!("/run/ipop/{name}1");
        assert!(!std::path::Path::new(&left).exists());
    }
}

#[test]
fn a_missing_tool_names_its_package() {
    let name = unique_name();
    let nft = ipop_lab::run("which nft").expect("nft (Debian's package nftables)");
    let script = format!(
        "mount --bind /dev/null {} && exec {} lab --name {name}",
        nft.trim(),
        binary().display()
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]);
    let ended = ended(command);
    assert_eq!(ended.code, Some(5), "{}", ended.text);
    for word in ["`nft`", "apt-get install nftables", "--install-missing"] {
        assert!(ended.text.contains(word), "`{word}` is not in: {}", ended.text);
    }
}
