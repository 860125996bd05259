//! One level's bytes in each direction: what is not yet acknowledged, and what has come so far.

use std::ops::Range;

/// Bytes of handshake messages per level that are buffered at most. The longest flight takes
/// about 1.4 KB.
pub(crate) const STREAM_LEN_MAX: usize = 16 * 1024;

/// Pieces with gaps between them that are remembered at most.
const PIECES_MAX: usize = 16;

/// What is to be sent at one level. Cumulative acknowledgements; all of the rest goes again.
#[derive(Default)]
pub(crate) struct SendStream {
    bytes: Vec<u8>,
    acknowledged: usize,
    sent: usize,
}

impl SendStream {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next piece to send, of at most `length_max` bytes, with its offset.
    pub(crate) fn next_piece(&mut self, length_max: usize) -> Option<(u32, Vec<u8>)> {
        let start = self.sent;
        let end = self.bytes.len().min(start + length_max);
        if start == end {
            return None;
        }
        self.sent = end;
        Some((start as u32, self.bytes[start..end].to_vec()))
    }

    /// Notes the peer's acknowledgement; true if it is news. A peer cannot acknowledge what was
    /// never sent: such numbers are ignored.
    pub(crate) fn acknowledge(&mut self, offset: u32) -> bool {
        let offset = offset as usize;
        if offset <= self.acknowledged || offset > self.bytes.len() {
            return false;
        }
        self.acknowledged = offset;
        self.sent = self.sent.max(offset);
        true
    }

    /// Everything not acknowledged is to be sent again.
    pub(crate) fn rewind(&mut self) {
        self.sent = self.acknowledged;
    }

    pub(crate) fn is_acknowledged(&self) -> bool {
        self.acknowledged == self.bytes.len()
    }
}

/// What became of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// Some of it is new.
    New,
    /// All of it was there: the peer has not heard of our acknowledgement.
    Known,
    /// Beyond the limits; nothing was kept.
    TooMuch,
}

/// Reassembles one level's bytes. What came first stays; memory is bounded.
#[derive(Default)]
pub(crate) struct ReceiveStream {
    bytes: Vec<u8>,
    /// Disjoint, ascending, never touching.
    pieces: Vec<Range<usize>>,
    read: usize,
}

impl ReceiveStream {
    pub(crate) fn insert(&mut self, offset: u32, bytes: &[u8]) -> Inserted {
        let start = offset as usize;
        let end = start + bytes.len();
        if end > STREAM_LEN_MAX {
            return Inserted::TooMuch;
        }
        let new = self.missing(start..end);
        if new.is_empty() {
            return Inserted::Known;
        }
        let merged = self.merged(start..end);
        if merged.len() > PIECES_MAX {
            return Inserted::TooMuch;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        for range in new {
            self.bytes[range.clone()]
                .copy_from_slice(&bytes[range.start - start..range.end - start]);
        }
        self.pieces = merged;
        Inserted::New
    }

    /// Bytes received without a gap.
    pub(crate) fn received(&self) -> u32 {
        self.pieces.first().filter(|piece| piece.start == 0).map_or(0, |piece| piece.end as u32)
    }

    /// The bytes behind those read before, up to the first gap.
    pub(crate) fn read(&mut self) -> &[u8] {
        let start = self.read;
        self.read = self.received() as usize;
        &self.bytes[start..self.read]
    }

    fn missing(&self, wanted: Range<usize>) -> Vec<Range<usize>> {
        let mut missing = Vec::new();
        let mut start = wanted.start;
        for piece in &self.pieces {
            let gap = start..piece.start.min(wanted.end);
            if !gap.is_empty() {
                missing.push(gap);
            }
            start = start.max(piece.end);
        }
        if start < wanted.end {
            missing.push(start..wanted.end);
        }
        missing
    }

    fn merged(&self, added: Range<usize>) -> Vec<Range<usize>> {
        let mut all = self.pieces.clone();
        all.push(added);
        all.sort_by_key(|piece| piece.start);
        let mut merged: Vec<Range<usize>> = Vec::with_capacity(all.len());
        for piece in all {
            match merged.last_mut() {
                Some(last) if piece.start <= last.end => last.end = last.end.max(piece.end),
                _ => merged.push(piece),
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_in_any_order_come_out_as_one(
            length in 1usize..3000,
            cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..700), 0..60),
        ) {
            let whole: Vec<u8> = (0..length).map(|at| (at * 7 + at / 256) as u8).collect();
            let mut stream = ReceiveStream::default();
            let mut known = vec![false; length];
            let mut read = Vec::new();
            for (start, size) in cuts {
                let start = start.index(length);
                let end = length.min(start + size);
                let is_new = known[start..end].iter().any(|known| !known);
                match stream.insert(start as u32, &whole[start..end]) {
                    Inserted::New => {
                        prop_assert!(is_new);
                        known[start..end].fill(true);
                    }
                    Inserted::Known => prop_assert!(!is_new),
                    Inserted::TooMuch => prop_assert!(stream.pieces.len() >= PIECES_MAX),
                }
                read.extend_from_slice(stream.read());
                let contiguous = known.iter().position(|known| !known).unwrap_or(length);
                prop_assert_eq!(stream.received() as usize, contiguous);
                prop_assert_eq!(&read[..], &whole[..contiguous]);
            }
        }

        #[test]
        fn whatever_comes_memory_is_bounded(
            inserts in proptest::collection::vec((any::<u32>(), 0usize..1200), 0..200),
            near in proptest::collection::vec((0u32..20_000, 0usize..1200), 0..200),
        ) {
            let mut stream = ReceiveStream::default();
            for (offset, size) in inserts.into_iter().chain(near) {
                stream.insert(offset, &vec![1; size]);
                prop_assert!(stream.bytes.len() <= STREAM_LEN_MAX);
                prop_assert!(stream.pieces.len() <= PIECES_MAX);
            }
        }
    }

    #[test]
    fn what_came_first_stays() {
        let mut stream = ReceiveStream::default();
        assert_eq!(stream.insert(2, b"CD"), Inserted::New);
        assert_eq!(stream.read(), b"");
        assert_eq!(stream.insert(0, b"abcdef"), Inserted::New);
        assert_eq!(stream.read(), b"abCDef");
        assert_eq!(stream.insert(0, b"xyz"), Inserted::Known);
        assert_eq!(stream.insert(6, b""), Inserted::Known);
    }

    #[test]
    fn only_what_was_sent_can_be_acknowledged() {
        let mut stream = SendStream::default();
        stream.push(&[7; 1000]);
        assert!(!stream.acknowledge(1001));
        assert_eq!(stream.next_piece(600).map(|(at, bytes)| (at, bytes.len())), Some((0, 600)));
        assert_eq!(stream.next_piece(600).map(|(at, bytes)| (at, bytes.len())), Some((600, 400)));
        assert_eq!(stream.next_piece(600), None);
        assert!(stream.acknowledge(600));
        assert!(!stream.acknowledge(500));
        stream.rewind();
        assert_eq!(stream.next_piece(600).map(|(at, bytes)| (at, bytes.len())), Some((600, 400)));
        assert!(!stream.is_acknowledged());
        assert!(stream.acknowledge(1000));
        assert!(stream.is_acknowledged());
    }
}
