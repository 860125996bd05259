//! An XML stream over a connection (RFC 6120 section 4).
//!
//! What is to be sent is queued and then flushed in one write, so that whatever the standards let
//! us say without waiting for an answer travels together.

use crate::failure::Failure;
use ipop_jingle::ns;
use ipop_stream::{Assembler, Bounds, Excess, Incoming};
use minidom::Element;
use minidom::element::escape;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// A server that takes nothing for this long is taken for dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
const READ_CHUNK: usize = 16 * 1024;
/// A stanza can come from anybody who is in the room, so one that exceeds them is skipped and the
/// stream goes on. Servers let 64 KiB to 512 KiB pass, and no attribute that they let pass may be
/// too long for us.
const BOUNDS: Bounds = Bounds { stanza_len_max: 1 << 20, depth_max: 32, excess: Excess::Skip };

/// One stream, owned by one task.
pub(crate) struct XmlStream<Io> {
    io: Io,
    assembler: Assembler,
    queue: Vec<u8>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> XmlStream<Io> {
    pub(crate) fn new(io: Io) -> Self {
        Self { io, assembler: Assembler::new(BOUNDS), queue: Vec::new() }
    }

    /// Queues the opening tag of a stream to a domain.
    pub(crate) fn queue_header(&mut self, domain: &str) {
        self.queue.extend_from_slice(b"<?xml version='1.0'?><stream:stream xmlns='");
        self.queue.extend_from_slice(ns::JABBER_CLIENT.as_bytes());
        self.queue.extend_from_slice(b"' xmlns:stream='");
        self.queue.extend_from_slice(ns::STREAM.as_bytes());
        self.queue.extend_from_slice(b"' version='1.0' to='");
        self.queue.extend_from_slice(&escape(domain.as_bytes()));
        self.queue.extend_from_slice(b"'>");
    }

    /// Queues an element.
    pub(crate) fn queue(&mut self, element: &Element) {
        let len = self.queue.len();
        if let Err(error) = element.write_to(&mut self.queue) {
            // Half an element would break the stream for everything behind it.
            self.queue.truncate(len);
            tracing::warn!(%error, name = element.name(), "left out what XML cannot carry");
        }
    }

    /// Sends what is queued.
    pub(crate) async fn flush(&mut self) -> Result<(), Failure> {
        if self.queue.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.queue);
        let write = async {
            self.io.write_all(&bytes).await?;
            self.io.flush().await
        };
        match timeout(WRITE_TIMEOUT, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::retry(format!("the connection broke: {error}"))),
            Err(_) => Err(Failure::retry("the server takes no more data")),
        }
    }

    /// The next piece. May be dropped while waiting without losing anything.
    pub(crate) async fn next(&mut self) -> Result<Incoming, Failure> {
        loop {
            match self.assemble()? {
                Some(incoming) => {
                    tracing::trace!(?incoming, "got");
                    return Ok(incoming);
                }
                None => self.read().await?,
            }
        }
    }

    /// The next element; the stream's end is a failure.
    pub(crate) async fn next_element(&mut self) -> Result<Element, Failure> {
        match self.next().await? {
            Incoming::Element(element) => Ok(element),
            Incoming::Header(_) => {
                Err(Failure::retry("the server opened a stream inside a stream"))
            }
            Incoming::Footer => Err(Failure::retry("the server ended the connection")),
        }
    }

    /// The server's opening tag.
    pub(crate) async fn header(&mut self) -> Result<(), Failure> {
        match self.next().await? {
            Incoming::Header(_) => Ok(()),
            _ => Err(Failure::retry("the server sent no stream header")),
        }
    }

    /// Forgets the old stream after a step that begins a new one.
    pub(crate) fn restart(&mut self) {
        self.assembler.restart();
    }

    /// Ends the stream and waits a moment for the server to do the same.
    pub(crate) async fn close(mut self, patience: Duration) {
        self.queue.extend_from_slice(b"</stream:stream>");
        let goodbye = async {
            self.flush().await?;
            while !matches!(self.next().await?, Incoming::Footer) {}
            Ok::<(), Failure>(())
        };
        let _ = timeout(patience, goodbye).await;
        let _ = timeout(patience, self.io.shutdown()).await;
    }

    /// The connection itself, unless bytes of the stream are left over: whoever put them there
    /// before encryption began could have been anybody.
    pub(crate) fn into_io(self) -> Result<Io, Failure> {
        if self.assembler.has_rest() {
            return Err(Failure::retry("the server sent data before encryption had begun"));
        }
        Ok(self.io)
    }

    /// The connection.
    pub(crate) fn io(&self) -> &Io {
        &self.io
    }

    fn assemble(&mut self) -> Result<Option<Incoming>, Failure> {
        let skipped_count = self.assembler.skipped_count();
        let assembled = self.assembler.poll();
        let count = self.assembler.skipped_count();
        if count > skipped_count {
            tracing::debug!(count, "skipped a stanza beyond our limits");
        }
        assembled.map_err(|error| Failure::retry(format!("the server sent {error}")))
    }

    async fn read(&mut self) -> Result<(), Failure> {
        let buffer = self.assembler.buffer();
        buffer.reserve(READ_CHUNK);
        match self.io.read_buf(buffer).await {
            Ok(0) => Err(Failure::retry("the server closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::retry(format!("the connection broke: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_third_party_sends_does_not_end_the_stream() {
        let (ours, mut server) = tokio::io::duplex(4 << 20);
        let header = format!("<stream:stream xmlns='a' xmlns:stream='{}'>", ns::STREAM);
        let deep = "<a>".repeat(1000) + &"</a>".repeat(1000);
        let wide = format!("<a>{}</a>", "<b/>".repeat(300_000));
        let text = format!("{header}{deep}{wide}<a b='{}'/><c/>", "x".repeat(512 * 1024));
        server.write_all(text.as_bytes()).await.unwrap();
        let mut stream = XmlStream::new(ours);
        stream.header().await.unwrap();
        let mut name = async || stream.next_element().await.unwrap().name().to_owned();
        assert_eq!((name().await, name().await), ("a".to_owned(), "c".to_owned()));
        assert_eq!(stream.assembler.skipped_count(), 2);
    }
}
