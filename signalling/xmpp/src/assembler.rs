//! Bytes of an XML stream to elements (RFC 6120 section 4), bounded.
//!
//! A stanza can come from anybody who is in the room, so its size and nesting are limited here: one
//! that exceeds them is skipped, and the stream goes on. Elements are put together without
//! recursion.

use minidom::Element;
use minidom::rxml::error::EndOrError;
use minidom::rxml::parser::{Options, Parse, WithOptions};
use minidom::rxml::{self, AttrMap, Event, Parser, QName};
use std::mem;

/// Deepest nesting inside a stanza. Jingle needs six levels.
const DEPTH_MAX: usize = 32;
/// Largest stanza in bytes of XML. Servers let 64 KiB to 512 KiB pass.
const STANZA_LEN_MAX: usize = 1 << 20;
/// Longest name or attribute value in bytes. Beyond it the parser gives up on the whole stream, so
/// it must be no less than what a server lets through.
const TOKEN_LEN_MAX: usize = 1 << 20;
const STREAM: &str = "http://etherx.jabber.org/streams";

/// What a stream consists of.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming {
    /// The stream's opening tag.
    Header,
    /// A stanza or another element of the first level.
    Element(Element),
    /// The stream's closing tag.
    Footer,
}

/// What came is not an XML stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssemblyError {
    #[error("the server's XML is broken: {0}")]
    Xml(rxml::Error),
    #[error("the server opened something else than an XML stream")]
    NotAStream,
    #[error("text between stanzas")]
    StrayText,
}

/// Takes bytes, gives elements.
pub(crate) struct Assembler {
    parser: Parser,
    buffer: Vec<u8>,
    taken: usize,
    /// The opening tag has been seen.
    open: bool,
    /// Elements begun and not ended, the outermost first.
    begun: Vec<Element>,
    /// Levels inside a stanza that is being skipped.
    skipping: usize,
    /// Bytes of the current stanza so far.
    stanza_len: usize,
    skipped_count: u64,
}

impl Assembler {
    pub(crate) fn new() -> Self {
        Self {
            parser: parser(),
            buffer: Vec::new(),
            taken: 0,
            open: false,
            begun: Vec::new(),
            skipping: 0,
            stanza_len: 0,
            skipped_count: 0,
        }
    }

    /// Begins a new stream in the same bytes, as after a login.
    pub(crate) fn restart(&mut self) {
        let rest = self.buffer.split_off(self.taken);
        *self = Self { buffer: rest, skipped_count: self.skipped_count, ..Self::new() };
    }

