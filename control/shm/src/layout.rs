//! The layout of the segment file, version 2.
//!
//! ```text
//!      0  header, one page; see below
//!   4096  counters            [worker][counter] u64, each worker's block on lines of its own
//!         commands            ring, controller to datapath
//!         events              ring, datapath to controller
//!         links               rows, written by the datapath
//!         datapath errors     rows, written by the datapath
//!         controller errors   rows, written by the controller
//!         datapath note       one row, written by the datapath
//!         controller note     one row, written by the controller
//!         journal             records, written by the datapath
//! ```
//! Each region starts on a page, and its offset is in the header. The inside of a region is drawn
//! in `counters.rs`, `ring.rs`, `rows.rs`, `error_log.rs` and `journal.rs`.
//!
//! The header is words of 8 bytes, little endian:
//! ```text
//! word  0  magic "IPOPSHM\0"
//!       1  version: major << 16 | minor; 0 until all the rest is written
//!       2  version of the words that the two sides exchange
//!       3  generation: one more than that of the segment that this one replaced
//!       4  length of the file, bytes
//!       5  workers              6  counters per worker
//!       7  command ring, bytes  8  event ring, bytes     9  longest record, bytes
//!      10  link rows           11  bytes of a link row
//!      12  error rows          13  bytes of an error row
//!      14  bytes of a note
//!      15  journal records     16  bytes of a journal record
//!      24  offsets of the nine regions, bytes
//!      64  datapath:   process id, epoch, heartbeat (Unix ms)
//!      80  controller: process id, epoch, heartbeat (Unix ms)
//! ```
//! Words 64 and on change; the others never do once the version is there. Programs of the same
//! major version understand each other. What stays in every version is the magic, the place of the
//! version, and the locks: byte 0 of the file is locked (open file description lock, exclusive) by
//! the living datapath, byte 1 by the living controller, byte 2 by a new datapath while it replaces
//! the file. The kernel drops a lock when its holder dies, whichever way, and in whichever process
//! id namespace.

use crate::counters::counter_words;
use crate::journal::journal_words;
use crate::memory::{LINE_WORDS, WORD, words_for};
use crate::ring::ring_words;
use crate::rows::table_words;

/// First word of a segment.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"IPOPSHM\0");
/// A change that older programs cannot live with raises this.
pub(crate) const VERSION_MAJOR: u64 = 2;
const VERSION_MINOR: u64 = 0;
/// What word 1 becomes last of all.
pub(crate) const VERSION: u64 = VERSION_MAJOR << 16 | VERSION_MINOR;

pub(crate) const PAGE: usize = 4096;
/// The byte of the file whose lock is the right to replace the file.
pub(crate) const SUCCESSION_LOCK: i64 = 2;
/// Words of the header.
pub(crate) const HEADER_WORDS: usize = PAGE / WORD;
pub(crate) const VERSION_WORD: usize = 1;
const SIZES_WORD: usize = 5;
const SIZES: usize = 12;
const OFFSETS_WORD: usize = 24;
const REGIONS: usize = 9;
pub(crate) const DATAPATH_WORD: usize = 64;
pub(crate) const CONTROLLER_WORD: usize = 80;

/// Words that each role has in the header.
pub(crate) const ROLE_WORDS: usize = 3;

const _: () = {
    assert!(VERSION_WORD < SIZES_WORD && SIZES_WORD + SIZES <= OFFSETS_WORD);
    assert!(VERSION_WORD < OFFSETS_WORD && OFFSETS_WORD + REGIONS <= DATAPATH_WORD);
    // Each role's numbers are on a line of their own.
    assert!(DATAPATH_WORD + LINE_WORDS <= CONTROLLER_WORD && ROLE_WORDS <= LINE_WORDS);
    assert!(CONTROLLER_WORD + LINE_WORDS <= HEADER_WORDS);
};

/// No segment is larger: a header that claims more is damaged.
const SEGMENT_LEN_MAX: usize = 1 << 30;
/// No size in a layout is larger, so that sums of products of two cannot overflow.
const SIZE_MAX: u32 = 1 << 24;

