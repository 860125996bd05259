//! The distinct-error log: each different error once, with how often and when.
//!
//! A flood of one error costs a row and no disk; the twentieth kind of error is not buried by the
//! first. Each row holds
//! ```text
//! count u64 | first Unix ms u64 | last Unix ms u64 | text
//! ```
//! little endian. When all rows are taken, the error not seen for longest makes room.

use std::sync::{Mutex, PoisonError};

use crate::rows::{RowReader, RowWriter};

const TEXT: usize = 24;

/// An error that happened at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedError {
    /// How often.
    pub count: u64,
    /// When first, Unix time in milliseconds.
    pub first_ms: u64,
    /// When last, Unix time in milliseconds.
    pub last_ms: u64,
    /// What.
    pub text: String,
}

/// Writes the log of one side. Any thread of the process may.
pub struct ErrorLog {
    writer: Mutex<Writer>,
}

struct Writer {
    rows: RowWriter,
    row_len: usize,
    /// What each row holds, as far as rows are taken.
    entries: Vec<LoggedError>,
}

impl ErrorLog {
    /// Goes on with what the log holds; rows that a dying writer left unfinished are given up.
    pub(crate) fn resume(mut rows: RowWriter) -> Self {
        let reader = rows.reader();
        let mut entries = entries(&reader);
        entries.sort_by_key(|entry| entry.first_ms);
        let row_len = reader.row_len();
        for index in 0..rows.count() {
            let _ = match entries.get(index) {
                Some(entry) => rows.write(index, &emit(entry, row_len)),
                None => rows.clear(index),
            };
        }
        Self { writer: Mutex::new(Writer { rows, row_len, entries }) }
    }

    /// Counts an error. Texts are told apart by as many bytes as a row has room for, so the part
    /// that varies (an address, a number) belongs at the end or, better, not into the text.
    pub fn observe(&self, now_ms: u64, text: &str) {
        // The state is whole between any two statements, so a panic elsewhere does not matter.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.observe(now_ms, text);
    }
}

impl Writer {
    fn observe(&mut self, now_ms: u64, text: &str) {
        let text = cut(text, self.row_len.saturating_sub(TEXT));
        let known = self.entries.iter().position(|entry| entry.text == text);
        let index = known.unwrap_or_else(|| self.take_row(now_ms, text));
        let Some(entry) = self.entries.get_mut(index) else { return };
        entry.count = entry.count.saturating_add(1);
        entry.last_ms = now_ms;
        // A row that there is, and content cut to its length: this cannot fail.
        let _ = self.rows.write(index, &emit(entry, self.row_len));
    }

    /// A row for a text not seen before.
    fn take_row(&mut self, now_ms: u64, text: &str) -> usize {
        let entry =
            LoggedError { count: 0, first_ms: now_ms, last_ms: now_ms, text: text.to_owned() };
        if self.entries.len() < self.rows.count() {
            self.entries.push(entry);
            return self.entries.len() - 1;
        }
        let oldest = (0..self.entries.len()).min_by_key(|index| self.entries[*index].last_ms);
        let index = oldest.unwrap_or(0);
        if let Some(row) = self.entries.get_mut(index) {
            *row = entry;
        }
        index
    }
}

/// Reads the log of one side.
#[derive(Clone)]
pub struct ErrorLogReader {
    rows: RowReader,
}

impl ErrorLogReader {
    pub(crate) fn new(rows: RowReader) -> Self {
        Self { rows }
    }

    /// All errors, the one seen last first.
    pub fn entries(&self) -> Vec<LoggedError> {
        let mut entries = entries(&self.rows);
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.last_ms));
        entries
    }
}

fn entries(rows: &RowReader) -> Vec<LoggedError> {
    let mut buffer = vec![0; rows.row_len()];
    let mut entries = Vec::new();
    for index in 0..rows.count() {
        if let Ok(Some(content)) = rows.read(index, &mut buffer) {
            entries.extend(parse(content));
        }
    }
    entries
}

fn emit(entry: &LoggedError, row_len: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(row_len);
    for value in [entry.count, entry.first_ms, entry.last_ms] {
        content.extend(value.to_le_bytes());
    }
    content.extend(cut(&entry.text, row_len.saturating_sub(TEXT)).as_bytes());
    content
}

fn parse(content: &[u8]) -> Option<LoggedError> {
    let (numbers, text) = content.split_at_checked(TEXT)?;
    let mut numbers = numbers.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok());
    let mut number = || numbers.next().map(u64::from_le_bytes);
    Some(LoggedError {
        count: number()?,
        first_ms: number()?,
        last_ms: number()?,
        text: String::from_utf8_lossy(text).into_owned(),
    })
}

/// The longest beginning of `text` that has at most `len_max` bytes.
fn cut(text: &str, len_max: usize) -> &str {
    let mut end = text.len().min(len_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(all(test, not(loom)))]
mod tests;
