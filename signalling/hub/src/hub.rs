//! The hub as a whole: what it listens on, its ticket, its beginning and its end.

use crate::accounts::{self, Accounts};
use crate::addresses;
use crate::connection::Clients;
use crate::error::HubError;
use crate::files;
use crate::login::Door;
use crate::router::Router;
use crate::services::{RelayKey, Services};
use crate::state::State;
use crate::ticket::Ticket;
use ipop_signal::HostPort;
use jid::BareJid;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Connections at a time, those that are not logged in included.
const CONNECTIONS_MAX: usize = 8192;
const BACKLOG: i32 = 1024;
/// For all clients to hear that the hub stops.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);
/// After an accept that failed, for lack of file descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a hub has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// Where XMPP is served over TCP; `[::]` means both families. Port 0 takes a free one.
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
    /// Addresses (`host` or `host:port`) for the ticket in place of those of the interfaces.
    pub advertise: Vec<String>,
}

impl HubConfig {
    /// The usual ports on all addresses, the domain `ipop.internal` and the room `ipop`.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([0u16; 8], 5222)),
            stun_port: 3478,
            domain: "ipop.internal".to_owned(),
            room: "ipop".to_owned(),
            state: state.into(),
            ticket_file: None,
            advertise: Vec::new(),
        }
    }
}

/// A hub whose sockets are bound. Nobody is served before [`Hub::run`].
pub struct Hub {
    listeners: Vec<TcpListener>,
    clients: Arc<Clients>,
    ticket: Ticket,
    address: SocketAddr,
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
        let listeners = listen(config.listen)?;
        let address = listeners[0].local_addr().map_err(|e| listen_error(config.listen, e))?;
        let advertised = advertised(&config.advertise, address.port())?;
        let key = RelayKey::new(&state.secret);
        let hosts = advertised.iter().map(|at| at.host.clone()).collect();
        let services = Services::new(key, hosts, config.stun_port);
        let door = Door {
            domain: domain.clone(),
            tls: TlsAcceptor::from(state.tls()?),
            accounts: Accounts::new(state.secret, config.state.clone()),
        };
        let ticket = Ticket {
            addresses: reachable(address, &advertised),
            certificate: state.leaf_sha256(),
            secret: state.secret,
            room,
            domain: domain.clone(),
        };
        if let Some(path) = &config.ticket_file {
            files::write(path, format!("{ticket}\n").as_bytes())?;
        }
        let clients = Arc::new(Clients::new(door, Router::new(&domain, services)));
        Ok(Self { listeners, clients, ticket, address })
    }

    /// What nodes need to join.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Where XMPP is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves, then says goodbye to everybody.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        tracing::info!(address = %self.address, domain = %self.ticket.domain, "the hub serves");
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = accept(&self.listeners) => {
                    let (tcp, remote) = accepted;
                    if connections.len() >= CONNECTIONS_MAX {
                        tracing::warn!(%remote, "turned away: {CONNECTIONS_MAX} connections");
                        continue;
                    }
                    let clients = self.clients.clone();
                    connections.spawn(async move { clients.serve(tcp, remote).await });
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

/// Domain and room as addresses write them.
fn names(config: &HubConfig) -> Result<(String, String), HubError> {
    let domain = BareJid::new(&config.domain).ok().filter(|jid| jid.node().is_none());
    let domain = domain.map(|jid| jid.to_string()).filter(|domain| domain.is_ascii());
    let domain = domain.ok_or_else(|| {
        HubError::Configuration(format!(
            "{:?} cannot be a domain: use a DNS name such as ipop.internal",
            config.domain
        ))
    })?;
    let room = BareJid::new(&format!("{}@{domain}", config.room)).ok();
    let room = room.and_then(|jid| jid.node().map(ToString::to_string)).ok_or_else(|| {
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

/// One listener per family; `[::]` stands for both.
fn listen(address: SocketAddr) -> Result<Vec<TcpListener>, HubError> {
    let (SocketAddr::V6(_), true) = (address, address.ip().is_unspecified()) else {
        return Ok(vec![listener(address).map_err(|e| listen_error(address, e))?]);
    };
    let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
    match listener(address) {
        Ok(v6) => {
            let port = v6.local_addr().map_or(address.port(), |bound| bound.port());
            let v4 = SocketAddr::new(v4.ip(), port);
            Ok(vec![v6, listener(v4).map_err(|e| listen_error(v4, e))?])
        }
        // Without IPv6 in the kernel, or with it switched off.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            tracing::info!(%error, "IPv4 only");
            Ok(vec![listener(v4).map_err(|e| listen_error(v4, e))?])
        }
        Err(error) => Err(listen_error(address, error)),
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

pub(crate) fn listen_error(address: SocketAddr, source: io::Error) -> HubError {
    let remedy = match source.kind() {
        io::ErrorKind::AddrInUse => {
            "Something listens there already: stop it, or choose another address with --listen"
        }
        io::ErrorKind::AddrNotAvailable => {
            "This machine does not have that address: choose another with --listen"
        }
        io::ErrorKind::PermissionDenied => {
            "Ports below 1024 take CAP_NET_BIND_SERVICE: choose a higher one with --listen"
        }
        _ => "Choose another address with --listen",
    };
    HubError::Listen { protocol: "TCP", address, source, remedy }
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
