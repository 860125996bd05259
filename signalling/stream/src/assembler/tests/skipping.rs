//! With a client's bounds: a stanza beyond them is skipped.

use super::super::{Assembler, AssemblyError, Bounds, Excess, Incoming};

pub(super) const BOUNDS: Bounds =
    Bounds { stanza_len_max: 1 << 20, depth_max: 32, excess: Excess::Skip };
const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' \
                      xmlns:stream='http://etherx.jabber.org/streams' id='x'>";

fn pieces(bytes: &[u8], len: usize) -> Result<Vec<Incoming>, AssemblyError> {
    super::pieces(BOUNDS, bytes, len)
}

fn names(text: &str, len: usize) -> Vec<String> {
    let named = |incoming| match incoming {
        Incoming::Header(_) => "header".to_owned(),
        Incoming::Element(element) => element.name().to_owned(),
        Incoming::Footer => "footer".to_owned(),
    };
    pieces(text.as_bytes(), len).unwrap().into_iter().map(named).collect()
}

#[test]
fn elements_come_out_whole_whatever_the_pieces() {
    let stanza = "<iq id='1' xml:lang='en'><a xmlns='urn:a' b='&lt;'>t<c/>u</a></iq>";
    let text = format!("{HEADER} \n{stanza} {stanza}</stream:stream>");
    let whole = pieces(text.as_bytes(), usize::MAX).unwrap();
    assert_eq!(names(&text, usize::MAX), ["header", "iq", "iq", "footer"]);
    for len in 1..40 {
        assert_eq!(pieces(text.as_bytes(), len).unwrap(), whole);
    }
    let Incoming::Element(iq) = &whole[1] else { panic!() };
    let a = iq.get_child("a", "urn:a").unwrap();
    assert_eq!((a.attr("b"), a.text().as_str()), (Some("<"), "tu"));
}

#[test]
fn a_stanza_nested_too_deep_is_skipped_and_the_next_one_read() {
    let deep = "<a>".repeat(40_000) + &"</a>".repeat(40_000);
    let text = format!("{HEADER}<message>{deep}</message><iq/>");
    assert_eq!(names(&text, 1000), ["header", "iq"]);
}

#[test]
fn a_stanza_too_large_is_skipped_and_the_next_one_read() {
    let wide = format!("{HEADER}<message>{}</message><iq/>", "<a b='c'/>".repeat(200_000));
    assert_eq!(names(&wide, 4096), ["header", "iq"]);
    let long = format!("{HEADER}<message>{}</message><iq/>", "word ".repeat(400_000));
    assert_eq!(names(&long, 4096), ["header", "iq"]);
}

#[test]
fn a_long_attribute_is_no_reason_to_end_the_stream() {
    let text = format!("{HEADER}<message a='{}'/><iq/>", "x".repeat(300_000));
    assert_eq!(names(&text, 4096), ["header", "message", "iq"]);
}

#[test]
fn a_restart_goes_on_in_the_same_bytes() {
    let mut assembler = Assembler::new(BOUNDS);
    let text = format!("{HEADER}<success/>{HEADER}<features/>");
    assembler.buffer().extend_from_slice(text.as_bytes());
    assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Header(_))));
    assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Element(_))));
    assert!(assembler.has_rest());
    assembler.restart();
    assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Header(_))));
    assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Element(_))));
    assert!(!assembler.has_rest());
}

#[test]
fn something_else_than_a_stream_is_refused() {
    assert!(pieces(b"<html><body/></html>", 99).is_err());
    assert!(pieces(b"HTTP/1.1 400 Bad Request\r\n", 99).is_err());
    assert!(pieces(format!("{HEADER}text").as_bytes(), 99).is_err());
}
