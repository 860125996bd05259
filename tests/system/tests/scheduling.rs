//! How the kernel schedules workers: on cores of their own, and in real time, where that is asked.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{Node, Stage, transfer, without_calls};

const BYTES: u64 = 64 << 20;
/// `SCHED_OTHER` (sched(7)).
const ORDINARY: u32 = 0;
/// `SCHED_RR`.
const ROUND_ROBIN: u32 = 2;
/// `sched_setscheduler`.
const SET_SCHEDULER: i64 = if cfg!(target_arch = "x86_64") { 144 } else { 119 };

/// The datapath's threads: name, policy (proc(5), field 41 of `stat`) and allowed cores.
fn threads(node: &Node) -> Vec<(String, u32, String)> {
    let folder = format!("/proc/{}/task", node.pid_of("datapath"));
    let threads = std::fs::read_dir(folder).unwrap().map(|entry| {
        let read = |name: &str| std::fs::read_to_string(entry.as_ref().unwrap().path().join(name));
        let (stat, status) = (read("stat").unwrap(), read("status").unwrap());
        let policy = stat.rsplit(") ").next().unwrap().split(' ').nth(38).unwrap();
        let cores =
            status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        (read("comm").unwrap().trim().to_owned(), policy.parse().unwrap(), cores.trim().to_owned())
    });
    threads.collect()
}

#[test]
fn workers_run_in_real_time_and_on_their_cores_where_asked() {
    let mut stage = Stage::prosody();
    for asked in ["workers = 2\nrealtime = true\npin = true\n", "workers = 2\n"] {
        let number = stage.add_site(Nat::None, Impairment::default());
        let mut config = stage.config(number);
        config.overlay.push_str(asked);
        stage.start(number, &config);
    }
    stage.await_links();
    let (asked, plain) = stage.pair();
    let (workers, others): (Vec<_>, Vec<_>) =
        threads(asked).into_iter().partition(|(name, ..)| name.starts_with("worker-"));
    assert_eq!(workers.len(), 2);
    for (name, policy, cores) in &workers {
        assert_eq!(*policy, ROUND_ROBIN, "{name}");
        assert!(cores.parse::<u32>().is_ok(), "{name}: {cores}");
    }
    for (name, policy, _) in others.into_iter().chain(threads(plain)) {
        assert_eq!(policy, ORDINARY, "{name}");
    }
    let says = asked.status()["datapath"]["workers"].as_str().unwrap().to_owned();
    assert_eq!(says, "2, each on a core of its own, in real time");
    for (from, to) in [(asked, plain), (plain, asked)] {
        let result = transfer(from, to, to.v4(), BYTES);
        assert_eq!((result.bytes, result.corrupted), (BYTES, 0));
    }
}

#[test]
fn a_kernel_that_refuses_real_time_is_named() {
    let mut stage = Stage::prosody();
    let number = stage.add_site(Nat::None, Impairment::default());
    let mut config = stage.config(number);
    config.overlay.push_str("realtime = true\n");
    let machine = &stage.sites[number].node;
    let mut node = without_calls(&[SET_SCHEDULER], || Node::start(machine, &config));
    let ended = node.process().wait(Duration::from_secs(10)).unwrap();
    assert_eq!(ended.code(), Some(1), "{}", node.log());
    assert!(node.log().contains("workers may not run in real time"), "{}", node.log());
    assert!(node.log().contains("leave out --realtime"), "{}", node.log());
}
