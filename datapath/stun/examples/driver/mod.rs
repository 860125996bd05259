//! A [`TurnClient`] on a real socket: the loop that an engine has, as small as it can be.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ipop_stun::{Input, Received, TurnClient, TurnConfig, TurnOutput};

/// The longest wait for a datagram before conditions are looked at again.
const TICK: Duration = Duration::from_millis(20);

/// What a peer sent through the server.
pub struct Relayed {
    /// The peer.
    pub peer: SocketAddr,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Whether it came in a channel, not in an indication.
    pub in_channel: bool,
}

/// A client and its socket.
pub struct Driver {
    /// The machine.
    pub client: TurnClient,
    /// Its socket.
    pub socket: UdpSocket,
    /// What the machine told and nobody took yet.
    pub events: Vec<TurnOutput>,
    /// What peers sent and nobody took yet.
    pub received: Vec<Relayed>,
}

impl Driver {
    /// Starts a client on `socket`.
    pub fn new(socket: UdpSocket, config: TurnConfig, seed: [u8; 32]) -> Self {
        let client = TurnClient::new(config, seed, Instant::now());
        Self { client, socket, events: Vec::new(), received: Vec::new() }
    }

    /// Runs until `done` says so (true) or `patience` is over (false).
    pub fn run(
        &mut self,
        patience: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> io::Result<bool> {
        let end = Instant::now() + patience;
        loop {
            self.drain()?;
            if done(self) {
                self.drain()?;
                return Ok(true);
            }
            let now = Instant::now();
            if now >= end {
                return Ok(false);
            }
            self.receive(now)?;
            self.client.handle_timeout(Instant::now());
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        while let Some(output) = self.client.poll_output() {
            match output {
                TurnOutput::Transmit { to, data } => match self.socket.send_to(&data, to) {
                    // What the other side's host said about an earlier datagram.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    sent => drop(sent?),
                },
                event => self.events.push(event),
            }
        }
        Ok(())
    }

    fn receive(&mut self, now: Instant) -> io::Result<()> {
        let timer = self.client.poll_timeout().map(|at| at.saturating_duration_since(now));
        let wait = timer.unwrap_or(TICK).clamp(Duration::from_millis(1), TICK);
        self.socket.set_read_timeout(Some(wait))?;
        let mut buffer = [0; 2048];
        let (length, remote) = match self.socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if is_transient(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let data = &buffer[..length];
        let received = self.client.handle_input(Instant::now(), Input { remote, data });
        if let Ok(Received::Data { peer, range }) = received {
            let in_channel = data[0] & 0xc0 == 0x40;
            self.received.push(Relayed { peer, payload: data[range].to_vec(), in_channel });
        }
        Ok(())
    }
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), ConnectionRefused | Interrupted | TimedOut | WouldBlock)
}
