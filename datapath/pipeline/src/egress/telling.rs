//! Telling the sender of a packet how large packets its path carries whole, as a router would
//! (ICMP). Unlike one, nothing is dropped for it: who does not listen loses nothing.
//!
//! A kernel believes what it is told for ten minutes, so nothing is said of a path whose length is
//! still being sought.

use std::net::IpAddr;
use std::ops::DerefMut;
use std::time::{Duration, Instant};

use ipop_wire::ethernet::{self, Ethernet};
use ipop_wire::too_big::TooBigRepr;

use crate::Pipeline;
use crate::counters::Total;
use crate::egress::cut::Outgoing;
use crate::links::LinkId;
use crate::sink::Sink;

/// How long a sender is not told again of the way to the same receiver.
const QUIET_TIME: Duration = Duration::from_secs(1);

/// At most so many are told within [`QUIET_TIME`] (RFC 4443 section 2.4 f).
const TOLD_MAX: usize = 64;

/// Sender and receiver of a packet.
type Ends = (IpAddr, IpAddr);

/// Who was told a moment ago.
pub(crate) struct Told {
    told: [Option<(Ends, Instant)>; TOLD_MAX],
    /// The oldest.
    next: usize,
}

impl Default for Told {
    fn default() -> Told {
        Told { told: [None; TOLD_MAX], next: 0 }
    }
}

impl Told {
    /// Whether a sender is due to be told; remembers that it was.
    fn admit(&mut self, now: Instant, ends: Ends) -> bool {
        let is_recent = |at: Instant| now < at + QUIET_TIME;
        let is_told =
            self.told.iter().flatten().any(|(known, at)| *known == ends && is_recent(*at));
        let is_full = self.told[self.next].is_some_and(|(_, at)| is_recent(at));
        if is_told || is_full {
            return false;
        }
        self.told[self.next] = Some((ends, now));
        self.next = (self.next + 1) % TOLD_MAX;
        true
    }
}

impl<S: DerefMut<Target = [u8]>> Pipeline<S> {
    /// Tells the sender of a frame that did not fit one datagram of the link. One to a group is not
    /// told, nor is anybody while the length of the path is not settled.
    #[cold]
    pub(super) fn tell_sender<K: Sink<Slot = S>>(
        &mut self,
        now: Instant,
        id: LinkId,
        outgoing: &Outgoing<'_>,
        sink: &mut K,
    ) {
        let Ok(frame) = Ethernet::parse(outgoing.frame) else { return };
        if ethernet::is_group(&frame.destination()) {
            return;
        }
        let on_wire = if outgoing.is_ethernet_elided { 0 } else { frame.header_len() };
        let carried = self.links.get(id).and_then(|link| link.packet_len(on_wire));
        let answer = carried.and_then(|carried| TooBigRepr::answer(frame.payload(), carried));
        let Some(answer) = answer.filter(|answer| self.told.admit(now, answer.told())) else {
            return;
        };
        let header_len = frame.header_len();
        let fill = |room: &mut [u8]| {
            let (header, packet) = room.split_at_mut(header_len);
            header.copy_from_slice(&outgoing.frame[..header_len]);
            // From where the frame was going, tags included.
            header[..6].copy_from_slice(&frame.source());
            header[6..12].copy_from_slice(&frame.destination());
            answer.emit(packet);
        };
        // The sender is told a second later if there is no slot.
        if self.write_own(header_len + answer.packet_len(), fill, sink).is_ok() {
            self.counters.add(Total::SendersTold, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(receiver: u8) -> Ends {
        ([10, 0, 0, 1].into(), [10, 0, 0, receiver].into())
    }

    #[test]
    fn each_pair_is_told_once_a_second_and_not_too_many_are() {
        let (mut told, start) = (Told::default(), Instant::now());
        assert!(told.admit(start, ends(0)) && !told.admit(start, ends(0)));
        assert!(told.admit(start, (ends(0).1, ends(0).0)), "the other way is another one");
        let count = (1..=200).filter(|receiver| told.admit(start, ends(*receiver))).count();
        assert_eq!(count, TOLD_MAX - 2);
        assert!(!told.admit(start + QUIET_TIME / 2, ends(200)));
        assert!(told.admit(start + QUIET_TIME, ends(0)));
        assert!(told.admit(start + QUIET_TIME, ends(200)));
    }
}
