use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::memory::test_memory;

const COUNT: usize = 4;
const ROW_LEN: usize = 100;

fn table() -> Table {
    let len = table_words(COUNT, ROW_LEN);
    Table::new(Span::new(&test_memory(len), 0, len), COUNT, ROW_LEN)
}

proptest! {
    #[test]
    fn rows_keep_what_was_written_last(
        writes in vec((0..COUNT, vec(any::<u8>(), 0..=ROW_LEN)), 0..20),
    ) {
        let mut writer = RowWriter::new(table());
        let reader = writer.reader();
        let mut model = vec![Vec::new(); COUNT];
        for (index, content) in writes {
            writer.write(index, &content).expect("a row");
            model[index] = content;
        }
        for (index, content) in model.iter().enumerate() {
            let expected = (!content.is_empty()).then_some(&content[..]);
            let mut buffer = [0; ROW_LEN];
            prop_assert_eq!(reader.read(index, &mut buffer), Ok(expected));
        }
    }

    #[test]
    fn noise_in_a_row_harms_nobody(words in vec(any::<u64>(), table_words(COUNT, ROW_LEN))) {
        let table = table();
        for (word, value) in table.span.words().iter().zip(&words) {
            word.store(*value, Ordering::Relaxed);
        }
        let reader = RowReader::new(table);
        for index in 0..COUNT {
            let _ = reader.read(index, &mut [0; ROW_LEN]);
        }
    }
}

#[test]
fn misuse_is_an_error() {
    let mut writer = RowWriter::new(table());
    let no_row = Err(RowError::NoSuchRow { index: COUNT, count: COUNT });
    assert_eq!(writer.write(COUNT, b"x"), no_row);
    let (len, max) = (ROW_LEN + 1, ROW_LEN);
    assert_eq!(writer.write(0, &[0; ROW_LEN + 1]), Err(RowError::TooLong { len, max }));
    let (len, max) = (ROW_LEN, 10);
    assert_eq!(writer.reader().read(0, &mut [0; 10]), Err(RowError::TooLong { len, max }));
}

/// A writer that died in the middle hides its row, hangs no reader, and its successor goes on.
#[test]
fn a_writer_may_die_while_it_writes() {
    let table = table();
    let mut writer = RowWriter::new(table.clone());
    let reader = writer.reader();
    writer.write(1, &[1; ROW_LEN]).expect("a row");
    let row = table.row(1).expect("a row");
    row[VERSION].fetch_or(1, Ordering::Relaxed);
    row[CONTENT].store(7, Ordering::Relaxed);
    assert_eq!(reader.read(1, &mut [0; ROW_LEN]), Err(RowError::Unsettled));

    let mut successor = RowWriter::new(table);
    successor.write(1, &[2; ROW_LEN]).expect("a row");
    assert_eq!(reader.read(1, &mut [0; ROW_LEN]), Ok(Some(&[2; ROW_LEN][..])));
}

/// With a writer that never rests, readers get whole rows and now and then an honest "later".
#[test]
fn readers_see_whole_rows_while_the_writer_is_busy() {
    let mut writer = RowWriter::new(table());
    let reader = writer.reader();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..=u8::MAX).cycle() {
                writer.write(0, &vec![number; 1 + usize::from(number) % ROW_LEN]).expect("a row");
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
            }
        });
        let mut whole = 0;
        while whole < 20_000 {
            match reader.read(0, &mut [0; ROW_LEN]) {
                Ok(Some(content)) => {
                    let number = content[0];
                    assert_eq!(content, vec![number; 1 + usize::from(number) % ROW_LEN]);
                    whole += 1;
                }
                Ok(None) | Err(RowError::Unsettled) => {}
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
