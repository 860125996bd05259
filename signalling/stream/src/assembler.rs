//! Bytes of an XML stream to elements (RFC 6120 section 4), bounded.
//!
//! Elements are put together without recursion.

use minidom::Element;
use minidom::rxml::error::EndOrError;
use minidom::rxml::parser::{Options, Parse, WithOptions};
use minidom::rxml::{self, AttrMap, Event, Namespace, Parser, QName};
use std::mem;

const STREAM: &str = "http://etherx.jabber.org/streams";

/// How large a stanza may be, and what happens to a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Largest stanza in bytes of XML. A single name or attribute value that is longer breaks the
    /// stream whatever `excess` says, because the parser cannot go on behind it.
    pub stanza_len_max: usize,
    /// Deepest nesting, the stanza itself counted. Jingle needs six levels.
    pub depth_max: usize,
    /// What a stanza beyond them leads to.
    pub excess: Excess,
}

/// What a stanza beyond the bounds leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// [`AssemblyError::PolicyViolation`], as soon as it is known; also for an opening tag.
    End,
    /// The stanza is left out and counted, and the stream goes on.
    Skip,
}

/// What a stream consists of.
#[derive(Debug, PartialEq)]
pub enum Incoming {
    /// The stream's opening tag.
    Header(Header),
    /// A stanza or another element of the first level.
    Element(Element),
    /// The stream's closing tag.
    Footer,
}

/// What an opening tag says (RFC 6120 section 4.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The domain that is asked for.
    pub to: Option<String>,
    /// The version of XMPP, as `1.0`.
    pub version: Option<String>,
}

/// What came is not what a stream may hold; each is a stream error of RFC 6120 section 4.9.3. The
/// texts complete "the peer sent".
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum AssemblyError {
    /// The bytes are not XML, or XML of a kind that streams must not hold.
    #[error("broken XML: {0}")]
    NotWellFormed(rxml::Error),
    /// The first tag is not that of a stream.
    #[error("something else than an XML stream")]
    InvalidNamespace,
    /// There is text where only elements may be.
    #[error("text between stanzas")]
    BadFormat,
    /// A stanza is beyond the [`Bounds`], and [`Excess::End`] holds.
    #[error("a stanza too large or nested too deep")]
    PolicyViolation,
}

/// Takes bytes, gives elements. After an error it is of no more use.
pub struct Assembler {
    bounds: Bounds,
    parser: Parser,
    buffer: Vec<u8>,
    taken: usize,
    /// The opening tag has been seen.
    open: bool,
    /// Elements begun and not ended, the outermost first.
    begun: Vec<Element>,
    /// Levels inside a stanza that is being skipped.
    skipping: usize,
    /// Bytes since the last element of the first level ended.
    stanza_len: usize,
    skipped_count: u64,
}

impl Assembler {
    /// Waits for an opening tag.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            parser: parser(bounds.stanza_len_max),
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
    pub fn restart(&mut self) {
        let rest = self.buffer.split_off(self.taken);
        let skipped_count = self.skipped_count;
        *self = Self { buffer: rest, skipped_count, ..Self::new(self.bounds) };
    }

    /// Where bytes read from the network are appended. They wait there until [`Self::poll`] takes
    /// them, so whoever appends without polling decides how much memory that is.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.taken > 0 {
            self.buffer.drain(..mem::take(&mut self.taken));
        }
        &mut self.buffer
    }

    /// Whether bytes wait that were not looked at.
    pub fn has_rest(&self) -> bool {
        self.taken < self.buffer.len()
    }

    /// Stanzas that were left out so far, over all restarts.
    pub fn skipped_count(&self) -> u64 {
        self.skipped_count
    }

    /// The next piece, as far as the bytes go.
    ///
    /// # Errors
    /// When the bytes are not what a stream may hold; see [`AssemblyError`].
    pub fn poll(&mut self) -> Result<Option<Incoming>, AssemblyError> {
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
            if self.is_too_large() && self.bounds.excess == Excess::End {
                return Err(AssemblyError::PolicyViolation);
            }
            match event {
                Ok(Some(event)) => {
                    if let Some(incoming) = self.take(event)? {
                        return Ok(Some(incoming));
                    }
                }
                Ok(None) | Err(EndOrError::NeedMoreData) => return Ok(None),
                Err(EndOrError::Error(error)) => return Err(AssemblyError::NotWellFormed(error)),
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<Option<Incoming>, AssemblyError> {
        match event {
            Event::XmlDeclaration(..) => Ok(None),
            Event::StartElement(_, name, attributes) if self.open => {
                self.begin(name, attributes).map(|()| None)
            }
            Event::StartElement(_, name, attributes) => self.open(&name, attributes).map(Some),
            Event::Text(_, text) => self.text(&text).map(|()| None),
            Event::EndElement(_) => Ok(self.end()),
        }
    }

    fn open(&mut self, name: &QName, attributes: AttrMap) -> Result<Incoming, AssemblyError> {
        if name.0 != STREAM || name.1.as_str() != "stream" {
            return Err(AssemblyError::InvalidNamespace);
        }
        self.open = true;
        self.stanza_len = 0;
        Ok(Incoming::Header(header(attributes)))
    }

    fn begin(&mut self, name: QName, attributes: AttrMap) -> Result<(), AssemblyError> {
        if self.skipping > 0 {
            self.skipping += 1;
        } else if self.begun.len() >= self.bounds.depth_max || self.is_too_large() {
            self.exceed(1)?;
        } else {
            self.begun.push(element(name, attributes));
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), AssemblyError> {
        if self.skipping > 0 {
            return Ok(());
        }
        if self.is_too_large() && !self.begun.is_empty() {
            return self.exceed(0);
        }
        match self.begun.last_mut() {
            Some(element) => element.append_text_node(text),
            None if text.bytes().all(|byte| byte.is_ascii_whitespace()) => self.stanza_len = 0,
            None => return Err(AssemblyError::BadFormat),
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

    fn is_too_large(&self) -> bool {
        self.stanza_len > self.bounds.stanza_len_max
    }

    /// Gives up on the stream or on the current stanza, of which `more` levels have just begun.
    fn exceed(&mut self, more: usize) -> Result<(), AssemblyError> {
        match self.bounds.excess {
            Excess::End => Err(AssemblyError::PolicyViolation),
            Excess::Skip => {
                self.skipping = self.begun.len() + more;
                self.begun.clear();
                self.skipped_count += 1;
                Ok(())
            }
        }
    }
}

impl AssemblyError {
    /// The name of the stream error.
    pub fn condition(self) -> &'static str {
        match self {
            Self::NotWellFormed(_) => "not-well-formed",
            Self::InvalidNamespace => "invalid-namespace",
            Self::BadFormat => "bad-format",
            Self::PolicyViolation => "policy-violation",
        }
    }
}

fn parser(token_len_max: usize) -> Parser {
    Parser::with_options(Options { max_token_length: token_len_max, ..Options::default() })
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
mod tests;
