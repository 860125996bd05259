//! Flame graphs of what `perf record` sampled, one per thread of each node: wide is what costs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options as FoldOptions};
use inferno::flamegraph::{self, Options};

use crate::count::stdout_of;
use crate::error::PerfError;
use crate::parts;

/// A thread with a smaller part of all samples has no graph.
const PART_MIN: f64 = 0.01;

/// The name of a process, for titles and file names.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pid: String,
    name: String,
}

impl std::str::FromStr for Process {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((pid, name)) if pid.parse::<u32>().is_ok() && is_file_name(name) => {
                Ok(Self { pid: pid.to_owned(), name: name.to_owned() })
            }
            _ => Err("write PID=NAME, with a name that a file can have".to_owned()),
        }
    }
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/')
}

/// Folded stacks of one thread: `frame;frame;frame samples`.
#[derive(Debug, Default, PartialEq)]
struct Thread {
    stacks: Vec<String>,
    samples: u64,
}

/// Draws all threads of `samples` into `folder`, and prints which part of the way costs what.
///
/// # Errors
/// When `perf` is missing, the samples are unreadable, or the folder not writable.
pub(crate) fn draw(samples: &Path, folder: &Path, processes: &[Process]) -> Result<(), PerfError> {
    let file = |path: PathBuf| move |source| PerfError::File { path, source };
    let script = Command::new("perf")
        // Without periods, so that each sample counts once.
        .args(["script", "--no-inline", "--fields=comm,pid,tid,time,event,ip,sym,dso", "-i"])
        .arg(samples)
        .output();
    let script = stdout_of("perf", "linux-perf", script)?;
    let folded = fold(&script).map_err(file(samples.to_owned()))?;
    let threads = by_thread(&folded);
    fs::create_dir_all(folder).map_err(file(folder.to_owned()))?;
    let all: u64 = threads.values().map(|thread| thread.samples).sum();
    for (name, thread) in &threads {
        let part = thread.samples as f64 / all.max(1) as f64;
        if part < PART_MIN {
            continue;
        }
        let title = title(name, processes);
        let path = folder.join(format!("{}.svg", title.replace(['/', ' '], "-")));
        let mut options = Options::default();
        options.title =
            format!("{title}: {} samples, {:.0} % of all", thread.samples, part * 100.0);
        options.count_name = "samples".to_owned();
        let svg = fs::File::create(&path).map_err(file(path.clone()))?;
        flamegraph::from_lines(&mut options, thread.stacks.iter().map(String::as_str), svg)
            .map_err(file(path.clone()))?;
        println!("\n{title}: {:.1} % of all samples, {}", part * 100.0, path.display());
        for (part, share) in parts::shares(&thread.stacks) {
            println!("{:7.1} %  {part}", share * 100.0);
        }
    }
    Ok(())
}

/// Stacks as `command-pid/tid;frame;frame samples`, one a line.
fn fold(script: &str) -> io::Result<String> {
    let mut options = FoldOptions::default();
    options.include_pid = true;
    options.include_tid = true;
    options.annotate_kernel = true;
    let mut folded = Vec::new();
    Folder::from(options).collapse(script.as_bytes(), &mut folded)?;
    Ok(String::from_utf8_lossy(&folded).into_owned())
}

/// Tells the threads apart, by the first frame of each stack.
fn by_thread(folded: &str) -> BTreeMap<String, Thread> {
    let mut threads: BTreeMap<String, Thread> = BTreeMap::new();
    for line in folded.lines() {
        let Some((name, stack)) = line.split_once(';') else { continue };
        let Some(samples) = stack.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()) else {
            continue;
        };
        let thread = threads.entry(name.to_owned()).or_default();
        thread.stacks.push(stack.to_owned());
        thread.samples += samples;
    }
    threads
}

/// `command-pid/tid` with the process's name instead of its number.
fn title(thread: &str, processes: &[Process]) -> String {
    let parts = thread.rsplit_once('/').and_then(|(front, tid)| {
        let (command, pid) = front.rsplit_once('-')?;
        let process = processes.iter().find(|process| process.pid == pid)?;
        Some(format!("{} {command} {tid}", process.name))
    });
    parts.unwrap_or_else(|| thread.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `perf script` prints samples of two threads.
    const SCRIPT: &str = "\
worker-0  100/101   1.000: cpu-clock:u: 
\tffffffff81000000 copy_user+0x1 ([kernel.kallsyms])
\t    55550000 seal+0x10 (/bin/ipop)
\t    55540000 worker+0x10 (/bin/ipop)

ipop  100/100   1.100: cpu-clock:u: 
\t    55550000 agent+0x10 (/bin/ipop)

worker-0  100/101   1.200: cpu-clock:u: 
\tffffffff81000000 copy_user+0x1 ([kernel.kallsyms])
\t    55550000 seal+0x10 (/bin/ipop)
\t    55540000 worker+0x10 (/bin/ipop)

";

    #[test]
    fn each_thread_has_its_own_stacks() {
        let threads = by_thread(&fold(SCRIPT).unwrap());
        assert_eq!(threads.len(), 2, "{threads:?}");
        let worker = &threads["worker-0-100/101"];
        assert_eq!(worker.stacks, ["worker;seal;copy_user_[k] 2"]);
        assert_eq!(worker.samples, 2);
    }

    #[test]
    fn a_thread_is_named_after_its_node() {
        let node: Process = "100=node1".parse().unwrap();
        assert_eq!(title("worker-0-100/101", std::slice::from_ref(&node)), "node1 worker-0 101");
        assert_eq!(title("worker-0-7/8", &[node]), "worker-0-7/8");
        assert!("x=node".parse::<Process>().is_err());
        assert!("1=a/b".parse::<Process>().is_err());
    }
}
