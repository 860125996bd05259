//! What is lost and what is overtaken on a way that is well filled, but not full.

use std::time::Duration;

use super::{Figure, Values};
use crate::error::BenchError;
use crate::process::Process;
use crate::stage::{Stage, socket};
use crate::traffic::{Counted, Streamed, read};
use crate::tunnel::Tunnel;

const PORT: u16 = 5305;
/// Share of the peak at which nothing should be lost.
const SHARE: f64 = 0.8;
/// So many datagrams make one in a million tell something.
const DATAGRAMS: u64 = 10_000_000;
/// They may take so many times as long as other measurements.
const TIMES: u32 = 6;
/// How much longer than asked for the tools may take.
const MARGIN: Duration = Duration::from_secs(20);

/// Looks for the peak, and then sends at a share of it.
pub(super) fn measure(stage: &Stage, tunnel: &Tunnel, seconds: u32) -> Result<Values, BenchError> {
    let (_, flood) = stream(stage, tunnel, &[], seconds)?;
    let peak = flood.per_second();
    let (rate, count) = ((peak * SHARE).to_string(), DATAGRAMS.to_string());
    let words = ["--rate", &rate, "--datagrams", &count];
    let (sent, counted) = stream(stage, tunnel, &words, seconds * TIMES)?;
    Ok(values(peak, &sent, &counted))
}

fn values(peak: f64, sent: &Streamed, counted: &Counted) -> Values {
    let missing = sent.datagrams.saturating_sub(counted.datagrams);
    let lost = missing.saturating_sub(counted.overruns);
    let of_million = |count: u64| 1e6 * count as f64 / sent.datagrams.max(1) as f64;
    vec![
        (Figure::StreamPeak, peak * sent.len as f64 * 8.0 / 1e9),
        (Figure::StreamShare, 100.0 * sent.datagrams as f64 / sent.seconds.max(1e-9) / peak),
        (Figure::StreamSent, sent.datagrams as f64 / 1e6),
        (Figure::Lost, of_million(lost)),
        (Figure::LostByProgram, of_million(missing - lost)),
        (Figure::Reordered, of_million(counted.reordered)),
    ]
}

/// Streams for `seconds` at most; what was sent and what of it came.
fn stream(
    stage: &Stage,
    tunnel: &Tunnel,
    words: &[&str],
    seconds: u32,
) -> Result<(Streamed, Counted), BenchError> {
    let port = PORT.to_string();
    let command = stage.tool(1, &["udp-count", "--port", &port])?;
    let mut count = Process::start(command, stage.folder(), "udp-count")?;
    stage.wait_for_port(&mut count, "udp", PORT)?;
    let (to, time) = (socket(tunnel.far, PORT), seconds.to_string());
    let words = [&["udp-stream", "--to", &to, "--seconds", &time], words].concat();
    let patience = Duration::from_secs(u64::from(seconds)) + MARGIN;
    let sent = stage.run(stage.tool(0, &words)?, "udp-stream", patience)?;
    Ok((read(&sent)?, read(&count.finish(MARGIN, &stage.stop)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_lost_itself_is_not_the_ways_loss() {
        let sent = Streamed { datagrams: 2_000_000, len: 1000, seconds: 2.5 };
        let counted = Counted { datagrams: 1_999_990, reordered: 2, overruns: 4, seconds: 2.5 };
        let values = values(1e6, &sent, &counted);
        let of = |figure| values.iter().find(|(of, _)| *of == figure).unwrap().1;
        assert_eq!((of(Figure::StreamPeak), of(Figure::StreamShare)), (8.0, 80.0));
        assert_eq!((of(Figure::Lost), of(Figure::LostByProgram)), (3.0, 2.0));
        assert_eq!((of(Figure::Reordered), of(Figure::StreamSent)), (1.0, 2.0));
    }
}
