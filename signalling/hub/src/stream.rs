//! A client's stream as long as one task reads and writes it: until the resource is bound.

use ipop_jingle::ns;
use ipop_stream::{Assembler, AssemblyError, Bounds, Excess, Header, Incoming};
use minidom::Element;
use minidom::element::escape;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

const READ_CHUNK: usize = 16 * 1024;
/// For the last words.
pub(crate) const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// A client answers for all that it sends, so one that exceeds them is let go.
const BOUNDS: Bounds = Bounds { stanza_len_max: 64 * 1024, depth_max: 32, excess: Excess::End };

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is gone.
    Gone,
    /// The client ended the stream.
    Footer,
    /// The client hears this stream error (RFC 6120 section 4.9.3).
    Error(&'static str),
}

impl From<AssemblyError> for Fault {
    fn from(error: AssemblyError) -> Self {
        tracing::debug!(%error, "a client broke the rules of a stream");
        Self::Error(error.condition())
    }
}

impl From<std::io::Error> for Fault {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// See the [module](self).
pub(crate) struct XmlStream<Io> {
    io: Io,
    assembler: Assembler,
    /// Our opening tag was sent.
    open: bool,
    deadline: Instant,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> XmlStream<Io> {
    /// Past the deadline the client is not waited for any more.
    pub(crate) fn new(io: Io, deadline: Instant) -> Self {
        Self { io, assembler: Assembler::new(BOUNDS), open: false, deadline }
    }

    /// Exchanges opening tags, and says what may follow.
    pub(crate) async fn open(&mut self, domain: &str, features: &str) -> Result<(), Fault> {
        let Incoming::Header(header) = self.next().await? else {
            return Err(Fault::Error("bad-format"));
        };
        let mut text = opening(domain)?;
        self.open = true;
        match objection(&header, domain) {
            Some(condition) => {
                self.write(text.as_bytes()).await?;
                Err(Fault::Error(condition))
            }
            None => {
                text.push_str("<stream:features>");
                text.push_str(features);
                text.push_str("</stream:features>");
                self.write(text.as_bytes()).await
            }
        }
    }

    /// The next piece.
    pub(crate) async fn next(&mut self) -> Result<Incoming, Fault> {
        loop {
            if let Some(incoming) = self.assembler.poll()? {
                return Ok(incoming);
            }
            let reading = read(&mut self.io, &mut self.assembler);
            let read = timeout_at(self.deadline, reading).await;
            read.map_err(|_| Fault::Error("connection-timeout"))??;
        }
    }

    /// The next element.
    pub(crate) async fn element(&mut self) -> Result<Element, Fault> {
        match self.next().await? {
            Incoming::Element(element) => Ok(element),
            Incoming::Footer => Err(Fault::Footer),
            Incoming::Header(_) => Err(Fault::Error("bad-format")),
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let write = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        Ok(timeout_at(self.deadline, write).await.map_err(|_| Fault::Gone)??)
    }

    /// Begins a new stream on the same connection.
    pub(crate) fn restart(&mut self) {
        self.assembler.restart();
        self.open = false;
    }

    /// The connection itself, unless bytes are left over: whoever put them there before encryption
    /// began could have been anybody.
    pub(crate) fn into_io(self) -> Result<Io, Fault> {
        if self.assembler.has_rest() { Err(Fault::Gone) } else { Ok(self.io) }
    }

    /// The connection and what of it has been read.
    pub(crate) fn into_parts(self) -> (Io, Assembler) {
        (self.io, self.assembler)
    }

    /// Ends the stream for a reason.
    pub(crate) async fn fail(&mut self, domain: &str, fault: Fault) {
        if fault == Fault::Gone {
            return;
        }
        let mut text = String::new();
        if !self.open {
            text = opening(domain).unwrap_or_default();
        }
        text.push_str(&ending(fault));
        self.deadline = Instant::now() + CLOSE_PATIENCE;
        let _ = self.write(text.as_bytes()).await;
        let _ = timeout(CLOSE_PATIENCE, self.io.shutdown()).await;
    }
}

/// Reads what there is.
pub(crate) async fn read<Io: AsyncRead + Unpin>(
    io: &mut Io,
    assembler: &mut Assembler,
) -> Result<usize, Fault> {
    let buffer = assembler.buffer();
    buffer.reserve(READ_CHUNK);
    // A reserve may give more than was asked for; the limit keeps a burst within the stanza bounds.
    match io.take(READ_CHUNK as u64).read_buf(buffer).await? {
        0 => Err(Fault::Gone),
        len => Ok(len),
    }
}

/// The last words on a stream.
pub(crate) fn ending(fault: Fault) -> String {
    match fault {
        Fault::Gone | Fault::Footer => "</stream:stream>".to_owned(),
        Fault::Error(condition) => format!(
            "<stream:error><{condition} xmlns='{}'/></stream:error></stream:stream>",
            ns::XMPP_STREAMS
        ),
    }
}

fn opening(domain: &str) -> Result<String, Fault> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| Fault::Error("internal-server-error"))?;
    let domain = escape(domain.as_bytes());
    Ok(format!(
        "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}' version='1.0' \
         xml:lang='en' from='{}' id='{}'>",
        ns::JABBER_CLIENT,
        ns::STREAM,
        String::from_utf8_lossy(&domain),
        crate::state::to_hex(&id)
    ))
}

fn objection(header: &Header, domain: &str) -> Option<&'static str> {
    let is_other = |to: &str| !to.eq_ignore_ascii_case(domain);
    let version = header.version.as_deref().and_then(|v| v.split('.').next()?.parse::<u32>().ok());
    if header.to.as_deref().is_some_and(is_other) {
        Some("host-unknown")
    } else if version.is_none_or(|major| major < 1) {
        Some("unsupported-version")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn whoever_takes_too_long_is_told() {
        let (mut client, server) = tokio::io::duplex(4096);
        client.write_all(b"<stream:stream").await.unwrap();
        let mut stream = XmlStream::new(server, Instant::now() + Duration::from_millis(20));
        let fault = stream.open("hub.test", "").await.unwrap_err();
        stream.fail("hub.test", fault).await;
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert!(said.contains("<stream:stream") && said.contains("connection-timeout"), "{said}");
        assert!(said.ends_with("</stream:stream>"), "{said}");
    }
}
