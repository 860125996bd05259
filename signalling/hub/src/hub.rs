//! The hub as a whole: what it listens on, its ticket, its beginning and its end.

use crate::accounts::{self, Accounts};
use crate::addresses;
use crate::connection::Clients;
use crate::error::HubError;
use crate::files;
use crate::listen;
use crate::login::Door;
use crate::relay::{Policy, Relay, RelaySockets};
use crate::router::Router;
use crate::services::{RelayKey, Services};
use crate::state::State;
use crate::ticket::Ticket;
use ipop_signal::HostPort;
use jid::BareJid;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Connections at a time, those that are not logged in included.
const CONNECTIONS_MAX: usize = 8192;
/// Beyond those, so many at a time hear why they are turned away; others just are.
const TURNED_AWAY_MAX: usize = 256;
/// For all clients to hear that the hub stops.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);
/// After an accept that failed, for lack of file descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a hub has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// Where XMPP, and TURN over TCP, are served; `[::]` means both families. Port 0 takes a free
    /// one.
    pub listen: SocketAddr,
    /// UDP port of STUN and TURN at the same address. Port 0 takes a free one.
    pub stun_port: u16,
    /// The XMPP domain. It need not exist in DNS: tickets carry addresses.
    pub domain: String,
    /// The group's room, without domain.
    pub room: String,
    /// Directory for keys and accounts; made when it is not there.
    pub state: PathBuf,
    /// Where the ticket is written (mode 0600) once everything listens.
    pub ticket_file: Option<PathBuf>,
    /// Addresses (`host` or `host:port`) for the ticket in place of those of the interfaces, and
    /// for STUN and TURN.
    pub advertise: Vec<String>,
    /// Addresses under which peers see this machine, where a NAT maps them to its own with all
    /// ports kept; at most one of each family. Relay addresses are then these.
    pub relay_addresses: Vec<IpAddr>,
    /// Whether users may have data relayed to private addresses (RFC 1918, RFC 6598, RFC 4193).
    pub allow_private_peers: bool,
}

impl HubConfig {
    /// The usual ports on all addresses, the domain `ipop.internal` and the room `ipop`.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([0u16; 8], 5222)),
            stun_port: crate::STUN_PORT,
            domain: "ipop.internal".to_owned(),
            room: "ipop".to_owned(),
            state: state.into(),
            ticket_file: None,
            advertise: Vec::new(),
            relay_addresses: Vec::new(),
            allow_private_peers: true,
        }
    }
}

/// A hub whose sockets are bound. Nobody is served before [`Hub::run`].
pub struct Hub {
    listeners: Vec<TcpListener>,
    relay: RelaySockets,
    clients: Arc<Clients>,
    ticket: Ticket,
    address: SocketAddr,
    stun_port: u16,
}

impl Hub {
    /// Reads or makes the state, binds all sockets and writes the ticket. Needs a Tokio runtime
    /// with its time and I/O drivers enabled; a current-thread runtime will do.
    ///
    /// # Errors
    /// [`HubError`] for whatever keeps the hub from serving.
    pub async fn bind(config: HubConfig) -> Result<Self, HubError> {
        let (domain, room) = names(&config)?;
        let state = State::open(&config.state, &domain)?;
        raise_file_limit();
        let sockets = Sockets::bind(&config)?;
        let advertised = advertised(&config.advertise, sockets.address.port())?;
        let ticket = Ticket {
            addresses: reachable(sockets.address, &advertised),
            certificate: state.leaf_sha256(),
            secret: state.secret,
            room,
            domain: domain.clone(),
        };
        let key = RelayKey::new(&state.relay_key);
        let port = sockets.address.port();
        let services = Services::new(key.clone(), advertised, sockets.stun_port, port);
        let door = Door {
            domain: domain.clone(),
            tls: TlsAcceptor::from(state.tls()?),
            accounts: Accounts::new(state.secret, config.state.clone()),
        };
        let Sockets { listeners, udp, address, stun_port } = sockets;
        let policy = policy(&config, &[address.port(), stun_port]);
        let relay = Relay::new(key, &domain, policy, Instant::now());
        let relay = RelaySockets::new(relay, udp, config.relay_addresses)
            .map_err(|error| HubError::Configuration(format!("cannot use UDP: {error}")))?;
        if let Some(path) = &config.ticket_file {
            files::write(path, format!("{ticket}\n").as_bytes()).map_err(of_ticket)?;
        }
        let router = Router::new(&domain, services);
        let clients = Arc::new(Clients::new(door, router, relay.handle()));
        Ok(Self { listeners, relay, clients, ticket, address, stun_port })
    }

    /// What nodes need to join.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Where XMPP is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// UDP port of STUN and TURN.
    pub fn stun_port(&self) -> u16 {
        self.stun_port
    }

