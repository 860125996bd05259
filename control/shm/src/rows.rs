//! A table of rows that one writer changes while others read, without either waiting.
//!
//! ```text
//! row: word 0  version  odd while the row is being written
//!           1  length of the content in bytes; 0 for an empty row
//!           8  content, a fixed number of words
//! ```
//! A reader copies and then looks whether the version is still what it was. It tries a bounded
//! number of times: a writer that died while writing leaves the version odd for ever, and must not
//! hang a reader. The writer that takes over finds it odd and goes on from there.

use crate::memory::{Span, load_bytes, store_bytes, words_for};
use crate::sync::{AtomicU64, Ordering, fence};

const VERSION: usize = 0;
const LEN: usize = 1;
const CONTENT: usize = if cfg!(loom) { 2 } else { 8 };

/// Copies that a reader makes before it gives up. One copy takes well under a microsecond, and a
/// writer changes a row a few times per second.
const TRIES: usize = if cfg!(loom) { 2 } else { 64 };

/// A row could not be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The table is smaller: the caller's fault.
    #[error("row {index} of a table with {count} rows")]
    NoSuchRow {
        /// The row.
        index: usize,
        /// Rows in the table.
        count: usize,
    },
    /// The row is smaller than the content, or the buffer than the row: the caller's fault.
    #[error("{len} bytes do not fit a row of {max}")]
    TooLong {
        /// Bytes.
        len: usize,
        /// Bytes.
        max: usize,
    },
    /// The writer was writing each time the reader looked, or died while it wrote: try later.
    #[error("the row is being written")]
    Unsettled,
}

/// Words of a table.
pub(crate) const fn table_words(count: usize, row_len: usize) -> usize {
    count * row_stride(row_len)
}

/// Rows start at a multiple of a cache line, so that writing one disturbs no reader of another.
const fn row_stride(row_len: usize) -> usize {
    CONTENT + words_for(row_len).next_multiple_of(CONTENT)
}

/// The table that a span holds.
#[derive(Clone)]
pub(crate) struct Table {
    span: Span,
    count: usize,
    row_len: usize,
}

impl Table {
    /// The span has [`table_words`] words.
    pub(crate) fn new(span: Span, count: usize, row_len: usize) -> Self {
        assert_eq!(span.words().len(), table_words(count, row_len));
        Self { span, count, row_len }
    }

    fn row(&self, index: usize) -> Result<&[AtomicU64], RowError> {
        let stride = row_stride(self.row_len);
        let no_such = RowError::NoSuchRow { index, count: self.count };
        self.span.words().chunks_exact(stride).nth(index).ok_or(no_such)
    }
}

/// Writes rows. There is one per table.
pub struct RowWriter {
    table: Table,
}

impl RowWriter {
    pub(crate) fn new(table: Table) -> Self {
        Self { table }
    }

    /// Replaces the content of a row.
    pub fn write(&mut self, index: usize, content: &[u8]) -> Result<(), RowError> {
        let (len, max) = (content.len(), self.table.row_len);
        if len > max {
            return Err(RowError::TooLong { len, max });
        }
        let row = self.table.row(index)?;
        // Odd from now on, or still odd from a writer that died.
        let writing = row[VERSION].load(Ordering::Relaxed) | 1;
        row[VERSION].store(writing, Ordering::Relaxed);
        // Nobody sees the words without the odd version; pairs with the fence in `copy_out`.
        fence(Ordering::Release);
        row[LEN].store(len as u64, Ordering::Relaxed);
        store_bytes(row[CONTENT..].iter(), content);
        // Nobody sees the even version without the words; pairs with the load in `copy_out`.
        row[VERSION].store(writing.wrapping_add(1), Ordering::Release);
        Ok(())
    }

    /// Empties a row.
    pub fn clear(&mut self, index: usize) -> Result<(), RowError> {
        self.write(index, &[])
    }

    /// Rows in the table.
    pub fn count(&self) -> usize {
        self.table.count
    }

    /// Reads what was written.
    pub fn reader(&self) -> RowReader {
        RowReader::new(self.table.clone())
    }
}

/// Reads rows.
#[derive(Clone)]
pub struct RowReader {
    table: Table,
}

impl RowReader {
    pub(crate) fn new(table: Table) -> Self {
        Self { table }
    }

    /// Copies the content of a row into `buffer`, which has to be as long as a row, and returns the
    /// part that it fills; nothing if the row is empty. What is returned was in the row at one
    /// moment, all of it.
    pub fn read<'b>(
        &self,
        index: usize,
        buffer: &'b mut [u8],
    ) -> Result<Option<&'b [u8]>, RowError> {
        let (len, max) = (self.table.row_len, buffer.len());
        let buffer = buffer.get_mut(..len).ok_or(RowError::TooLong { len, max })?;
        let row = self.table.row(index)?;
        for _ in 0..TRIES {
            if let Some(len) = copy_out(row, buffer) {
                return Ok(buffer.get(..len).filter(|content| !content.is_empty()));
            }
            std::hint::spin_loop();
        }
        Err(RowError::Unsettled)
    }

    /// Rows in the table.
    pub fn count(&self) -> usize {
        self.table.count
    }

    /// Bytes in a row.
    pub fn row_len(&self) -> usize {
        self.table.row_len
    }
}

/// One try: the length of the content if the row stood still meanwhile.
fn copy_out(row: &[AtomicU64], buffer: &mut [u8]) -> Option<usize> {
    // Sees the words of this version; pairs with the release in `RowWriter::write`.
    let version = row[VERSION].load(Ordering::Acquire);
    if version % 2 == 1 {
        return None;
    }
    // Whoever wrote this may be no writer of ours: a length is not believed.
    let len = usize::try_from(row[LEN].load(Ordering::Relaxed)).ok()?;
    let content = buffer.get_mut(..len)?;
    load_bytes(row[CONTENT..].iter(), content);
    // If a word was of a later version, the version seen below is; pairs with the fence in `write`.
    fence(Ordering::Acquire);
    (row[VERSION].load(Ordering::Relaxed) == version).then_some(len)
}

#[cfg(all(test, not(loom)))]
mod tests;
