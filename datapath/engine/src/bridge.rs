//! TURN over TCP and TLS: a bridge between the node's UDP socket and one connection to a server.
//!
//! ```text
//!  workers, agent --UDP, loopback--> bridge --TCP or TLS--> TURN server
//! ```
//! For all of the datapath a server over a stream is one more UDP address, the bridge's on the
//! loopback interface: sealing, GSO, GRO and io_uring stay as they are. The bridge's socket is
//! connected to the node's, so that nobody else on the machine is heard.
//!
//! A bridge has a thread, which sleeps until it is told to connect, then makes the connection anew
//! whenever it breaks, ever more slowly. Datagrams out are put behind each other as the stream
//! wants them (`ipop_stun::stream`) in a queue of [`QUEUE_LEN_MAX`] bytes; what finds it full is
//! dropped whole and counted, as on any network. What comes in goes on at once, in rows of equal
//! length. An allocation lives as long as its connection, so the agent hears of each beginning and
//! end ([`BridgeEvent`]).
//!
//! [`pump`] moves the bytes, [`connection`] is TCP or TLS, [`trust`] whom TLS believes.

mod connection;
mod pump;
mod trust;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use self::connection::Connection;
use self::pump::{End, Pump};

/// Bytes that wait for the connection at most: 20 ms at 100 Mbit/s.
const QUEUE_LEN_MAX: usize = 256 * 1024;
/// Bytes that the kernel keeps for the bridge between two of its turns.
const RECEIVE_BUFFER_LEN: usize = 1 << 20;
/// From a failure to the next try; doubles with each failure in a row.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LONGEST: Duration = Duration::from_secs(10);
/// A server that was lost a moment ago may be back any moment: for so long after the first failure
/// in a row, pauses do not grow further.
const HOPE: Duration = Duration::from_secs(60);
const PAUSE_IN_HOPE: Duration = Duration::from_secs(1);
/// A connection that held for so long was a good one: pauses begin anew.
const GOOD_TIME: Duration = Duration::from_secs(20);

/// What a bridge is told once.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// The UDP address that it serves, on the loopback interface.
    pub node: SocketAddr,
    /// TLS, not plain TCP.
    pub tls: Option<BridgeTls>,
}

/// Whose certificate is believed.
#[derive(Clone, Debug)]
pub struct BridgeTls {
    /// The server's name or address, which its certificate has to be for.
    pub name: String,
    /// PEM file with the roots; the system's without one.
    pub ca_file: Option<PathBuf>,
}

/// What became of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeEvent {
    /// It stands.
    Connected,
    /// There is none, or none any more, and why, for a person; empty if that was wanted. Another
    /// try follows by itself.
    Lost(String),
}

/// What was counted since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeCounts {
    /// Connections that stood.
    pub connected: u64,
    /// Connections that could not be made.
    pub failed: u64,
    /// Datagrams for which the queue had no room.
    pub full: u64,
    /// Datagrams of ours that no stream carries.
    pub malformed: u64,
    /// Datagrams that the node's socket did not take.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Tallies {
    connected: AtomicU64,
    failed: AtomicU64,
    full: AtomicU64,
    malformed: AtomicU64,
    refused: AtomicU64,
}

fn add(tally: &AtomicU64, count: u64) {
    tally.fetch_add(count, Ordering::Relaxed);
}

enum Order {
    Connect(SocketAddr),
    Gone(Vec<IpAddr>),
}

/// A bridge; ends with its handle.
#[derive(Debug)]
pub struct Bridge {
    address: SocketAddr,
    orders: Option<Sender<Order>>,
    bell: Arc<OwnedFd>,
    tallies: Arc<Tallies>,
}

impl Bridge {
    /// Opens the UDP side and starts the thread, which connects nowhere yet. `tell` is called on
    /// that thread.
    ///
    /// # Errors
    /// When the system gives no socket or thread.
    pub fn start(
        config: BridgeConfig,
        tell: impl Fn(BridgeEvent) + Send + 'static,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::new(config.node.ip(), 0))?;
        socket.connect(config.node)?;
        let address = socket.local_addr()?;
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, orders) = channel();
        let tallies = Arc::<Tallies>::default();
        let pump = Pump::new(socket, tallies.clone())?;
        let inside = Inside {
            config,
            pump,
            orders: Orders { orders, bell: bell.clone() },
            tallies: tallies.clone(),
            tell: Box::new(tell),
            home: None,
            target: None,
        };
        let thread = std::thread::Builder::new().name("bridge".to_owned());
        thread.spawn(move || inside.run())?;
        Ok(Self { address, orders: Some(sender), bell, tallies })
    }

    /// Where datagrams for the server go, and its own come from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects to this server and keeps connected to it, over whatever there is now. When the
    /// connection is lost, the server of the first call is tried again.
    pub fn connect(&self, to: SocketAddr) {
        self.order(Order::Connect(to));
    }

    /// The machine's addresses have changed: a connection from one that is gone is dead, and one
    /// that could not be made may be possible.
    pub fn note_gone(&self, gone: Vec<IpAddr>) {
        self.order(Order::Gone(gone));
    }

    /// What was counted since the last call.
    pub fn take_counts(&self) -> BridgeCounts {
        let take = |tally: &AtomicU64| tally.swap(0, Ordering::Relaxed);
        BridgeCounts {
            connected: take(&self.tallies.connected),
            failed: take(&self.tallies.failed),
            full: take(&self.tallies.full),
            malformed: take(&self.tallies.malformed),
            refused: take(&self.tallies.refused),
        }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
        self.ring();
    }

    fn ring(&self) {
        // A bell that cannot be rung any more has been rung.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.orders = None;
        self.ring();
    }
}