/// The sizes of a segment, chosen by the datapath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Version of the words that the two sides exchange: an attaching controller must have the
    /// same.
    pub words_version: u32,
    /// Threads that count.
    pub workers: u32,
    /// Counters of each.
    pub counters: u32,
    /// Room for commands, bytes: a power of two.
    pub command_ring_len: u32,
    /// Room for events, bytes: a power of two.
    pub event_ring_len: u32,
    /// Longest command or event, bytes.
    pub record_len_max: u32,
    /// Links that can be shown.
    pub link_rows: u32,
    /// Bytes of a link row.
    pub link_row_len: u32,
    /// Different errors that each side can show.
    pub error_rows: u32,
    /// Bytes of an error row, at least 32; 24 of them are for numbers.
    pub error_row_len: u32,
    /// Bytes that each side can show to observers beside all that.
    pub note_len: u32,
    /// Records that the journal keeps.
    pub journal_records: u32,
    /// Bytes of the longest of them.
    pub journal_record_len: u32,
}

/// Sizes that make no segment: the caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A ring whose length is no power of two, or which cannot hold four of the longest records.
    #[error("a ring of {len} bytes: it has to be a power of two and four of the longest records")]
    Ring {
        /// Bytes.
        len: u32,
    },
    /// Something is empty, or so large that the segment would exceed a gigabyte.
    #[error("a segment with empty or enormous parts")]
    Size,
}

impl Layout {
    /// The usual sizes: rings of 256 KiB with records up to 12 KiB, 1024 links of 768 bytes, 128
    /// different errors of 256 bytes and a note of 4 KiB for each side, a journal of 4096 records
    /// of 176 bytes; about 2.2 MiB, of which memory is taken for what is used.
    pub const fn new(words_version: u32, workers: u32, counters: u32) -> Self {
        Self {
            words_version,
            workers,
            counters,
            command_ring_len: 256 * 1024,
            event_ring_len: 256 * 1024,
            record_len_max: 12 * 1024,
            link_rows: 1024,
            link_row_len: 768,
            error_rows: 128,
            error_row_len: 256,
            note_len: 4096,
            journal_records: 4096,
            journal_record_len: 176,
        }
    }

    /// Where everything is.
    pub(crate) fn plan(&self) -> Result<Plan, LayoutError> {
        let sizes = self.sizes();
        if sizes.iter().any(|size| *size == 0 || *size > SIZE_MAX) || self.error_row_len < 32 {
            return Err(LayoutError::Size);
        }
        for len in [self.command_ring_len, self.event_ring_len] {
            if !len.is_power_of_two() || len / 4 < self.record_len_max.saturating_add(8) {
                return Err(LayoutError::Ring { len });
            }
        }
        Plan::new(self).ok_or(LayoutError::Size)
    }

    /// All but the version, in the order of the header.
    fn sizes(&self) -> [u32; SIZES] {
        [
            self.workers,
            self.counters,
            self.command_ring_len,
            self.event_ring_len,
            self.record_len_max,
            self.link_rows,
            self.link_row_len,
            self.error_rows,
            self.error_row_len,
            self.note_len,
            self.journal_records,
            self.journal_record_len,
        ]
    }
}

/// A region, in words from the start of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// Where the regions of a layout are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) counters: Region,
    pub(crate) commands: Region,
    pub(crate) events: Region,
    pub(crate) links: Region,
    pub(crate) datapath_errors: Region,
    pub(crate) controller_errors: Region,
    pub(crate) datapath_note: Region,
    pub(crate) controller_note: Region,
    pub(crate) journal: Region,
    /// Words in the file.
    pub(crate) len: usize,
}

impl Plan {
    fn new(layout: &Layout) -> Option<Self> {
        let mut end = HEADER_WORDS;
        let mut region = |len: usize| {
            let start = end;
            end = end.checked_add(len)?.checked_next_multiple_of(HEADER_WORDS)?;
            (end <= SEGMENT_LEN_MAX / WORD).then_some(Region { start, len })
        };
        let [
            workers,
            counters,
            commands,
            events,
            _,
            links,
            link,
            errors,
            error,
            note,
            records,
            record,
        ] = layout.sizes().map(|size| size as usize);
        Some(Self {
            counters: region(counter_words(workers, counters))?,
            commands: region(ring_words(words_for(commands)))?,
            events: region(ring_words(words_for(events)))?,
            links: region(table_words(links, link))?,
            datapath_errors: region(table_words(errors, error))?,
            controller_errors: region(table_words(errors, error))?,
            datapath_note: region(table_words(1, note))?,
            controller_note: region(table_words(1, note))?,
            journal: region(journal_words(records, record))?,
            len: end,
        })
    }

