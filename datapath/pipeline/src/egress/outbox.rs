//! The sends of a batch that are still open, at most one per link: sealed datagrams grow from the
//! front of an output slot, small frames that wait for a bundle stand at its end.
//!
//! ```text
//! slot: | datagram | datagram | ...        free        ... | staged frames |     |
//!       0                     len             staging_start        budget of one datagram
//! ```
//! All datagrams of a send have one size but the last, which may be shorter and ends the send.
//! Within one link everything leaves in the order in which it came.

use std::ops::DerefMut;

use ipop_wire::Part;
use ipop_wire::bundle::{RECORD_LEN, Record};

use crate::codel::Codel;
use crate::counters::{Counters, Drop, Total};
use crate::links::{LinkId, LinkTable};
use crate::repeat::Repeater;
use crate::sink::{SEND_LEN_MAX, SendRun, Sink};

/// Sends open at once; one more, and the oldest leaves early.
const OPEN_MAX: usize = 16;

pub(crate) struct Outbox<S> {
    open: Vec<OpenSend<S>>,
    segments_max: usize,
}

struct OpenSend<S> {
    link: LinkId,
    slot: S,
    /// Bytes of sealed datagrams at the front.
    len: usize,
    /// Bytes of the first datagram; 0 before there is one.
    segment_size: usize,
    segments: usize,
    /// The last datagram was shorter: no other may follow.
    is_closed: bool,
    /// Where staged frames begin; the slot's end when there are none.
    staging_start: usize,
    staged_len: usize,
    staged_frames: usize,
}

/// Datagrams that had better leave in one send: parts of one frame.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub datagrams: usize,
    /// Bytes of each but the last.
    pub segment_size: usize,
    /// Bytes of all.
    pub len: usize,
}

impl<S: DerefMut<Target = [u8]>> OpenSend<S> {
    fn new(link: LinkId, slot: S) -> Self {
        let staging_start = slot.len();
        OpenSend {
            link,
            slot,
            len: 0,
            segment_size: 0,
            segments: 0,
            is_closed: false,
            staging_start,
            staged_len: 0,
            staged_frames: 0,
        }
    }

    #[inline]
    fn has_room(&self, row: Row, segments_max: usize) -> bool {
        self.len + row.len <= SEND_LEN_MAX.min(self.staging_start)
            && self.segments + row.datagrams <= segments_max
            && !self.is_closed
            && (self.segments == 0 || row.segment_size <= self.segment_size)
    }

    #[inline]
    fn note_datagram(&mut self, len: usize) {
        if self.segments == 0 {
            self.segment_size = len;
        }
        self.is_closed = len < self.segment_size;
        self.segments += 1;
        self.len += len;
    }

    fn staged(&self) -> std::ops::Range<usize> {
        self.staging_start..self.staging_start + self.staged_len
    }
}

/// What the outbox works on: the rest of the pipeline, borrowed for one call.
pub(crate) struct Out<'a, K: Sink> {
    pub links: &'a mut LinkTable,
    pub outbox: &'a mut Outbox<K::Slot>,
    pub codel: &'a mut Codel,
    pub repeater: &'a mut Repeater,
    pub counters: &'a mut Counters,
    pub sink: &'a mut K,
}

impl<S> Outbox<S> {
    pub fn new(segments_max: usize) -> Self {
        Outbox { open: Vec::with_capacity(OPEN_MAX), segments_max: segments_max.max(1) }
    }

    fn find(&self, link: LinkId) -> Option<usize> {
        self.open.iter().rposition(|open| open.link == link)
    }
}