/// The thread's end of the handle.
struct Orders {
    orders: Receiver<Order>,
    bell: Arc<OwnedFd>,
}

impl Orders {
    fn take(&self) -> Result<Option<Order>, Stopped> {
        match self.orders.try_recv() {
            Ok(order) => Ok(Some(order)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Stopped),
        }
    }

    /// Makes the bell silent.
    fn hush(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// Sleeps until there is an order, or for so long.
    fn wait(&self, pause: Option<Duration>) {
        let pause = pause.and_then(|pause| Timespec::try_from(pause).ok());
        let mut fds = [PollFd::new(&*self.bell, PollFlags::IN)];
        if poll(&mut fds, pause.as_ref()).is_ok_and(|ready| ready > 0) {
            self.hush();
        }
    }
}

/// The handle is gone.
#[derive(Debug)]
struct Stopped;

/// What the thread owns.
struct Inside {
    config: BridgeConfig,
    pump: Pump,
    orders: Orders,
    tallies: Arc<Tallies>,
    tell: Box<dyn Fn(BridgeEvent) + Send>,
    /// The server of the first order.
    home: Option<SocketAddr>,
    /// Where to connect now.
    target: Option<SocketAddr>,
}

impl Inside {
    fn run(mut self) {
        // Ends with the handle.
        let Err(Stopped) = self.keep_connected();
    }

    fn keep_connected(&mut self) -> Result<std::convert::Infallible, Stopped> {
        let mut pause = PAUSE_FIRST;
        let mut failing_since = Instant::now();
        loop {
            let Some(to) = self.target else {
                self.orders.wait(None);
                self.obey()?;
                continue;
            };
            let begin = Instant::now();
            let text = match self.serve(to) {
                End::Stopped => return Err(Stopped),
                End::Redirected => {
                    (self.tell)(BridgeEvent::Lost(String::new()));
                    continue;
                }
                End::Again => continue,
                End::Lost(text) => text,
            };
            tracing::debug!("the connection to {to}: {text}");
            (self.tell)(BridgeEvent::Lost(text));
            self.target = self.home;
            if begin.elapsed() >= GOOD_TIME {
                pause = PAUSE_FIRST;
            }
            if pause == PAUSE_FIRST {
                failing_since = Instant::now();
            }
            self.rest(pause)?;
            let is_fresh = failing_since.elapsed() < HOPE;
            pause = (pause * 2).min(if is_fresh { PAUSE_IN_HOPE } else { PAUSE_LONGEST });
        }
    }

    /// A connection from its beginning to its end.
    fn serve(&mut self, to: SocketAddr) -> End {
        match Connection::make(to, self.config.tls.as_ref(), &self.orders.bell) {
            Ok(Some(connection)) => {
                add(&self.tallies.connected, 1);
                // What is left from before is of an allocation that is no more.
                self.pump.discard();
                (self.tell)(BridgeEvent::Connected);
                self.pump.run(connection, &self.orders.bell, &mut |local| {
                    self.orders.hush();
                    loop {
                        match self.orders.take() {
                            Err(Stopped) => return Some(End::Stopped),
                            Ok(None) => return None,
                            Ok(Some(Order::Connect(other))) if other != to => {
                                self.target = Some(other);
                                return Some(End::Redirected);
                            }
                            Ok(Some(Order::Gone(gone))) if gone.contains(&local) => {
                                let text = format!("the connection's address {local} is gone");
                                return Some(End::Lost(text));
                            }
                            Ok(Some(_)) => {}
                        }
                    }
                })
            }
            // An order came first.
            Ok(None) => {
                self.orders.hush();
                match self.obey() {
                    Err(Stopped) => End::Stopped,
                    Ok(()) => End::Again,
                }
            }
            Err(text) => {
                add(&self.tallies.failed, 1);
                End::Lost(text)
            }
        }
    }

    /// Waits before the next try, unless an order or a change of the network is a reason for one.
    fn rest(&mut self, pause: Duration) -> Result<(), Stopped> {
        // Nodes that lost the same server do not come back all at once.
        let percent = 75 + u32::from(self.config.node.port() % 50);
        self.orders.wait(Some(pause * percent / 100));
        self.obey()
    }

    fn obey(&mut self) -> Result<(), Stopped> {
        while let Some(order) = self.orders.take()? {
            if let Order::Connect(to) = order {
                self.home.get_or_insert(to);
                self.target = Some(to);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
