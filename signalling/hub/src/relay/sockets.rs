//! The relay's sockets: batches in, the machine, datagrams out.
//!
//! One lock, one set of buffers, one task per socket; on a current-thread runtime the lock is never
//! contended. What a full socket does not take is dropped, as networks do.

use super::run::Run;
use super::streams::Outlet;
use super::{Datagram, Now, Output, Place, Relay, RelayId, StreamId};
use crate::addresses;
use crate::listen;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{MissedTickBehavior, interval};
use turn_server_proto::api::SocketAllocateError;

/// The kernel may hand over that much at once (GRO).
const BUFFER_LEN: usize = 64 * 1024;
/// After so many batches others have their turn.
const BATCHES_MAX: usize = 8;
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at the machine's addresses.
const ADDRESSES_TICKS: u32 = 60;

/// The relay at work.
pub(crate) struct RelaySockets(Arc<Mutex<Core>>);

/// How connections over TCP get to the relay.
#[derive(Clone)]
pub(crate) struct RelayHandle(Weak<Mutex<Core>>);

struct Core {
    relay: Relay,
    /// Where clients come to.
    fronts: Vec<Arc<Endpoint>>,
    /// Where peers are reached from.
    backs: HashMap<RelayId, Back>,
    /// What waits for clients over TCP.
    streams: HashMap<StreamId, Arc<Outlet>>,
    streams_count: u64,
    /// Bytes that wait for all of them.
    streams_len: Arc<AtomicUsize>,
    /// Under which addresses others see this machine, where they differ from its own.
    external: Vec<IpAddr>,
    buffers: Vec<Box<[u8]>>,
    /// What leaves in one call.
    run: Run,
    tasks: JoinSet<()>,
    own: Weak<Mutex<Core>>,
}

struct Back {
    endpoint: Arc<Endpoint>,
    task: AbortHandle,
}

pub(super) struct Endpoint {
    socket: UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
}

/// Whose datagrams a socket gets.
#[derive(Clone, Copy)]
enum Side {
    Clients,
    Peers(RelayId),
}

impl RelaySockets {
    /// Puts a relay behind bound sockets. Needs a Tokio runtime.
    pub(crate) fn new(
        relay: Relay,
        sockets: Vec<std::net::UdpSocket>,
        external: Vec<IpAddr>,
    ) -> io::Result<Self> {
        let fronts: io::Result<Vec<_>> = sockets.into_iter().map(Endpoint::new).collect();
        let fronts: Vec<_> = fronts?.into_iter().map(Arc::new).collect();
        let buffers = (0..BATCH_SIZE).map(|_| vec![0; BUFFER_LEN].into_boxed_slice()).collect();
        let core = Arc::new_cyclic(|own| {
            Mutex::new(Core {
                relay,
                fronts,
                backs: HashMap::new(),
                streams: HashMap::new(),
                streams_count: 0,
                streams_len: Arc::default(),
                external,
                buffers,
                run: Run::default(),
                tasks: JoinSet::new(),
                own: own.clone(),
            })
        });
        Ok(Self(core))
    }

    /// For connections over TCP.
    pub(crate) fn handle(&self) -> RelayHandle {
        RelayHandle(Arc::downgrade(&self.0))
    }

    /// Works for as long as it is polled.
    pub(crate) async fn run(self) {
        {
            let mut core = lock(&self.0);
            for front in core.fronts.clone() {
                let own = core.own.clone();
                core.tasks.spawn(serve(own, front, Side::Clients));
            }
        }
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for count in 0u32.. {
            ticks.tick().await;
            lock(&self.0).tick(count);
        }
    }
}

impl RelayHandle {
    /// A place for a connection, and what waits for it; none when the relay has ended.
    pub(super) fn enter(&self, remote: SocketAddr, local: IpAddr) -> Option<(Place, Arc<Outlet>)> {
        let core = self.0.upgrade()?;
        let mut core = lock(&core);
        core.streams_count += 1;
        let stream = StreamId(core.streams_count);
        let outlet = Arc::new(Outlet::new(core.streams_len.clone()));
        core.streams.insert(stream, outlet.clone());
        let local = local.to_canonical();
        Some((Place { remote, local, stream: Some(stream) }, outlet))
    }

