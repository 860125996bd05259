//! CPU time and memory, as the kernel counts them under `/proc`.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use crate::error::BenchError;

/// `USER_HZ`: clock ticks per second in `/proc`, on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds, user and system, that `roots` and all their descendants used so far.
///
/// A program may consist of a supervisor and workers; together they are the VPN.
pub(crate) fn cpu_seconds(roots: &[u32]) -> Result<f64, BenchError> {
    let mut ticks = 0.0;
    for pid in family(roots)? {
        // A process that ended meanwhile is a helper of no weight.
        if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
            ticks += parse_stat(&stat).map_or(0.0, |stat| stat.ticks);
        }
    }
    Ok(ticks / TICKS_PER_SECOND)
}

/// CPU seconds so far of each thread of `roots` and their descendants that is one of our workers,
/// by thread id.
pub(crate) fn worker_seconds(roots: &[u32]) -> Result<BTreeMap<u32, f64>, BenchError> {
    let mut workers = BTreeMap::new();
    for pid in family(roots)? {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            let id = task.file_name().to_str().and_then(|name| name.parse().ok());
            if let (true, Some(id), Some(stat)) = (is_worker(&stat), id, parse_stat(&stat)) {
                workers.insert(id, stat.ticks / TICKS_PER_SECOND);
            }
        }
    }
    Ok(workers)
}

/// Whether the thread of a stat is called `worker-` and a number.
fn is_worker(stat: &str) -> bool {
    stat.split_once(" (").is_some_and(|(_, rest)| rest.starts_with("worker-"))
}

/// Peak resident memory of `roots` and all their descendants, MiB.
pub(crate) fn peak_mib(roots: &[u32]) -> Result<f64, BenchError> {
    let mut kib = 0.0;
    for pid in family(roots)? {
        if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
            kib += parse_peak_kib(&status).unwrap_or(0.0);
        }
    }
    Ok(kib / 1024.0)
}

/// CPU seconds that the whole machine spent on anything but idling so far.
pub(crate) fn machine_seconds() -> Result<f64, BenchError> {
    let text = fs::read_to_string("/proc/stat")?;
    let ticks = parse_machine(&text);
    ticks
        .map(|ticks| ticks / TICKS_PER_SECOND)
        .ok_or_else(|| BenchError::new("/proc/stat has no `cpu` line that can be read"))
}

/// `roots` and their descendants that run now.
fn family(roots: &[u32]) -> Result<Vec<u32>, BenchError> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Ok(stat) = fs::read_to_string(entry.path().join("stat"))
            && let Some(stat) = parse_stat(&stat)
        {
            parents.insert(pid, stat.parent);
        }
    }
    Ok(descendants(roots, &parents))
}

fn descendants(roots: &[u32], parents: &HashMap<u32, u32>) -> Vec<u32> {
    let mut found = roots.to_vec();
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        let children = parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid);
        let new: Vec<u32> = children.filter(|pid| !found.contains(pid)).collect();
        found.extend(new);
        at += 1;
    }
    found
}

#[derive(Debug, PartialEq)]
struct Stat {
    parent: u32,
    /// User and system time.
    ticks: f64,
}

/// proc_pid_stat(5). The name may contain blanks and brackets, so fields count from its end.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks: ticks(11)? + ticks(12)? })
}

/// `VmHWM` of proc_pid_status(5).
fn parse_peak_kib(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; guest time is in user.
fn parse_machine(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Option<Vec<f64>> =
        line.split_whitespace().map(|field| field.parse().ok()).collect();
    let fields = fields.filter(|fields| fields.len() >= 7)?;
    Some([0, 1, 2, 5, 6].iter().map(|index| fields[*index]).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_strange_name_is_read() {
        let text = "7 (a) b (c) S 3 7 7 0 -1 4194560 9 0 0 0 120 30 0 0 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(text), Some(Stat { parent: 3, ticks: 150.0 }));
        assert_eq!(parse_stat("7 (a) S"), None);
    }

    #[test]
    fn workers_are_known_by_their_name() {
        assert!(is_worker("7 (worker-0) S 3 7"));
        assert!(!is_worker("7 (ipop) S 3 7"));
    }

    #[test]
    fn the_machine_is_busy_with_all_but_idling_waiting_and_other_guests() {
        let text = "cpu  1 2 4 1000 1000 8 16 1000 0 0\ncpu0 9 9 9 9 9 9 9\n";
        assert_eq!(parse_machine(text), Some(31.0));
        assert_eq!(parse_machine("cpu  1 2\n"), None);
    }

    #[test]
    fn the_peak_is_the_high_water_mark() {
        let text = "VmPeak:\t 9 kB\nVmHWM:\t  2048 kB\nVmRSS:\t 7 kB\n";
        assert_eq!(parse_peak_kib(text), Some(2048.0));
    }

    #[test]
    fn a_family_is_all_generations_and_nobody_else() {
        let parents = HashMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 99)]);
        let mut found = descendants(&[2], &parents);
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4]);
    }

    #[test]
    fn our_own_cost_is_not_nothing() {
        assert!(peak_mib(&[std::process::id()]).unwrap() > 0.1);
        assert!(machine_seconds().unwrap() >= 0.0);
    }
}
