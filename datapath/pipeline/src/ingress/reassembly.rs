//! Plain fragments that did not come in one piece: frames wait here for the rest of their parts.
//! The memory is allocated once; when all of it is in use, the frame that waits longest is given
//! up.

use std::ops::{DerefMut, Range};

use ipop_wire::geometry::Geometry;

use crate::counters::{Counters, Drop};
use crate::ingress::frame::HEADROOM;
use crate::ingress::join::Join;
use crate::links::LinkId;

/// Frames that may wait at once.
const WAITING_MAX: usize = 8;

/// Room for link headers in front of and behind the payload of a frame.
const MARGIN: usize = 64;

pub(crate) struct Reassembly {
    waiting: [Waiting; WAITING_MAX],
    /// Grows with each fragment taken, to tell ages.
    clock: u64,
}

struct Waiting {
    /// `None` when nothing waits here.
    frame: Option<Incomplete>,
    /// Headers end and payload begins at [`HEADROOM`], as in a slot.
    buffer: Box<[u8]>,
}

struct Incomplete {
    link: LinkId,
    base_counter: u64,
    count: u8,
    geometry: Geometry,
    /// One bit per part that is here.
    parts: [u64; 4],
    /// Payload bytes of the frame, once the last part is here.
    len: Option<usize>,
    age: u64,
}

impl Incomplete {
    fn of<S>(join: &Join<S>, age: u64) -> Incomplete {
        Incomplete {
            link: join.link,
            base_counter: join.base_counter,
            count: join.count,
            geometry: join.geometry,
            parts: [0; 4],
            len: None,
            age,
        }
    }

    fn is_of<S>(&self, join: &Join<S>) -> bool {
        self.link == join.link
            && self.base_counter == join.base_counter
            && self.count == join.count
            && self.geometry.header_len == join.geometry.header_len
            && self.geometry.csum == join.geometry.csum
    }

    fn mark(&mut self, parts: Range<u16>) {
        for part in parts {
            if let Some(word) = self.parts.get_mut(usize::from(part / 64)) {
                *word |= 1 << (part % 64);
            }
        }
    }

    fn is_complete(&self) -> bool {
        let here: u32 = self.parts.iter().map(|word| word.count_ones()).sum();
        here == u32::from(self.count) && self.len.is_some()
    }
}

impl Reassembly {
    /// For frames of up to `mtu` bytes of IP.
    pub fn new(mtu: usize) -> Reassembly {
        let buffer_len = HEADROOM + mtu + MARGIN;
        let waiting = std::array::from_fn(|_| Waiting {
            frame: None,
            buffer: vec![0; buffer_len].into_boxed_slice(),
        });
        Reassembly { waiting, clock: 0 }
    }

    /// Takes the fragments that a join has; returns the frame, headers and payload, when they were
    /// the last.
    pub fn take<S: DerefMut<Target = [u8]>>(
        &mut self,
        join: &Join<S>,
        counters: &mut Counters,
    ) -> Option<&[u8]> {
        self.clock += 1;
        let payload = &join.slot[join.payload()];
        let offset = usize::from(join.geometry.offset);
        let end = HEADROOM + offset + payload.len();
        let at = self.place_for(join, counters);
        let Waiting { frame, buffer } = &mut self.waiting[at];
        if end > buffer.len() {
            *frame = None;
            counters.drop(Drop::IncompleteSegment);
            return None;
        }
        let incomplete = frame.get_or_insert_with(|| Incomplete::of(join, self.clock));
        buffer[HEADROOM + offset..end].copy_from_slice(payload);
        buffer[join.start..HEADROOM].copy_from_slice(&join.slot[join.start..HEADROOM]);
        incomplete.mark(u16::from(join.first)..join.next);
        if join.is_ended() {
            incomplete.len = Some(offset + payload.len());
        }
        if !incomplete.is_complete() {
            return None;
        }
        let len = incomplete.len?;
        *frame = None;
        Some(&buffer[join.start..HEADROOM + len])
    }

    /// Where the join's frame waits already, a free place, or that of the oldest frame, given up.
    fn place_for<S>(&mut self, join: &Join<S>, counters: &mut Counters) -> usize {
        let is_same = |waiting: &Waiting| waiting.frame.as_ref().is_some_and(|f| f.is_of(join));
        if let Some(at) = self.waiting.iter().position(is_same) {
            return at;
        }
        let age = |waiting: &Waiting| waiting.frame.as_ref().map_or(0, |frame| frame.age);
        let oldest = (0..WAITING_MAX).min_by_key(|at| age(&self.waiting[*at])).unwrap_or(0);
        if self.waiting[oldest].frame.take().is_some() {
            counters.drop(Drop::IncompleteSegment);
        }
        oldest
    }
}