    /// The connection is gone.
    pub(super) fn leave(&self, place: Place) {
        let Some(core) = self.0.upgrade() else { return };
        let mut core = lock(&core);
        place.stream.map(|stream| core.streams.remove(&stream));
        core.relay.leave(place);
        core.settle();
    }

    /// Takes messages of a client; whether it has an allocation now.
    pub(super) fn take<'a>(&self, place: Place, messages: impl Iterator<Item = &'a [u8]>) -> bool {
        let Some(core) = self.0.upgrade() else { return false };
        let mut core = lock(&core);
        let now = now();
        for message in messages {
            let Core { relay, fronts, backs, streams, run, .. } = &mut *core;
            let sent = relay.handle_client(now, place, message);
            send(fronts, backs, streams, run, sent);
            core.settle();
        }
        core.run.flush();
        core.relay.has_allocation(place)
    }
}

async fn serve(core: Weak<Mutex<Core>>, endpoint: Arc<Endpoint>, side: Side) {
    while endpoint.socket.readable().await.is_ok() {
        let Some(core) = core.upgrade() else { return };
        lock(&core).drain(&endpoint, side);
        drop(core);
        yield_now().await;
    }
}

impl Core {
    /// Takes what a socket has, within limits.
    fn drain(&mut self, endpoint: &Endpoint, side: Side) {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        for _ in 0..BATCHES_MAX {
            let received = endpoint.receive(&mut self.buffers, &mut metas);
            let Ok(count) = received else { return };
            let now = now();
            for (at, meta) in metas.iter().enumerate().take(count) {
                self.take(endpoint, side, now, at, meta);
            }
            self.settle();
        }
    }

    fn take(&mut self, endpoint: &Endpoint, side: Side, now: Now, at: usize, meta: &RecvMeta) {
        let Self { relay, fronts, backs, buffers, streams, run, .. } = self;
        let Some(bytes) = buffers[at].get(..meta.len) else { return };
        let local = meta.dst_ip.unwrap_or(endpoint.address.ip());
        let place = Place { remote: meta.addr, local, stream: None };
        for datagram in bytes.chunks(meta.stride.max(1)) {
            let sent = match side {
                Side::Clients => relay.handle_client(now, place, datagram),
                Side::Peers(id) => relay.handle_peer(now.at, id, meta.addr, datagram),
            };
            send(fronts, backs, streams, run, sent);
        }
        run.flush();
    }

    fn tick(&mut self, count: u32) {
        if count.is_multiple_of(ADDRESSES_TICKS) {
            let own = addresses::own().into_iter().chain(self.external.iter().copied());
            self.relay.policy.own = own.collect();
            self.relay.policy.broadcast = addresses::broadcast();
        }
        self.relay.handle_timeout(Instant::now());
        self.settle();
    }

    /// Carries out what the relay wants beside sending data.
    fn settle(&mut self) {
        while let Some(output) = self.relay.poll_output() {
            match output {
                Output::Reply(place, data) => reply(&self.fronts, &self.streams, place, &data),
                Output::Open { relay, place, ipv6 } => self.open(relay, place, ipv6),
                Output::Close(relay) => {
                    if let Some(back) = self.backs.remove(&relay) {
                        back.task.abort();
                    }
                }
            }
        }
        while self.tasks.try_join_next().is_some() {}
    }