    fn offsets(&self) -> [u64; REGIONS] {
        [
            self.counters,
            self.commands,
            self.events,
            self.links,
            self.datapath_errors,
            self.controller_errors,
            self.datapath_note,
            self.controller_note,
            self.journal,
        ]
        .map(|region| (region.start * WORD) as u64)
    }
}

/// The part of the header that never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) layout: Layout,
    pub(crate) plan: Plan,
    pub(crate) generation: u64,
}

/// Why a file's beginning is no header that this program can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    NoMagic,
    NotReady,
    Version { found: u64 },
    Inconsistent,
}

impl Header {
    /// The first words of the file, but for the version, which is left 0.
    pub(crate) fn emit(&self) -> [u64; OFFSETS_WORD + REGIONS] {
        let mut words = [0; OFFSETS_WORD + REGIONS];
        words[0] = MAGIC;
        words[2] = self.layout.words_version.into();
        words[3] = self.generation;
        words[4] = (self.plan.len * WORD) as u64;
        words[SIZES_WORD..SIZES_WORD + SIZES].copy_from_slice(&self.layout.sizes().map(u64::from));
        words[OFFSETS_WORD..].copy_from_slice(&self.plan.offsets());
        words
    }

    /// Reads and checks the beginning of a file. What a header says beyond the sizes follows from
    /// them, and has to agree.
    pub(crate) fn parse(page: &[u8; PAGE]) -> Result<Self, HeaderFault> {
        let word = |index: usize| {
            let bytes = page[index * WORD..].first_chunk().copied().unwrap_or_default();
            u64::from_le_bytes(bytes)
        };
        if word(0) != MAGIC {
            return Err(HeaderFault::NoMagic);
        }
        match word(VERSION_WORD) {
            0 => return Err(HeaderFault::NotReady),
            found if found >> 16 != VERSION_MAJOR => return Err(HeaderFault::Version { found }),
            _ => {}
        }
        let size = |index| u32::try_from(word(index)).map_err(|_| HeaderFault::Inconsistent);
        let layout = Layout {
            words_version: size(2)?,
            workers: size(5)?,
            counters: size(6)?,
            command_ring_len: size(7)?,
            event_ring_len: size(8)?,
            record_len_max: size(9)?,
            link_rows: size(10)?,
            link_row_len: size(11)?,
            error_rows: size(12)?,
            error_row_len: size(13)?,
            note_len: size(14)?,
            journal_records: size(15)?,
            journal_record_len: size(16)?,
        };
        let plan = layout.plan().map_err(|_| HeaderFault::Inconsistent)?;
        let header = Self { layout, plan, generation: word(3) };
        let agrees = |(index, value): (usize, &u64)| index == VERSION_WORD || word(index) == *value;
        if !header.emit().iter().enumerate().all(agrees) {
            return Err(HeaderFault::Inconsistent);
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(header: &Header, version: u64) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        for (index, word) in header.emit().iter().enumerate() {
            page[index * WORD..][..WORD].copy_from_slice(&word.to_le_bytes());
        }
        page[VERSION_WORD * WORD..][..WORD].copy_from_slice(&version.to_le_bytes());
        page
    }

    fn usual() -> Header {
        let layout = Layout::new(3, 4, 50);
        Header { layout, plan: layout.plan().expect("the usual sizes"), generation: 9 }
    }

    #[test]
    fn a_header_reads_back() {
        assert_eq!(Header::parse(&page(&usual(), VERSION)), Ok(usual()));
        assert_eq!(Header::parse(&page(&usual(), 0)), Err(HeaderFault::NotReady));
    }

    #[test]
    fn each_word_of_a_header_is_checked() {
        let generation = 3;
        for word in (0..OFFSETS_WORD + REGIONS).filter(|word| ![2, generation].contains(word)) {
            let mut page = page(&usual(), VERSION);
            page[word * WORD + 3] ^= 1;
            assert!(Header::parse(&page).is_err(), "word {word}");
        }
    }

    /// The layout itself, pinned: a change has to change the version too.
    #[test]
    fn offsets_are_pinned() {
        let words = usual().emit();
        assert_eq!(&words[0].to_le_bytes(), b"IPOPSHM\0");
        assert_eq!(words[4..8], [2_281_472, 4, 50, 262_144]);
        let offsets =
            [4096, 8192, 274_432, 540_672, 1_392_640, 1_433_600, 1_474_560, 1_482_752, 1_490_944];
        assert_eq!(words[OFFSETS_WORD..], offsets);
        assert_eq!(VERSION, 0x2_0000);
    }
}
