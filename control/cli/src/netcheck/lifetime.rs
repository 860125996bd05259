//! How long a NAT remembers a mapping that is not used (RFC 5780 section 4.6).
//!
//! A socket asks a server once, which makes a mapping, and is silent then. After a while another
//! socket asks the server to answer to that mapping (RESPONSE-PORT): the answer arrives if the NAT
//! still knows it. Where the server cannot do that, the first socket asks again itself: another
//! port shows that the first mapping was gone, which only a NAT that changes ports tells.
//!
//! Several such sockets are silent at once, each for another time, and the first one that was
//! forgotten ends the round; the next one lies between the longest that was remembered and it.
//! What was used once only is forgotten sooner by some NATs than what a link uses.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ipop_stun::{Attribute, Builder, Class, Message, Method, TransactionId};
use serde::Serialize;

/// Silences of the first round, seconds. RFC 4787 asks for two minutes, and recommends five.
const FIRST_ROUND: [u64; 7] = [5, 10, 20, 40, 80, 160, 300];
/// Silences of each further round.
const FURTHER: u32 = 3;
/// Between remembered and forgotten it is close enough: so much, or a sixteenth.
const CLOSE: Duration = Duration::from_millis(500);
/// How often a question is sent, and how long its answer is awaited each time.
const TRIES: u32 = 4;
const PATIENCE: Duration = Duration::from_millis(400);

/// What was found out.
#[derive(Debug, Serialize)]
pub(super) struct Lifetime {
    /// The server that was asked.
    pub server: SocketAddr,
    /// The longest silence after which the mapping was there, seconds.
    pub alive_s: Option<f64>,
    /// The shortest silence after which it was gone, seconds.
    pub gone_s: Option<f64>,
    /// Why there is nothing to say.
    pub error: Option<String>,
}

impl Lifetime {
    /// For people.
    pub(super) fn text(&self) -> String {
        match (self.alive_s, self.gone_s, &self.error) {
            (.., Some(error)) => format!("unknown: {error}"),
            (alive, Some(gone), None) => {
                format!("{:.1} to {gone:.1} s without traffic", alive.unwrap_or_default())
            }
            (Some(alive), None, None) => format!("more than {alive:.0} s without traffic"),
            (None, None, None) => "unknown".to_owned(),
        }
    }
}

/// Asks a server that answers; `tell` gets a word for each silence that is over.
pub(super) fn measure(server: SocketAddr, tell: &mut dyn FnMut(&str)) -> Lifetime {
    let blank = Lifetime { server, alive_s: None, gone_s: None, error: None };
    let how = match How::find(server) {
        Ok(how) => how,
        Err(error) => return Lifetime { error: Some(error.to_string()), ..blank },
    };
    let mut search = Search::default();
    while let Some(silences) = search.round() {
        if let Err(error) = run(server, how, &silences, &mut search, tell) {
            return Lifetime { error: Some(error.to_string()), ..blank };
        }
    }
    let seconds = |time: Duration| time.as_secs_f64();
    Lifetime { alive_s: search.alive.map(seconds), gone_s: search.gone.map(seconds), ..blank }
}

/// One round, until a mapping was gone.
fn run(
    server: SocketAddr,
    how: How,
    silences: &[Duration],
    search: &mut Search,
    tell: &mut dyn FnMut(&str),
) -> io::Result<()> {
    let mut quiet = Vec::new();
    for silence in silences {
        quiet.push((*silence, Quiet::open(server)?));
    }
    for (silence, quiet) in quiet {
        std::thread::sleep((quiet.since + silence).saturating_duration_since(Instant::now()));
        let is_there = quiet.is_there(how)?;
        let what = if is_there { "there" } else { "gone" };
        tell(&format!("{}: the mapping is {what} after {:.1} s", server, silence.as_secs_f64()));
        search.note(silence, is_there);
        if !is_there {
            break;
        }
    }
    Ok(())
}

/// Between which times the NAT forgets.
#[derive(Debug, Default)]
struct Search {
    alive: Option<Duration>,
    gone: Option<Duration>,
}

impl Search {
    /// The silences to try next, the shortest first; `None`: it is known well enough.
    fn round(&self) -> Option<Vec<Duration>> {
        let longest = FIRST_ROUND.map(Duration::from_secs);
        match (self.alive, self.gone) {
            (None, None) => Some(longest.to_vec()),
            (_, None) => None,
            (alive, Some(gone)) => {
                let from = alive.unwrap_or_default();
                let width = gone.saturating_sub(from);
                let step = width / (FURTHER + 1);
                let is_close = width <= CLOSE.max(gone / 16);
                (!is_close).then(|| (1..=FURTHER).map(|number| from + step * number).collect())
            }
        }
    }

    fn note(&mut self, silence: Duration, is_there: bool) {
        match is_there {
            true => self.alive = self.alive.max(Some(silence)),
            false => self.gone = Some(self.gone.map_or(silence, |gone| gone.min(silence))),
        }
    }
}

/// How a mapping is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// By another socket, with RESPONSE-PORT.
    ByAnother,
    /// By the port that the same socket is seen at.
    ByPort,
}

