//! What one peer is served, within bounds.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::instance::RunDir;

use super::cpu::datapath_seconds;
use super::packets::Responder;
use super::streams::{self, Listener};
use super::words::{
    Conversation, Ports, Reply, Request, STREAMS_MAX, Secret, TIME_MAX, Underlay, VERSION, Way,
};

/// How long a peer may be silent: it measures round trips by itself meanwhile.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// How long a session may last: all figures at their longest.
const SESSION_MAX: Duration = Duration::from_secs(20 * 60);

/// What one peer measures.
pub struct Session {
    instance: RunDir,
    conversation: Conversation,
    secret: Secret,
    overlay: End,
    underlay: Option<End>,
    deadline: Instant,
}

/// The ports of one way.
struct End {
    listener: Listener,
    responder: Responder,
    /// The only address that is served.
    peer: IpAddr,
}

impl End {
    fn open(interface: Option<&str>, secret: Secret, peer: IpAddr) -> io::Result<Self> {
        let listener = Listener::open(interface, 0)?;
        Ok(Self { listener, responder: Responder::start(interface, secret, peer)?, peer })
    }

    fn ports(&self) -> io::Result<Ports> {
        Ok(Ports { tcp: self.listener.port()?, udp: self.responder.port()? })
    }
}

impl Session {
    /// Hears what the peer wants and opens the ports. `above` is its address on the overlay,
    /// `below` the one beside it, where the way is open.
    ///
    /// # Errors
    /// When the peer speaks otherwise, or a port cannot be opened.
    pub fn begin(
        stream: TcpStream,
        instance: RunDir,
        interface: &str,
        above: IpAddr,
        below: Result<IpAddr, Underlay>,
    ) -> io::Result<Self> {
        let deadline = Instant::now() + SESSION_MAX;
        let mut conversation = Conversation::new(stream, SILENCE_MAX)?;
        match conversation.hear()? {
            Some(Request::Begin { version: VERSION }) => {}
            other => {
                let text = format!("this end measures by version {VERSION}, not as {other:?}");
                conversation.say(&Reply::Refused(text.clone()))?;
                return Err(io::Error::other(text));
            }
        }
        let secret = secret()?;
        let overlay = End::open(Some(interface), secret, above)?;
        let (underlay, told) = match below {
            Ok(peer) => {
                let end = End::open(None, secret, peer)?;
                let ports = end.ports()?;
                (Some(end), Underlay::Open(ports))
            }
            Err(closed) => (None, closed),
        };
        let ports = overlay.ports()?;
        conversation.say(&Reply::Begun { secret, overlay: ports, underlay: told })?;
        Ok(Self { instance, conversation, secret, overlay, underlay, deadline })
    }

    /// Answers requests until the peer hangs up.
    ///
    /// # Errors
    /// When it is silent for too long, talks nonsense, or has had all the time that there is.
    pub fn answer(mut self) -> io::Result<()> {
        while let Some(request) = self.conversation.hear()? {
            if Instant::now() > self.deadline {
                let why = format!("a session ends after {} s", SESSION_MAX.as_secs());
                self.conversation.say(&Reply::Refused(why.clone()))?;
                return Err(io::Error::other(why));
            }
            // What fails is told: the peer may want to go on with something else.
            let reply = self.obey(request).unwrap_or_else(|e| Reply::Refused(e.to_string()));
            self.conversation.say(&reply)?;
        }
        Ok(())
    }

    fn obey(&self, request: Request) -> io::Result<Reply> {
        Ok(match request {
            Request::Begin { .. } => Reply::Refused("the session has begun already".to_owned()),
            Request::Receive { way, streams, milliseconds } => {
                let taken = self.take(way, streams)?;
                Reply::Moved(streams::empty(taken, time(milliseconds))?)
            }
            Request::Send { way, streams, milliseconds } => {
                streams::fill(self.take(way, streams)?, time(milliseconds))?;
                Reply::Done
            }
            Request::Count { way } => Reply::Packets(self.end(way)?.responder.count()),
            Request::Flood { way, milliseconds } => {
                let responder = &self.end(way)?.responder;
                let goes_on = || !self.conversation.is_over();
                Reply::Packets(responder.flood(time(milliseconds), goes_on)?)
            }
            Request::Cpu => Reply::Cpu(datapath_seconds(&self.instance)),
        })
    }

    fn take(&self, way: Way, streams: u32) -> io::Result<Vec<TcpStream>> {
        let end = self.end(way)?;
        end.listener.take(streams.clamp(1, STREAMS_MAX), &self.secret, end.peer)
    }

    fn end(&self, way: Way) -> io::Result<&End> {
        match way {
            Way::Overlay => Ok(&self.overlay),
            Way::Underlay => self.underlay.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into()),
        }
    }
}

fn time(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds).min(TIME_MAX)
}

fn secret() -> io::Result<Secret> {
    let mut secret = Secret([0; 16]);
    let flags = rustix::rand::GetRandomFlags::empty();
    // Up to 256 bytes come whole.
    rustix::rand::getrandom(&mut secret.0[..], flags)?;
    Ok(secret)
}