impl<K: Sink> Out<'_, K> {
    /// Seals what is staged for the link and sees to it that the row does not have to be split, if
    /// any slot is large enough for all of it.
    pub fn begin_row(&mut self, link: LinkId, row: Row) {
        let Some(at) = self.outbox.find(link) else { return };
        self.seal_staged(at);
        if !self.outbox.open[at].has_room(row, self.outbox.segments_max) {
            self.close(at);
        }
    }

    /// Seals one datagram of a link behind those before it. `false`: it was dropped and counted.
    pub fn seal(&mut self, link: LinkId, part: Part, payload: &[u8], extra: &[u8]) -> bool {
        let sealed = self.try_seal(link, part, payload, extra);
        self.count_if_dropped(link, sealed)
    }

    /// Stages a small frame for a bundle; `frame` is what travels of it, and fits one datagram.
    pub fn stage(&mut self, link: LinkId, record: Record, frame: &[u8]) -> bool {
        let staged = self.try_stage(link, record, frame);
        self.count_if_dropped(link, staged)
    }

    /// Seals everything staged and sends everything open.
    pub fn flush(&mut self) {
        for at in 0..self.outbox.open.len() {
            self.seal_staged(at);
        }
        while !self.outbox.open.is_empty() {
            self.close(0);
        }
    }

    fn try_seal(
        &mut self,
        link: LinkId,
        part: Part,
        payload: &[u8],
        extra: &[u8],
    ) -> Result<(), Drop> {
        let overhead = self.links.get(link).ok_or(Drop::LinkNotUp)?.overhead();
        let len = overhead + payload.len() + extra.len();
        let at = self.open_with_room(link, len)?;
        let link = self.links.get_mut(link).ok_or(Drop::LinkNotUp)?;
        let open = &mut self.outbox.open[at];
        let end = open.staging_start;
        let len = link.seal(part, payload, extra, &mut open.slot[open.len..end])?;
        open.note_datagram(len);
        count_datagram(self.counters, len, link.is_relayed());
        Ok(())
    }

    fn try_stage(&mut self, link: LinkId, record: Record, frame: &[u8]) -> Result<(), Drop> {
        let budget = self.links.get(link).and_then(|link| link.budget()).ok_or(Drop::LinkNotUp)?;
        let len = RECORD_LEN + frame.len();
        let mut at = self.open_any(link)?;
        let open = &self.outbox.open[at];
        if open.staged_len > 0 && open.staged_len + len > budget {
            self.seal_staged(at);
        }
        let open = &self.outbox.open[at];
        if open.staged_len == 0 && open.len + budget > open.slot.len() {
            self.close(at);
            at = self.open_any(link)?;
        }
        let open = &mut self.outbox.open[at];
        if open.staged_len == 0 {
            open.staging_start = open.slot.len().saturating_sub(budget);
        }
        let start = open.staged().end;
        let room = open.slot.get_mut(start..start + len).ok_or(Drop::OutputFull)?;
        let (front, behind) = room.split_at_mut(RECORD_LEN);
        front.copy_from_slice(&record.emit());
        behind.copy_from_slice(frame);
        open.staged_len += len;
        open.staged_frames += 1;
        Ok(())
    }

    /// Seals the staged frames of an open send into it, or into a new one in its place.
    fn seal_staged(&mut self, at: usize) {
        let open = &self.outbox.open[at];
        if open.staged_len == 0 {
            return;
        }
        let (link, frames) = (open.link, open.staged_frames);
        let sealed = self.try_seal_staged(at);
        let open = &mut self.outbox.open[at];
        open.staging_start = open.slot.len();
        (open.staged_len, open.staged_frames) = (0, 0);
        match sealed {
            Ok(()) if frames > 1 => self.counters.add(Total::FramesBundled, frames),
            Ok(()) => {}
            Err(reason) => (0..frames).for_each(|_| {
                self.count_if_dropped(link, Err(reason));
            }),
        }
    }

    fn try_seal_staged(&mut self, at: usize) -> Result<(), Drop> {
        let open = &mut self.outbox.open[at];
        let link = self.links.get_mut(open.link).ok_or(Drop::LinkNotUp)?;
        let len = link.overhead() + open.staged_len;
        let row = Row { datagrams: 1, segment_size: len, len };
        let len = if open.has_room(row, self.outbox.segments_max) {
            let (front, end) = open.slot.split_at_mut(open.staging_start);
            let staged = &end[..open.staged_len];
            link.seal(Part::BUNDLE, staged, &[], &mut front[open.len..])?
        } else {
            let mut fresh = OpenSend::new(open.link, self.sink.reserve().ok_or(Drop::OutputFull)?);
            let sealed = link.seal(Part::BUNDLE, &open.slot[open.staged()], &[], &mut fresh.slot);
            let full = std::mem::replace(open, fresh);
            send(full, self.links, self.repeater, self.counters, self.sink);
            sealed?
        };
        let open = &mut self.outbox.open[at];
        open.note_datagram(len);
        let is_relayed = self.links.get(open.link).is_some_and(|link| link.is_relayed());
        count_datagram(self.counters, len, is_relayed);
        Ok(())
    }

    /// The link's open send with room for a datagram of `len` bytes, perhaps a new one.
    fn open_with_room(&mut self, link: LinkId, len: usize) -> Result<usize, Drop> {
        let at = self.open_any(link)?;
        let row = Row { datagrams: 1, segment_size: len, len };
        if self.outbox.open[at].has_room(row, self.outbox.segments_max) {
            return Ok(at);
        }
        self.close(at);
        self.open_any(link)
    }

    /// The link's open send, perhaps a new one.
    fn open_any(&mut self, link: LinkId) -> Result<usize, Drop> {
        if let Some(at) = self.outbox.find(link) {
            return Ok(at);
        }
        if self.outbox.open.len() == OPEN_MAX {
            self.seal_staged(0);
            self.close(0);
        }
        let slot = self.sink.reserve().ok_or(Drop::OutputFull)?;
        self.outbox.open.push(OpenSend::new(link, slot));
        Ok(self.outbox.open.len() - 1)
    }

    /// Sends an open send. What is staged in it must have been sealed.
    fn close(&mut self, at: usize) {
        let open = self.outbox.open.remove(at);
        send(open, self.links, self.repeater, self.counters, self.sink);
    }

    fn count_if_dropped(&mut self, link: LinkId, result: Result<(), Drop>) -> bool {
        let Err(reason) = result else { return true };
        self.counters.drop(reason);
        if let Some(link) = self.links.get_mut(link) {
            link.counters.drops += 1;
        }
        false
    }
}

fn send<K: Sink>(
    open: OpenSend<K::Slot>,
    links: &mut LinkTable,
    repeater: &mut Repeater,
    counters: &mut Counters,
    sink: &mut K,
) {
    let OpenSend { link: id, slot, len, segment_size, .. } = open;
    match links.get_mut(id) {
        Some(link) if len > 0 => {
            counters.add(Total::SendBatches, 1);
            let run = SendRun { link: link.entry.index, len, segment_size };
            if let Some(path) = link.entry.path.filter(|path| path.is_lossy) {
                let what = (id, run, path.channel);
                repeater.keep(&mut link.allowance, what, &slot[..len]);
            }
            sink.send(slot, run);
        }
        _ => sink.discard(slot),
    }
}

#[inline]
fn count_datagram(counters: &mut Counters, len: usize, is_relayed: bool) {
    counters.add(Total::DatagramsOut, 1);
    counters.add(Total::DatagramBytesOut, len);
    if is_relayed {
        counters.add(Total::RelayedDatagramsOut, 1);
    }
}