    /// Where bytes read from the network are appended.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.taken > 0 {
            self.buffer.drain(..mem::take(&mut self.taken));
        }
        &mut self.buffer
    }

    /// Whether bytes wait that were not looked at.
    pub(crate) fn has_rest(&self) -> bool {
        self.taken < self.buffer.len()
    }

    /// The next piece, as far as the bytes go.
    pub(crate) fn poll(&mut self) -> Result<Option<Incoming>, AssemblyError> {
        // The parser can hold events for which no bytes are left: ask until it wants more.
        loop {
            let mut rest = &self.buffer[self.taken..];
            // Text is wanted at once between stanzas (white space that keeps connections alive must
            // not pile up) and in one piece inside them.
            self.parser.set_text_buffering(!self.begun.is_empty());
            let event = self.parser.parse(&mut rest, false);
            let taken = self.buffer.len() - rest.len();
            self.stanza_len += taken - self.taken;
            self.taken = taken;
            match event {
                Ok(Some(event)) => {
                    if let Some(incoming) = self.take(event)? {
                        return Ok(Some(incoming));
                    }
                }
                Ok(None) | Err(EndOrError::NeedMoreData) => return Ok(None),
                Err(EndOrError::Error(error)) => return Err(AssemblyError::Xml(error)),
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<Option<Incoming>, AssemblyError> {
        match event {
            Event::XmlDeclaration(..) => Ok(None),
            Event::StartElement(_, name, attributes) => self.begin(name, attributes),
            Event::Text(_, text) => self.text(&text).map(|()| None),
            Event::EndElement(_) => Ok(self.end()),
        }
    }

    fn begin(
        &mut self,
        name: QName,
        attributes: AttrMap,
    ) -> Result<Option<Incoming>, AssemblyError> {
        if !self.open {
            self.open = true;
            self.stanza_len = 0;
            let is_stream = name.0 == STREAM && name.1.as_str() == "stream";
            return if is_stream {
                Ok(Some(Incoming::Header))
            } else {
                Err(AssemblyError::NotAStream)
            };
        }
        if self.skipping > 0 {
            self.skipping += 1;
        } else if self.begun.len() >= DEPTH_MAX || self.stanza_len > STANZA_LEN_MAX {
            self.skip(1);
        } else {
            self.begun.push(element(name, attributes));
        }
        Ok(None)
    }

    fn text(&mut self, text: &str) -> Result<(), AssemblyError> {
        if self.skipping > 0 {
            return Ok(());
        }
        if self.stanza_len > STANZA_LEN_MAX && !self.begun.is_empty() {
            self.skip(0);
            return Ok(());
        }
        match self.begun.last_mut() {
            Some(element) => element.append_text_node(text),
            None if text.bytes().all(|byte| byte.is_ascii_whitespace()) => self.stanza_len = 0,
            None => return Err(AssemblyError::StrayText),
        }
        Ok(())
    }

    fn end(&mut self) -> Option<Incoming> {
        if self.skipping > 0 {
            self.skipping -= 1;
            if self.skipping == 0 {
                self.stanza_len = 0;
            }
            return None;
        }
        let Some(element) = self.begun.pop() else { return Some(Incoming::Footer) };
        match self.begun.last_mut() {
            Some(parent) => {
                parent.append_child(element);
                None
            }
            None => {
                self.stanza_len = 0;
                Some(Incoming::Element(element))
            }
        }
    }

    /// Gives up on the current stanza; `more` levels have just been begun.
    fn skip(&mut self, more: usize) {
        self.skipping = self.begun.len() + more;
        self.begun.clear();
        self.skipped_count += 1;
        tracing::debug!(count = self.skipped_count, "skipped a stanza beyond our limits");
    }
}

fn parser() -> Parser {
    Parser::with_options(Options { max_token_length: TOKEN_LEN_MAX, ..Options::default() })
}

fn element(name: QName, attributes: AttrMap) -> Element {
    let builder = Element::builder(name.1, name.0);
    attributes
        .into_iter()
        .fold(builder, |builder, ((ns, name), value)| builder.attr_ns(ns, name, value))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' \
                          xmlns:stream='http://etherx.jabber.org/streams' id='x'>";

    /// Everything that comes out when the bytes arrive in pieces of the given length.
    fn pieces(bytes: &[u8], len: usize) -> Result<Vec<Incoming>, AssemblyError> {
        let mut assembler = Assembler::new();
        let mut out = Vec::new();
        for chunk in bytes.chunks(len.max(1)) {
            assembler.buffer().extend_from_slice(chunk);
            while let Some(incoming) = assembler.poll()? {
                out.push(incoming);
            }
        }
        Ok(out)
    }

    fn names(text: &str, len: usize) -> Vec<String> {
        let named = |incoming| match incoming {
            Incoming::Header => "header".to_owned(),
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
        let mut assembler = Assembler::new();
        let text = format!("{HEADER}<success/>{HEADER}<features/>");
        assembler.buffer().extend_from_slice(text.as_bytes());
        assert_eq!(assembler.poll().unwrap(), Some(Incoming::Header));
        assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Element(_))));
        assert!(assembler.has_rest());
        assembler.restart();
        assert_eq!(assembler.poll().unwrap(), Some(Incoming::Header));
        assert!(matches!(assembler.poll().unwrap(), Some(Incoming::Element(_))));
        assert!(!assembler.has_rest());
    }

    #[test]
    fn something_else_than_a_stream_is_refused() {
        assert!(pieces(b"<html><body/></html>", 99).is_err());
        assert!(pieces(b"HTTP/1.1 400 Bad Request\r\n", 99).is_err());
        assert!(pieces(format!("{HEADER}text").as_bytes(), 99).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>(), len in 1..16usize) {
            let _ = pieces(&bytes, len);
        }

        #[test]
        fn arbitrary_markup_never_panics(
            text in "(<|>|/|a|b:|=|'|&lt;|x| ){0,60}",
            len in 1..16usize,
        ) {
            let _ = pieces(format!("{HEADER}{text}").as_bytes(), len);
        }
    }
}
