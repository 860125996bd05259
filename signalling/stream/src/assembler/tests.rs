//! Both reactions have tests of their own; what holds for any bytes holds for both.

use super::*;
use proptest::prelude::*;

mod ending;
mod skipping;

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' \
                      xmlns:stream='http://etherx.jabber.org/streams' id='x'>";

/// Everything that comes out when the bytes arrive in pieces of the given length.
fn pieces(bounds: Bounds, bytes: &[u8], len: usize) -> Result<Vec<Incoming>, AssemblyError> {
    let mut assembler = Assembler::new(bounds);
    let mut out = Vec::new();
    for chunk in bytes.chunks(len.max(1)) {
        assembler.buffer().extend_from_slice(chunk);
        while let Some(incoming) = assembler.poll()? {
            out.push(incoming);
        }
    }
    Ok(out)
}

#[test]
fn what_is_skipped_is_counted_over_a_restart() {
    let mut assembler = Assembler::new(Bounds { depth_max: 2, ..skipping::BOUNDS });
    let text = format!("{HEADER}<m><a><b/></a></m><m><a/></m>{HEADER}<m><a><b/></a></m><iq/>");
    assembler.buffer().extend_from_slice(text.as_bytes());
    assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Header(_))));
    assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Element(_))));
    assert_eq!(assembler.skipped_count(), 1);
    assembler.restart();
    assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Header(_))));
    assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Element(_))));
    assert_eq!(assembler.skipped_count(), 2);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>(), len in 1..16usize) {
        let _ = pieces(ending::BOUNDS, &bytes, len);
        let _ = pieces(skipping::BOUNDS, &bytes, len);
    }

    #[test]
    fn arbitrary_markup_never_panics(
        text in "(<|>|/|a|b:|=|'|&lt;|x| ){0,60}",
        len in 1..16usize,
    ) {
        let text = format!("{HEADER}{text}");
        let _ = pieces(ending::BOUNDS, text.as_bytes(), len);
        let _ = pieces(skipping::BOUNDS, text.as_bytes(), len);
    }
}
