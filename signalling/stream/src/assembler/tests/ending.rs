//! With a server's bounds: a stanza beyond them ends the stream.

use super::super::{Assembler, AssemblyError, Bounds, Excess, Incoming};

pub(super) const BOUNDS: Bounds =
    Bounds { stanza_len_max: 64 * 1024, depth_max: 32, excess: Excess::End };
const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' \
                      to='hub.test' xmlns:stream='http://etherx.jabber.org/streams'>";

const STANZA_LEN_MAX: usize = BOUNDS.stanza_len_max;

fn pieces(bytes: &[u8], len: usize) -> Result<Vec<Incoming>, AssemblyError> {
    super::pieces(BOUNDS, bytes, len)
}

#[test]
fn elements_come_out_whole_whatever_the_pieces() {
    let stanza = "<iq id='1' xml:lang='en'><a xmlns='urn:a' b='&lt;'>t<c/>u</a></iq>";
    let text = format!("{HEADER} \n{stanza} {stanza}</stream:stream>");
    let whole = pieces(text.as_bytes(), usize::MAX).unwrap();
    let [Incoming::Header(header), Incoming::Element(iq), _, Incoming::Footer] = &whole[..] else {
        panic!("{whole:?}")
    };
    assert_eq!(header.to.as_deref(), Some("hub.test"));
    assert_eq!(header.version.as_deref(), Some("1.0"));
    assert_eq!(iq.get_child("a", "urn:a").unwrap().text(), "tu");
    for len in 1..40 {
        assert_eq!(pieces(text.as_bytes(), len).unwrap(), whole);
    }
}

#[test]
fn bounds_hold() {
    let inside = |text: &str| pieces(format!("{HEADER}{text}").as_bytes(), 1000);
    let fits = format!("<message>{}</message>", "x".repeat(STANZA_LEN_MAX - 100));
    assert_eq!(inside(&fits).unwrap().len(), 2);
    assert_eq!(inside(&fits.repeat(3)).unwrap().len(), 4);
    let long = format!("<message>{}", "x".repeat(STANZA_LEN_MAX));
    assert_eq!(inside(&long), Err(AssemblyError::PolicyViolation));
    let wide = format!("<message>{}", "<a/>".repeat(STANZA_LEN_MAX / 4));
    assert_eq!(inside(&wide), Err(AssemblyError::PolicyViolation));
    let attribute = format!("<message a='{}", "x".repeat(2 * STANZA_LEN_MAX));
    assert!(inside(&attribute).is_err());
    assert_eq!(inside(&"<a>".repeat(40_000)), Err(AssemblyError::PolicyViolation));
    assert_eq!(inside(&" ".repeat(1_000_000)).unwrap().len(), 1);
}

#[test]
fn something_else_than_a_stream_is_refused() {
    assert_eq!(pieces(b"<html><body/></html>", 99), Err(AssemblyError::InvalidNamespace));
    assert!(pieces(b"GET / HTTP/1.1\r\n", 99).is_err());
    assert_eq!(pieces(format!("{HEADER}text").as_bytes(), 99), Err(AssemblyError::BadFormat));
}

#[test]
fn a_restart_goes_on_in_the_same_bytes() {
    let mut assembler = Assembler::new(BOUNDS);
    let text = format!("{HEADER}<response/>{HEADER}<iq/>");
    assembler.buffer().extend_from_slice(text.as_bytes());
    assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Header(_))));
    assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Element(_))));
    assert!(assembler.has_rest());
    assembler.restart();
    assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Header(_))));
    assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Element(_))));
    assert!(!assembler.has_rest());
}
