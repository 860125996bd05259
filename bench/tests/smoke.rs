//! The suite runs with the real binary, writes files that others can read, and leaves nothing
//! behind, whether it ends or is stopped. Nothing here looks at how fast anything is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// `$IPOP_BIN`, or the workspace's latest debug build.
fn ipop() -> PathBuf {
    let path = std::env::var_os("IPOP_BIN").map(PathBuf::from);
    let path =
        path.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_ipop-bench")).with_file_name("ipop"));
    assert!(path.exists(), "{} is missing: run `cargo build` first", path.display());
    path
}

/// A folder that goes with its value.
struct Folder(PathBuf);

impl Folder {
    fn new(label: &str) -> Self {
        let name = format!("ipop-bench-test-{}-{label}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn start(folder: &Folder, words: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipop-bench"));
    command.args(words).arg("--ipop").arg(ipop()).arg("--out").arg(&folder.0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the suite starts")
}

/// Names of namespaces, folders and instances that a run has made and not taken away.
fn left_behind(pid: u32) -> Vec<String> {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let of_run = |name: &String| {
        let starts = [
            format!("ipl{pid}-"),
            format!("ipop-bench-{pid}-"),
            format!("ib{pid}a"),
            format!("ib{pid}b"),
            format!("ib{pid}p"),
        ];
        starts.iter().any(|start| name.starts_with(start))
    };
    let folders = [PathBuf::from("/run/netns"), PathBuf::from("/run/ipop"), std::env::temp_dir()];
    folders.iter().flat_map(|folder| names(folder)).filter(of_run).collect()
}

fn text(output: &Output) -> String {
    let words = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&words).into_owned()
}

/// The page is well-formed XML: any parser reads it.
fn parse_page(path: &Path) {
    let script = "import sys, xml.etree.ElementTree as tree; tree.parse(sys.argv[1])";
    let output = Command::new("python3").arg("-c").arg(script).arg(path).output();
    let output = output.expect("python3 is needed: apt-get install python3");
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_short_run_measures_ours_beside_the_cable() {
    let folder = Folder::new("run");
    let figures = "start,tcp1,packets,rtt,rtt-load,loss,memory";
    let child = start(
        &folder,
        &[
            "--systems",
            "raw,ipop",
            "--underlays",
            "default",
            "--runs",
            "1",
            "--seconds",
            "1",
            "--figures",
            figures,
        ],
    );
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let report = fs::read_to_string(folder.0.join("report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["failures"].as_array().unwrap().len(), 0, "{}", text(&output));
    let series = report["series"].as_array().unwrap();
    for (system, figure) in [
        ("raw", "tcp1"),
        ("ipop", "tcp1"),
        ("ipop", "packets"),
        ("ipop", "rtt-p50"),
        ("ipop", "load-p99"),
        ("ipop", "cpu-vpn"),
        ("ipop", "stream-peak"),
        ("ipop", "stream-sent"),
        ("ipop", "memory"),
        ("ipop", "start"),
    ] {
        let of = |one: &&Value| one["system"] == system && one["figure"] == figure;
        let found = series.iter().find(of).unwrap_or_else(|| panic!("no {figure} of {system}"));
        assert!(found["values"][0].as_f64().unwrap() > 0.0, "{found}");
    }
    parse_page(&folder.0.join("report.html"));
    assert_eq!(left_behind(pid), [""; 0]);
}

#[test]
fn a_run_that_is_stopped_takes_everything_down() {
    let folder = Folder::new("stop");
    let words = ["--systems", "raw", "--figures", "tcp1", "--seconds", "3600"];
    let mut child = start(&folder, &words);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !left_behind(child.id()).iter().any(|name| name.ends_with("bench-b")) {
        assert!(child.try_wait().unwrap().is_none(), "ended before anybody stopped it");
        assert!(Instant::now() < deadline, "makes no namespace");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("stopped before it was done"), "{}", text(&output));
    assert_eq!(left_behind(pid), [""; 0]);
}