    fn open(&mut self, relay: RelayId, place: Place, ipv6: bool) {
        let opened = self.relay_socket(place, ipv6);
        let address = match opened {
            Ok((endpoint, address)) => {
                let endpoint = Arc::new(endpoint);
                let serve = serve(self.own.clone(), endpoint.clone(), Side::Peers(relay));
                let task = self.tasks.spawn(serve);
                self.backs.insert(relay, Back { endpoint, task });
                Ok(address)
            }
            // Not news: whoever wants both families asks for the one that is missing, too.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                Err(SocketAllocateError::AddressFamilyNotSupported)
            }
            Err(error) => {
                tracing::warn!(%error, ipv6, "cannot open a relay socket");
                Err(SocketAllocateError::InsufficientCapacity)
            }
        };
        self.relay.opened(Instant::now(), relay, address);
    }

    /// A socket at the address that the client came to, or at another of the wanted family; and
    /// its address as peers see it.
    fn relay_socket(&self, place: Place, ipv6: bool) -> io::Result<(Endpoint, SocketAddr)> {
        let external = self.external.iter().find(|ip| ip.is_ipv6() == ipv6);
        let local = match external {
            Some(_) if ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            Some(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            None => relay_address(place.local, ipv6).ok_or(io::ErrorKind::AddrNotAvailable)?,
        };
        let endpoint = Endpoint::new(listen::udp_socket(SocketAddr::new(local, 0))?)?;
        let address = SocketAddr::new(*external.unwrap_or(&local), endpoint.address.port());
        Ok((endpoint, address))
    }
}

impl Endpoint {
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let address = socket.local_addr()?;
        Ok(Self { socket: UdpSocket::from_std(socket)?, state, address })
    }

    fn receive(
        &self,
        buffers: &mut [Box<[u8]>],
        metas: &mut [RecvMeta; BATCH_SIZE],
    ) -> io::Result<usize> {
        let mut buffers = buffers.iter_mut();
        let mut slices: [_; BATCH_SIZE] = std::array::from_fn(|_| {
            IoSliceMut::new(buffers.next().map_or(&mut [], |buffer| &mut buffer[..]))
        });
        self.socket.try_io(Interest::READABLE, || {
            self.state.recv(UdpSockRef::from(&self.socket), &mut slices, metas)
        })
    }

    /// Datagrams that the kernel cuts from one piece of data at a time.
    pub(super) fn run_max(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends data as one datagram, or as datagrams of `part` bytes.
    pub(super) fn send(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        data: &[u8],
        part: Option<usize>,
    ) {
        let from = from.filter(|from| !from.is_unspecified());
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: data,
            segment_size: part,
            src_ip: from,
        };
        if let Err(error) = self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            tracing::trace!(%to, %error, "a datagram was dropped");
        }
    }
}

/// The address that the client came to, unless it is of the wrong family or of use on this machine
/// only; then another of ours.
fn relay_address(reached: IpAddr, ipv6: bool) -> Option<IpAddr> {
    let fits = |ip: &IpAddr| ip.is_ipv6() == ipv6;
    if fits(&reached) && addresses::is_routable(&reached) {
        return Some(reached);
    }
    let other = addresses::lendable().into_iter().find(fits);
    other.or_else(|| Some(reached).filter(fits))
}

fn send(
    fronts: &[Arc<Endpoint>],
    backs: &HashMap<RelayId, Back>,
    streams: &HashMap<StreamId, Arc<Outlet>>,
    run: &mut Run,
    datagram: Option<Datagram<'_>>,
) {
    match datagram {
        None => {}
        Some(Datagram::ToClient(place @ Place { stream: Some(_), .. }, data)) => {
            reply(fronts, streams, place, data);
        }
        Some(Datagram::ToClient(place, data)) => {
            if let Some(front) = front_of(fronts, place) {
                run.add(front, place.remote, Some(place.local), data);
            }
        }
        Some(Datagram::ToPeer(id, to, data)) => {
            if let Some(back) = backs.get(&id) {
                run.add(&back.endpoint, to, None, data);
            }
        }
    }
}

fn front_of(fronts: &[Arc<Endpoint>], place: Place) -> Option<&Arc<Endpoint>> {
    fronts.iter().find(|front| front.address.is_ipv6() == place.remote.is_ipv6())
}

fn reply(
    fronts: &[Arc<Endpoint>],
    streams: &HashMap<StreamId, Arc<Outlet>>,
    place: Place,
    data: &[u8],
) {
    if let Some(stream) = place.stream {
        if let Some(outlet) = streams.get(&stream) {
            outlet.push(data);
        }
        return;
    }
    if let Some(front) = front_of(fronts, place) {
        front.send(place.remote, Some(place.local), data, None);
    }
}

fn now() -> Now {
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { at: Instant::now(), unix_s }
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}
