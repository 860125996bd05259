use super::*;
use crate::memory::{Span, test_memory};
use crate::rows::{Table, table_words};

const ROWS: usize = 3;
const ROW_LEN: usize = 40;

fn table() -> Table {
    let len = table_words(ROWS, ROW_LEN);
    Table::new(Span::new(&test_memory(len), 0, len), ROWS, ROW_LEN)
}

fn shown(table: &Table) -> Vec<(String, u64, u64, u64)> {
    let entries = ErrorLogReader::new(RowReader::new(table.clone())).entries();
    entries.into_iter().map(|e| (e.text, e.count, e.first_ms, e.last_ms)).collect()
}

#[test]
fn each_error_is_shown_once_the_latest_first() {
    let table = table();
    let log = ErrorLog::resume(RowWriter::new(table.clone()));
    for (now_ms, text) in [(10, "a"), (11, "b"), (12, "a"), (13, "")] {
        log.observe(now_ms, text);
    }
    let expected = [("", 1, 13, 13), ("a", 2, 10, 12), ("b", 1, 11, 11)];
    assert_eq!(shown(&table), expected.map(|(t, c, f, l)| (t.to_owned(), c, f, l)));
}

#[test]
fn the_error_not_seen_for_longest_makes_room() {
    let table = table();
    let log = ErrorLog::resume(RowWriter::new(table.clone()));
    for (now_ms, text) in [(10, "a"), (11, "b"), (12, "c"), (13, "a"), (14, "d")] {
        log.observe(now_ms, text);
    }
    let texts: Vec<_> = shown(&table).into_iter().map(|entry| entry.0).collect();
    assert_eq!(texts, ["d", "a", "c"]);
}

#[test]
fn long_texts_are_cut_between_characters() {
    let table = table();
    let log = ErrorLog::resume(RowWriter::new(table.clone()));
    log.observe(1, &format!("x{}", "é".repeat(30)));
    assert_eq!(shown(&table)[0].0, format!("x{}", "é".repeat(7)));
}

#[test]
fn a_successor_goes_on_counting() {
    let table = table();
    ErrorLog::resume(RowWriter::new(table.clone())).observe(1, "a");
    RowWriter::new(table.clone()).write(1, b"no entry").expect("a row");
    let log = ErrorLog::resume(RowWriter::new(table.clone()));
    log.observe(5, "b");
    log.observe(6, "a");
    assert_eq!(shown(&table), [("a".to_owned(), 2, 1, 6), ("b".to_owned(), 1, 5, 5)]);
}