impl How {
    /// What works with this server and NAT.
    fn find(server: SocketAddr) -> io::Result<Self> {
        let quiet = Quiet::open(server)?;
        if quiet.is_there(Self::ByAnother)? {
            return Ok(Self::ByAnother);
        }
        if quiet.mapped.port() == quiet.asker.socket.local_addr()?.port() {
            return Err(io::Error::other(
                "it takes a STUN server with RESPONSE-PORT (RFC 5780), since the ports stay the \
                 same here",
            ));
        }
        Ok(Self::ByPort)
    }
}

/// A socket that asked once.
struct Quiet {
    asker: Asker,
    mapped: SocketAddr,
    /// When its mapping was used last.
    since: Instant,
}

impl Quiet {
    fn open(server: SocketAddr) -> io::Result<Self> {
        let asker = Asker::open(server)?;
        let question = asker.question(None)?;
        let mapped = asker.ask(&question, &asker)?;
        let mapped = mapped.ok_or_else(|| io::Error::other("the server does not answer"))?;
        Ok(Self { asker, mapped, since: Instant::now() })
    }

    fn is_there(&self, how: How) -> io::Result<bool> {
        match how {
            How::ByPort => {
                let seen = self.asker.ask(&self.asker.question(None)?, &self.asker)?;
                Ok(seen == Some(self.mapped))
            }
            How::ByAnother => {
                let other = Asker::open(self.asker.server)?;
                let question = other.question(Some(self.mapped.port()))?;
                Ok(other.ask(&question, &self.asker)?.is_some())
            }
        }
    }
}

/// A socket of its own for one server.
struct Asker {
    socket: UdpSocket,
    server: SocketAddr,
    id: TransactionId,
}

impl Asker {
    fn open(server: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0))?;
        let seed = super::seed();
        let id = TransactionId(std::array::from_fn(|at| seed[at]));
        Ok(Self { socket, server, id })
    }

    /// A Binding request whose answer goes to our own port, or to another.
    fn question(&self, port: Option<u16>) -> io::Result<Vec<u8>> {
        let request = Builder::request(Method::Binding, self.id);
        let request = match port {
            Some(port) => request.with(Attribute::ResponsePort(port)),
            None => request,
        };
        request.build().map_err(io::Error::other)
    }

    /// Sends a question until its answer comes to `to`; the address in it.
    fn ask(&self, question: &[u8], to: &Asker) -> io::Result<Option<SocketAddr>> {
        let mut buffer = [0; 2048];
        for _ in 0..TRIES {
            // What cannot be sent shows as silence.
            let _ = self.socket.send_to(question, self.server);
            let deadline = Instant::now() + PATIENCE;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                to.socket.set_read_timeout(Some(left))?;
                let Ok((len, from)) = to.socket.recv_from(&mut buffer) else { continue };
                let answer = Message::parse(&buffer[..len]).ok().filter(|_| from == self.server);
                let Some(answer) = answer.filter(|answer| answer.transaction() == self.id) else {
                    continue;
                };
                // A server that does not know RESPONSE-PORT says so (420) to who asked.
                return Ok(match answer.class() {
                    Class::Success => answer.mapped_address(),
                    _ => None,
                });
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a NAT with this lifetime be searched; the result, and how long it took.
    fn search(lifetime: Duration) -> (Search, Duration) {
        let (mut search, mut took) = (Search::default(), Duration::ZERO);
        while let Some(silences) = search.round() {
            assert!(silences.is_sorted() && !silences.is_empty());
            for silence in silences {
                search.note(silence, silence < lifetime);
                if silence >= lifetime {
                    took += silence;
                    break;
                }
            }
            assert!(took < Duration::from_secs(3600), "no end");
        }
        (search, took)
    }

    #[test]
    fn any_lifetime_is_found_in_a_few_rounds() {
        for millis in [1, 700, 5000, 7000, 30_000, 65_000, 120_000, 180_000, 299_000] {
            let lifetime = Duration::from_millis(millis);
            let (search, took) = search(lifetime);
            let (alive, gone) = (search.alive.unwrap_or_default(), search.gone.unwrap());
            assert!(alive < lifetime && lifetime <= gone, "{lifetime:?}: {search:?}");
            assert!(gone - alive <= CLOSE.max(gone / 16), "{lifetime:?}: {search:?}");
            assert!(took <= lifetime * 5 + Duration::from_secs(15), "{lifetime:?}: {took:?}");
        }
        let (search, _) = search(Duration::from_secs(1000));
        assert_eq!((search.alive, search.gone), (Some(Duration::from_secs(300)), None));
    }

    #[test]
    fn what_was_found_is_said() {
        let server = "192.0.2.1:3478".parse().unwrap();
        let found = |alive_s, gone_s| Lifetime { server, alive_s, gone_s, error: None }.text();
        assert_eq!(found(Some(28.75), Some(30.0)), "28.8 to 30.0 s without traffic");
        assert_eq!(found(None, Some(0.5)), "0.0 to 0.5 s without traffic");
        assert_eq!(found(Some(300.0), None), "more than 300 s without traffic");
    }
}