    /// Serves until `shutdown` resolves, then says goodbye to everybody.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        let mut relay = std::pin::pin!(self.relay.run());
        tracing::info!(address = %self.address, domain = %self.ticket.domain, "the hub serves");
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                () = &mut relay => {}
                accepted = accept(&self.listeners) => {
                    let (tcp, remote) = accepted;
                    let clients = self.clients.clone();
                    let count = connections.len();
                    if count < CONNECTIONS_MAX {
                        connections.spawn(async move { clients.serve(tcp, remote).await });
                        continue;
                    }
                    tracing::warn!(%remote, "turned away: {CONNECTIONS_MAX} connections");
                    if count < CONNECTIONS_MAX + TURNED_AWAY_MAX {
                        connections.spawn(async move { clients.turn_away(tcp).await });
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
        drop(self.listeners);
        tracing::info!(clients = self.clients.count(), "the hub stops");
        self.clients.shutdown();
        let goodbye = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(SHUTDOWN_PATIENCE, goodbye).await;
        connections.shutdown().await;
    }

    /// Makes an account for a standard client, or finds it; its password. The hub, which must have
    /// been started once on this state directory, need not be told.
    ///
    /// # Errors
    /// [`HubError`] when the name cannot be an account or the state cannot be read or written.
    pub fn add_account(state: &Path, name: &str) -> Result<String, HubError> {
        accounts::add(state, name)
    }
}

/// Everything that a hub listens on.
struct Sockets {
    listeners: Vec<TcpListener>,
    udp: Vec<std::net::UdpSocket>,
    address: SocketAddr,
    stun_port: u16,
}

impl Sockets {
    fn bind(config: &HubConfig) -> Result<Self, HubError> {
        let listeners = listen::tcp(config.listen)?;
        let udp = listen::udp(SocketAddr::new(config.listen.ip(), config.stun_port))?;
        let address = listeners.first().and_then(|listener| listener.local_addr().ok());
        let stun = udp.first().and_then(|socket| socket.local_addr().ok());
        Ok(Self {
            listeners,
            udp,
            address: address.unwrap_or(config.listen),
            stun_port: stun.map_or(config.stun_port, |stun| stun.port()),
        })
    }
}

fn of_ticket(error: HubError) -> HubError {
    match error {
        HubError::File { path, source, .. } => HubError::TicketFile { path, source },
        other => other,
    }
}

fn policy(config: &HubConfig, service_ports: &[u16]) -> Policy {
    let own = addresses::own().into_iter().chain(config.relay_addresses.iter().copied());
    Policy {
        allow_private: config.allow_private_peers,
        own: own.collect(),
        service_ports: service_ports.to_vec(),
        broadcast: addresses::broadcast(),
    }
}

/// Domain and room as addresses write them.
fn names(config: &HubConfig) -> Result<(String, String), HubError> {
    let domain = BareJid::new(&config.domain).ok().filter(|jid| jid.node().is_none());
    let fits = |name: &String| name.len() <= crate::ticket::NAME_LEN_MAX;
    let domain = domain.map(|jid| jid.to_string()).filter(|domain| domain.is_ascii());
    let domain = domain.filter(fits);
    let domain = domain.ok_or_else(|| {
        HubError::Configuration(format!(
            "{:?} cannot be a domain: use a DNS name such as ipop.internal",
            config.domain
        ))
    })?;
    let room = BareJid::new(&format!("{}@{domain}", config.room)).ok();
    let room = room.and_then(|jid| jid.node().map(ToString::to_string));
    let room = room.filter(fits).ok_or_else(|| {
        let text = format!("{:?} cannot be a room: use a word such as ipop", config.room);
        HubError::Configuration(text)
    })?;
    Ok((domain, room))
}

fn advertised(texts: &[String], port: u16) -> Result<Vec<HostPort>, HubError> {
    let read = |text: &String| {
        addresses::parse(text, port).ok_or_else(|| {
            HubError::Configuration(format!(
                "{text:?} is no address to advertise: write host, host:port or [v6]:port"
            ))
        })
    };
    texts.iter().map(read).collect()
}

/// At least something, if only for those on this machine.
fn reachable(address: SocketAddr, advertised: &[HostPort]) -> Vec<HostPort> {
    let mut found = addresses::reachable(address, advertised);
    found.truncate(crate::ticket::ADDRESSES_MAX);
    if found.is_empty() {
        tracing::warn!("this machine has no address that others could reach: the ticket is local");
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
        found = addresses::reachable(local, &[]);
    }
    found
}

/// Each client takes a file descriptor, and each relay address another; the usual limit of 1024
/// is for programs that use `select`.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

/// The next connection at any listener.
async fn accept(listeners: &[TcpListener]) -> (TcpStream, SocketAddr) {
    loop {
        let accepted = match listeners {
            [first, second] => tokio::select! {
                accepted = first.accept() => accepted,
                accepted = second.accept() => accepted,
            },
            [only, ..] => only.accept().await,
            [] => std::future::pending().await,
        };
        match accepted {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
