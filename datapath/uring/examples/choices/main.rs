//! How the port uses io_uring, each choice beside its alternative, alternating in one run.
//!
//! ```text
//! cargo run --release -p ipop-uring --example choices [runs [milliseconds]]
//! ```
//!
//! Needs CAP_SYS_ADMIN: it works in network namespaces of its own. Sends and receives are measured
//! on a veth pair with one ring for both ends, so that no other thread decides what is measured
//! (`exchange.rs`); tap reads by the port itself, while another thread keeps the tap full
//! (`tap.rs`). The figure is CPU time, kernel included, of the thread that has the ring.

#![allow(clippy::unwrap_used, reason = "a measurement fails by panicking")]

#[path = "../../tests/common/mod.rs"]
mod common;
mod exchange;
mod provided;
mod tap;

use std::time::Duration;

use exchange::{Exchange, Sending, Variant};
use tap::{Reading, TapReads};

/// One way to do it, and what it took in each run: microseconds of CPU per unit.
struct Row {
    name: &'static str,
    micros: Vec<f64>,
}

/// A question with its possible answers, the port's first.
struct Choice {
    question: &'static str,
    rows: [Row; 2],
}

impl Choice {
    fn new(question: &'static str, ours: &'static str, other: &'static str) -> Choice {
        let row = |name| Row { name, micros: Vec::new() };
        Choice { question, rows: [row(ours), row(other)] }
    }

    fn print(&self) {
        println!("{}", self.question);
        let medians = self.rows.each_ref().map(|row| median(&row.micros));
        for (row, median) in self.rows.iter().zip(medians) {
            let low = row.micros.iter().copied().fold(f64::INFINITY, f64::min);
            let high = row.micros.iter().copied().fold(0.0, f64::max);
            let more = (median / medians[0] - 1.0) * 100.0;
            println!("  {:<34} {median:8.3} {low:8.3} to {high:8.3} {more:+6.1} %", row.name);
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// Both variants of a choice between ways to exchange datagrams.
fn exchanges() -> Vec<(Choice, [Variant; 2])> {
    let ours = Variant {
        has_fixed_files: true,
        is_deferred: true,
        is_multishot: true,
        buffers: 8,
        sending: Sending::Queued,
    };
    let many = Variant { buffers: 64, ..ours };
    let choice = Choice::new;
    vec![
        (
            choice("files, per super-datagram", "registered", "plain descriptors"),
            [ours, Variant { has_fixed_files: false, ..ours }],
        ),
        (
            choice("task work, per super-datagram", "deferred", "cooperative"),
            [ours, Variant { is_deferred: false, ..ours }],
        ),
        (
            choice("receives, 8 buffers", "multishot, provided buffers", "single"),
            [ours, Variant { is_multishot: false, ..ours }],
        ),
        (
            choice("receives, 64 buffers", "multishot, provided buffers", "single"),
            [many, Variant { is_multishot: false, ..many }],
        ),
        (
            choice("sends, per super-datagram", "queued, one enter", "a system call each"),
            [ours, Variant { sending: Sending::Direct, ..ours }],
        ),
        (
            choice("payload, per super-datagram", "copied", "zero copy"),
            [ours, Variant { sending: Sending::ZeroCopy, ..ours }],
        ),
    ]
}

/// Both variants of a choice between ways to read a tap, and which of the taps.
fn reads() -> Vec<(Choice, [Reading; 2], usize)> {
    let choice = Choice::new;
    let small = "tap reads, per frame of 64 bytes";
    let large = "tap reads, per 40 x 1300 bytes";
    let shots = [Reading::Multishot, Reading::Single];
    let drivers = [Reading::Multishot, Reading::PollLoop];
    vec![
        (choice(small, "multishot", "single"), shots, 0),
        (choice(large, "multishot", "single"), shots, 1),
        (choice(small, "io_uring", "poll loop"), drivers, 0),
        (choice(large, "io_uring", "poll loop"), drivers, 1),
    ]
}

fn main() {
    let arguments: Vec<u64> = std::env::args().skip(1).map(|word| word.parse().unwrap()).collect();
    let runs = arguments.first().copied().unwrap_or(9).max(1);
    let time = Duration::from_millis(arguments.get(1).copied().unwrap_or(300));
    ipop_uring::pin_to_core(0).unwrap();

    let exchange = Exchange::new();
    let mut exchanges = exchanges();
    let mut reads = reads();
    let taps = [1, 40].map(TapReads::new);
    for run in 0..runs {
        // Who goes first takes turns, too.
        let order = if run % 2 == 0 { [0, 1] } else { [1, 0] };
        for (choice, variants) in &mut exchanges {
            for at in order {
                choice.rows[at].micros.push(exchange.measure(&variants[at], time));
            }
        }
        for (choice, variants, tap) in &mut reads {
            for at in order {
                choice.rows[at].micros.push(taps[*tap].measure(variants[at], time));
            }
        }
    }
    println!("CPU microseconds: median and range of {runs} runs, against the port's way");
    exchanges.iter().for_each(|(choice, _)| choice.print());
    reads.iter().for_each(|(choice, ..)| choice.print());
}
