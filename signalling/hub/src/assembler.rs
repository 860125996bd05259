//! Bytes of a client's XML stream to elements (RFC 6120 section 4), bounded.
//!
//! A client that exceeds the bounds has its stream ended, unlike in `ipop-xmpp`, whose stanzas come
//! from third parties. Elements are put together without recursion.

use minidom::Element;
use minidom::rxml::error::EndOrError;
use minidom::rxml::parser::{Options, Parse, WithOptions};
use minidom::rxml::{AttrMap, Event, Namespace, Parser, QName};
use std::mem;

/// Largest stanza in bytes of XML.
pub(crate) const STANZA_LEN_MAX: usize = 64 * 1024;
/// Deepest nesting inside a stanza. Jingle needs six levels.
const DEPTH_MAX: usize = 32;
const STREAM: &str = "http://etherx.jabber.org/streams";

/// What a stream consists of.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming {
    /// The stream's opening tag.
    Header(Header),
    /// A stanza or another element of the first level.
    Element(Element),
    /// The stream's closing tag.
    Footer,
}

/// What a client says in its opening tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) to: Option<String>,
    pub(crate) version: Option<String>,
}

/// What came is not what a stream may hold; each is a stream error of RFC 6120 section 4.9.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AssemblyError {
    #[error("broken XML")]
    NotWellFormed,
    #[error("something else than an XML stream")]
    InvalidNamespace,
    #[error("text between stanzas")]
    BadFormat,
    #[error("a stanza larger than {STANZA_LEN_MAX} bytes or nested too deep")]
    PolicyViolation,
}

/// Takes bytes, gives elements.
pub(crate) struct Assembler {
    parser: Parser,
    buffer: Vec<u8>,
    taken: usize,
    open: bool,
    /// Elements begun and not ended, the outermost first.
    begun: Vec<Element>,
    /// Bytes since the last element of the first level ended.
    stanza_len: usize,
}

impl Assembler {
    pub(crate) fn new() -> Self {
        Self {
            parser: parser(),
            buffer: Vec::new(),
            taken: 0,
            open: false,
            begun: Vec::new(),
            stanza_len: 0,
        }
    }

    /// Begins a new stream in the same bytes, as after a login.
    pub(crate) fn restart(&mut self) {
        let rest = self.buffer.split_off(self.taken);
        *self = Self { buffer: rest, ..Self::new() };
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
        // The parser can hold events for which no bytes are left: it is asked until it wants more.
        loop {
            let mut rest = &self.buffer[self.taken..];
            // Text is wanted at once between stanzas (white space that keeps connections alive must
            // not pile up) and in one piece inside them.
            self.parser.set_text_buffering(!self.begun.is_empty());
            let event = self.parser.parse(&mut rest, false);
            let taken = self.buffer.len() - rest.len();
            self.stanza_len += taken - self.taken;
            self.taken = taken;
            if self.stanza_len > STANZA_LEN_MAX {
                return Err(AssemblyError::PolicyViolation);
            }
            match event {
                Ok(Some(event)) => {
                    if let Some(incoming) = self.take(event)? {
                        return Ok(Some(incoming));
                    }
                }
                Ok(None) | Err(EndOrError::NeedMoreData) => return Ok(None),
                Err(EndOrError::Error(error)) => {
                    tracing::debug!(%error, "a client's XML is broken");
                    return Err(AssemblyError::NotWellFormed);
                }
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<Option<Incoming>, AssemblyError> {
        match event {
            Event::XmlDeclaration(..) => Ok(None),
            Event::StartElement(_, name, attributes) => self.begin(name, attributes),
            Event::Text(_, text) => self.text(&text).map(|()| None),
            Event::EndElement(_) => Ok(Some(self.end()).flatten()),
        }
    }

    fn begin(
        &mut self,
        name: QName,
        attributes: AttrMap,
    ) -> Result<Option<Incoming>, AssemblyError> {
        if !self.open {
            if name.0 != STREAM || name.1.as_str() != "stream" {
                return Err(AssemblyError::InvalidNamespace);
            }
            self.open = true;
            self.stanza_len = 0;
            return Ok(Some(Incoming::Header(header(attributes))));
        }
        if self.begun.len() >= DEPTH_MAX {
            return Err(AssemblyError::PolicyViolation);
        }
        self.begun.push(element(name, attributes));
        Ok(None)
    }

    fn text(&mut self, text: &str) -> Result<(), AssemblyError> {
        match self.begun.last_mut() {
            Some(element) => element.append_text_node(text),
            None if text.bytes().all(|byte| byte.is_ascii_whitespace()) => self.stanza_len = 0,
            None => return Err(AssemblyError::BadFormat),
        }
        Ok(())
    }

    fn end(&mut self) -> Option<Incoming> {
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
}

impl AssemblyError {
    /// The name of the stream error.
    pub(crate) fn condition(self) -> &'static str {
        match self {
            Self::NotWellFormed => "not-well-formed",
            Self::InvalidNamespace => "invalid-namespace",
            Self::BadFormat => "bad-format",
            Self::PolicyViolation => "policy-violation",
        }
    }
}

fn parser() -> Parser {
    Parser::with_options(Options { max_token_length: STANZA_LEN_MAX, ..Options::default() })
}

fn header(attributes: AttrMap) -> Header {
    let mut header = Header::default();
    for ((ns, name), value) in attributes {
        match name.as_str() {
            "to" if ns == Namespace::NONE => header.to = Some(value),
            "version" if ns == Namespace::NONE => header.version = Some(value),
            _ => {}
        }
    }
    header
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
                          to='hub.test' xmlns:stream='http://etherx.jabber.org/streams'>";

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

    #[test]
    fn elements_come_out_whole_whatever_the_pieces() {
        let stanza = "<iq id='1' xml:lang='en'><a xmlns='urn:a' b='&lt;'>t<c/>u</a></iq>";
        let text = format!("{HEADER} \n{stanza} {stanza}</stream:stream>");
        let whole = pieces(text.as_bytes(), usize::MAX).unwrap();
        let [Incoming::Header(header), Incoming::Element(iq), _, Incoming::Footer] = &whole[..]
        else {
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
        let mut assembler = Assembler::new();
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
