//! What the two ends of a measurement tell each other: a line of JSON for each request, and one for
//! its reply.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Of these words; ends of different versions do not measure.
pub const VERSION: u32 = 1;
/// Longest measurement of one figure that an answering end agrees to.
pub const TIME_MAX: Duration = Duration::from_secs(60);
/// Most bytes of one figure's streams together: at 30 Gbit/s what the longest one carries.
pub const BYTES_MAX: u64 = 256 << 30;
/// Most streams at once.
pub const STREAMS_MAX: u32 = 16;
/// Longest line, bytes.
const LINE_MAX: u64 = 1024;

/// What the asking end wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// A session; the first request.
    Begin {
        /// [`VERSION`] of the asking end.
        version: u32,
    },
    /// Take so many streams, and read them to their end or for a while.
    Receive {
        /// Where they come.
        way: Way,
        /// How many.
        streams: u32,
        /// How long.
        milliseconds: u64,
    },
    /// Take so many streams, fill them for a while, and end them.
    Send {
        /// Where they come.
        way: Way,
        /// How many.
        streams: u32,
        /// How long.
        milliseconds: u64,
    },
    /// How many packets came since the last question?
    Count {
        /// Where.
        way: Way,
    },
    /// Send small packets to where the last ping came from.
    Flood {
        /// Where.
        way: Way,
        /// How long.
        milliseconds: u64,
    },
    /// How much CPU has the datapath used so far?
    Cpu,
}

/// The two networks that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Through the link.
    Overlay,
    /// Beside it.
    Underlay,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overlay => "overlay",
            Self::Underlay => "underlay",
        })
    }
}

/// What the answering end says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The session begins.
    Begun {
        /// Opens every stream and every packet of it.
        secret: Secret,
        /// Ports on the overlay interface.
        overlay: Ports,
        /// Ports on the machine's other addresses.
        underlay: Underlay,
    },
    /// What was asked for is done.
    Done,
    /// What streams carried.
    Moved(Moved),
    /// How many packets came, or were sent.
    Packets(u64),
    /// User and system time of the datapath, seconds; none when it does not run.
    Cpu(Option<f64>),
    /// It is not done, and why.
    Refused(String),
}

/// The way beside the link, as the answering end sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Underlay {
    /// It can be measured.
    Open(Ports),
    /// It cannot, and why.
    Closed(String),
}

/// Where a session's traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// TCP.
    pub tcp: u16,
    /// UDP.
    pub udp: u16,
}

/// Known to the two ends of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub [u8; 16]);

/// What streams carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// Bytes of all streams.
    pub bytes: u64,
    /// From the first byte of any to the last of any.
    pub seconds: f64,
}

impl Moved {
    /// Gbit/s.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 * 8.0 / self.seconds / 1e9 } else { 0.0 }
    }
}

/// One end of the conversation.
pub struct Conversation(BufReader<TcpStream>);

impl Conversation {
    /// On a connection whose reads give up after `patience`.
    ///
    /// # Errors
    /// The system's.
    pub fn new(stream: TcpStream, patience: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Says something.
    ///
    /// # Errors
    /// The system's.
    pub fn say(&mut self, words: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(words)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line)
    }

    /// Whether the other end has hung up, as far as this one has been told.
    pub fn is_over(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(self.0.get_ref(), &mut byte, flags) {
            Ok((_, length)) => length == 0,
            Err(error) => error != Errno::AGAIN,
        }
    }

    /// What the other end says next; `None` when it has hung up.
    ///
    /// # Errors
    /// When nothing comes in time, or nothing that makes sense.
    pub fn hear<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        self.0.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (TcpStream, Conversation) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let heard = listener.accept().unwrap().0;
        (stream, Conversation::new(heard, Duration::from_secs(5)).unwrap())
    }

    #[test]
    fn words_are_heard_as_they_were_said() {
        let (stream, mut other) = pair();
        let mut one = Conversation::new(stream, Duration::from_secs(5)).unwrap();
        let ports = Ports { tcp: 1, udp: 2 };
        let begun = Reply::Begun {
            secret: Secret([7; 16]),
            overlay: ports,
            underlay: Underlay::Open(ports),
        };
        for reply in [begun, Reply::Moved(Moved { bytes: 5, seconds: 0.5 }), Reply::Packets(9)] {
            one.say(&reply).unwrap();
            assert_eq!(other.hear::<Reply>().unwrap(), Some(reply));
        }
        assert!(!other.is_over());
        drop(one);
        assert!(other.is_over());
        assert_eq!(other.hear::<Reply>().unwrap(), None);
    }

    #[test]
    fn nonsense_and_endless_lines_are_errors() {
        for text in [b"hello\n".to_vec(), vec![b'['; 5000], b"{\"flood\":{}}\n".to_vec()] {
            let (mut stream, mut other) = pair();
            stream.write_all(&text).unwrap();
            assert!(other.hear::<Request>().is_err());
        }
    }
}
