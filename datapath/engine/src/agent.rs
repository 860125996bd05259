//! The link agent: all that is not a packet. It owns the links' machine and the overlay interface,
//! obeys the controller, and orders the worker about.
//!
//! A turn is: notes of the worker, commands of the controller, timers, then the outputs of the
//! links' machine; then it sleeps at the control ring's bell, which the worker rings too.

mod commands;
mod outputs;
mod servers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipop_crypto::Fingerprint;
use ipop_link::{ControlInput, Datagram, Node, Refused};
use ipop_shm::{Consumer, ErrorLog, Holder, WorkerCounters};
use ipop_steer::{Counter, DropReason, Event, Request};
use ipop_wire::LinkIndex;

use self::servers::Bridges;
use crate::addresses::host_addresses;
use crate::auto_mtu::carried;
use crate::clock::unix_ms;
use crate::exchange::{FromWorker, LinkReport, NoteInbox, Orders, ToWorker};
use crate::interface::Interface;
use crate::journal::Journal;
use crate::mappings::Mappings;
use crate::network::Network;
use crate::note::Note;
use crate::overflows::Overflows;
use crate::rows::{Carried, PeerView, Rows};
use crate::spares::Spares;
use crate::steering::{Events, Refusal};
use crate::workers::Sockets;

/// How often the worker reports and the link table is brought up to date.
const REPORT_PAUSE: Duration = Duration::from_millis(500);
/// How often the machine's addresses are looked at when the kernel does not tell of changes, and
/// when it does, which it might fail to.
const HOSTS_PAUSE: Duration = Duration::from_secs(2);
const HOSTS_PAUSE_WATCHED: Duration = Duration::from_secs(30);
/// From one word to the controller that the network has moved to the next.
const MOVES_PAUSE: Duration = Duration::from_secs(2);
/// When a new route is announced to the host once more: for a second after a change the kernel
/// believes nobody who says that an address has moved.
const ANNOUNCE_AGAIN: Duration = Duration::from_millis(1500);
/// Notes and commands handled in one turn at most.
const INPUTS_PER_TURN: usize = 256;
/// How often sockets that no worker reads are looked at.
const SPARES_PAUSE: Duration = Duration::from_millis(5);
/// How long goodbyes have to leave before the worker is stopped.
const GOODBYE_TIME: Duration = Duration::from_millis(20);

/// What the agent is made of.
pub(crate) struct Parts {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) mac: [u8; 6],
    pub(crate) node: Node,
    /// The first worker's, which candidates name.
    pub(crate) sockets: Sockets,
    /// The other workers'.
    pub(crate) lane_sockets: Vec<Sockets>,
    pub(crate) interface: Interface,
    pub(crate) note: Note,
    /// To each worker; worker k carries lane k.
    pub(crate) orders: Vec<Orders>,
    pub(crate) notes: NoteInbox,
    pub(crate) network: Network,
    pub(crate) mappings: Mappings,
    pub(crate) commands: Consumer,
    pub(crate) events: Events,
    pub(crate) rows: Rows,
    pub(crate) errors: ErrorLog,
    pub(crate) journal: Journal,
    pub(crate) counters: WorkerCounters,
    pub(crate) holder: Holder,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Parts {
    /// Those of all workers, the first one's first.
    fn all_sockets(&self) -> impl Iterator<Item = &Sockets> {
        std::iter::once(&self.sockets).chain(&self.lane_sockets)
    }
}

/// What is known of a peer beside its link.
#[derive(Default)]
struct Peer {
    name: String,
    routes: Vec<(IpAddr, u8)>,
    carried: Carried,
}

/// See the head of this file.
pub(crate) struct Agent {
    parts: Parts,
    peers: BTreeMap<Fingerprint, Peer>,
    /// Whose each session is.
    sessions: BTreeMap<u32, Fingerprint>,
    /// The channel that each session's control frames take.
    channels: BTreeMap<u32, Option<u16>>,
    /// Orders that found a worker's queue full, and which.
    backlog: VecDeque<(u8, ToWorker)>,
    /// Hardware addresses of peers whose routes are to be announced again, and when.
    announcements: Vec<(Instant, [u8; 6])>,
    hosts: BTreeSet<SocketAddr>,
    bridges: Bridges,
    /// Sockets beside those of the workers.
    spares: Spares,
    overflows: Overflows,
    next_report: Instant,
    next_hosts: Instant,
    /// The network has moved and the controller does not know, and when it may be told.
    has_moved: bool,
    next_moved: Instant,
    /// Workers that have ended.
    ended_count: usize,
    /// Why one did, unless it was told to.
    failure: Option<String>,
}

impl Agent {
    pub(crate) fn new(parts: Parts, now: Instant) -> Self {
        let bridges = Bridges::new(parts.commands.ringer());
        Self {
            parts,
            bridges,
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            channels: BTreeMap::new(),
            backlog: VecDeque::new(),
            announcements: Vec::new(),
            hosts: BTreeSet::new(),
            spares: Spares::default(),
            overflows: Overflows::default(),
            next_report: now,
            next_hosts: now,
            has_moved: false,
            next_moved: now,
            ended_count: 0,
            failure: None,
        }
    }

    /// Runs until told to stop, or the worker ends; the text says why it did.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let (fingerprint, mac) = (self.parts.fingerprint, self.parts.mac);
        let interface = self.parts.interface.name().to_owned();
        let fingerprint = ipop_steer::Fingerprint(fingerprint.0);
        self.publish(&Event::Ready { fingerprint, mac, interface });
        while !self.parts.stop.load(Ordering::Relaxed) && self.ended_count == 0 {
            let is_busy = self.turn(Instant::now());
            if !is_busy {
                self.sleep();
            }
        }
        self.leave();
        self.failure.map_or(Ok(()), Err)
    }

    /// One turn; whether there is more to do at once.
    fn turn(&mut self, now: Instant) -> bool {
        let mut handled = 0;
        while handled < INPUTS_PER_TURN {
            let Some((worker, note)) = self.parts.notes.take() else { break };
            self.on_note(now, worker, note);
            handled += 1;
        }
        handled += self.take_commands(now);
        self.heed_bridges(now);
        self.read_spares(now);
        let change = self.parts.network.take();
        if now >= self.next_hosts || change.is_some_and(|change| change.addresses) {
            let is_watched = self.parts.network.is_watching();
            self.next_hosts = now + if is_watched { HOSTS_PAUSE_WATCHED } else { HOSTS_PAUSE };
            self.look_at_hosts(now);
        }
        if change.is_some_and(|change| change.addresses) {
            self.parts.node.note_routes_changed(now);
            self.parts.mappings.look_again();
            self.has_moved = true;
        }
        self.tell_of_moves(now);
        if let Some(mapping) = self.parts.mappings.take() {
            self.parts.node.set_mapping(now, mapping);
        }
        if change.is_some_and(|change| change.mtus) {
            self.parts.node.note_network_changed(now);
        }
        if self.parts.node.poll_timeout().is_some_and(|at| at <= now) {
            self.parts.node.handle_timeout(now);
        }
        self.carry_out();
        if now >= self.next_report {
            self.next_report = now + REPORT_PAUSE;
            self.parts.holder.beat(unix_ms());
            self.show_links();
            self.follow_links(now);
            self.count_bridges();
            self.count_overflows();
            self.announce_again(now);
            self.drop_spares();
            self.order_all(|| ToWorker::Report);
        }
        self.flush_orders();
        handled >= INPUTS_PER_TURN
    }

    /// Counts what the kernel dropped.
    fn count_overflows(&mut self) {
        let datagrams = self.parts.all_sockets().map(Sockets::overflows).sum();
        let (frames, datagrams) = self.overflows.more(self.parts.interface.overflows(), datagrams);
        self.parts.counters.add(DropReason::InterfaceFull.slot(), frames);
        self.parts.counters.add(DropReason::SocketFull.slot(), datagrams);
    }

    fn sleep(&self) {
        let soon = match (self.backlog.is_empty(), self.spares.has_idle()) {
            (false, _) => Duration::from_millis(1),
            (true, true) => SPARES_PAUSE,
            (true, false) => REPORT_PAUSE,
        };
        let due = [Some(self.next_report), self.parts.node.poll_timeout()];
        let due = due.into_iter().flatten().min().unwrap_or(self.next_report);
        let pause = due.saturating_duration_since(Instant::now()).min(soon);
        if !pause.is_zero() {
            self.parts.commands.wait(pause);
        }
    }

    fn on_note(&mut self, now: Instant, worker: u8, note: FromWorker) {
        match note {
            // Only the first worker's sockets have candidates: nobody is asked to send these
            // elsewhere, but relays of further lanes answer there.
            FromWorker::Datagram { remote, .. }
                if worker != 0 && !self.parts.node.is_server(remote) =>
            {
                self.count_refused(Refused::Stranger);
            }
            FromWorker::Datagram { local, remote, data } => {
                self.on_datagram(now, local, remote, &data);
            }
            FromWorker::Control { index, local, remote, channel, data } => {
                let (local, data) = (self.local_end(local, &remote), data.as_slice());
                let input = ControlInput { index, lane: worker, local, remote, channel, data };
                if let Err(refused) = self.parts.node.handle_control(now, input) {
                    self.count_refused(refused);
                }
            }
            FromWorker::TooBig { index, datagram_len } => {
                self.parts.node.handle_too_big(now, index, datagram_len);
            }
            FromWorker::NoRoute(address) => self.publish(&Event::NoRoute { address }),
            FromWorker::Report(links) => self.learn(now, worker, links),
            FromWorker::Ended(reason) => self.on_ended(reason),
        }
    }

    fn on_ended(&mut self, reason: Option<String>) {
        self.ended_count += 1;
        self.failure = self.failure.take().or(reason);
    }

    fn on_datagram(&mut self, now: Instant, to: SocketAddr, remote: SocketAddr, data: &[u8]) {
        let Some(local) = self.local_end(to, &remote) else { return };
        if let Err(refused) = self.parts.node.handle_input(now, Datagram { local, remote, data }) {
            self.count_refused(refused);
        }
    }

    /// Takes what has come to sockets that were opened for one link; a worker reads those that an
    /// authentic check came to.
    fn read_spares(&mut self, now: Instant) {
        for received in self.spares.receive() {
            let (local, remote, data) = (received.local, received.remote, &received.data);
            match self.parts.node.handle_input(now, Datagram { local, remote, data }) {
                Ok(()) => {
                    if let Some(socket) = self.spares.attach(local.port()) {
                        self.order(0, ToWorker::Attach(socket));
                    }
                }
                Err(refused) => self.count_refused(refused),
            }
        }
    }

    fn drop_spares(&mut self) {
        let node = &self.parts.node;
        for port in self.spares.detach(|local| node.uses_local(local)) {
            self.order(0, ToWorker::Detach(port));
        }
    }

    /// Address and port of ours that a datagram came to.
    fn local_end(&self, to: SocketAddr, remote: &SocketAddr) -> Option<SocketAddr> {
        if !to.ip().is_unspecified() {
            return Some(to);
        }
        let host = self.hosts.iter().find(|host| host.is_ipv4() == remote.is_ipv4())?;
        Some(SocketAddr::new(host.ip(), to.port()))
    }

    fn count_refused(&self, refused: Refused) {
        let reason = match refused {
            Refused::Stranger | Refused::Unexpected => DropReason::Stranger,
            Refused::Malformed => DropReason::Truncated,
            Refused::Forged => DropReason::Forged,
        };
        self.parts.counters.add(reason.slot(), 1);
    }

    fn take_commands(&mut self, now: Instant) -> usize {
        for handled in 0..INPUTS_PER_TURN {
            let record = match self.parts.commands.pop() {
                Ok(Some(record)) => record.to_vec(),
                Ok(None) => return handled,
                Err(fault) => {
                    // The ring has been put in order again; what was in it is lost.
                    self.complain(&format!("the command ring was damaged: {fault}"));
                    return handled;
                }
            };
            self.parts.counters.add(Counter::CommandsHandled.slot(), 1);
            self.on_record(now, &record);
        }
        INPUTS_PER_TURN
    }

    fn on_record(&mut self, now: Instant, record: &[u8]) {
        let (sequence, result) = match Request::decode(record) {
            Ok(request) => (request.sequence, self.on_command(now, request.command)),
            Err(error) => {
                let Some(sequence) = Request::sequence_of(record) else { return };
                let reason = ipop_steer::RefusalReason::Malformed;
                (sequence, Err(Refusal::new(reason, error)))
            }
        };
        self.carry_out();
        let event = match result {
            Ok(()) => Event::Done { sequence },
            Err(Refusal { reason, text }) => Event::Refused { sequence, reason, text },
        };
        self.publish(&event);
    }

    fn look_at_hosts(&mut self, now: Instant) {
        let addresses = match host_addresses(self.parts.interface.name()) {
            Ok(addresses) => addresses,
            Err(error) => {
                return self.complain(&format!("cannot list this machine's addresses: {error}"));
            }
        };
        let with_port = |ip: IpAddr| {
            let socket = self.parts.sockets.of(&ip)?;
            Some(SocketAddr::new(ip, socket.port()))
        };
        let hosts: BTreeSet<_> = addresses.into_iter().filter_map(with_port).collect();
        if hosts != self.hosts {
            let list: Vec<_> = hosts.iter().copied().collect();
            self.parts.node.set_hosts(now, &list);
            let gone: Vec<_> = self.hosts.difference(&hosts).map(|host| host.ip()).collect();
            self.bridges.note_gone(&gone);
            self.hosts = hosts;
            self.has_moved = true;
        }
    }

    /// Changes come in bursts; the controller hears of the first at once, and of the last.
    fn tell_of_moves(&mut self, now: Instant) {
        if self.has_moved && self.next_moved <= now {
            (self.has_moved, self.next_moved) = (false, now + MOVES_PAUSE);
            self.publish(&Event::NetworkMoved);
        }
    }

    fn announce_again(&mut self, now: Instant) {
        let (due, later) = self.announcements.drain(..).partition(|(at, _)| *at <= now);
        self.announcements = later;
        let due: Vec<(Instant, [u8; 6])> = due;
        for (_, mac) in due {
            self.order(0, ToWorker::Announce(mac));
        }
    }

    fn learn(&mut self, now: Instant, worker: u8, links: Vec<LinkReport>) {
        for report in links {
            let peer = self.sessions.get(&report.index.0).and_then(|f| self.peers.get_mut(f));
            if let Some(traffic) = peer.and_then(|peer| peer.carried.learn(worker, report)) {
                self.parts.node.note_traffic(now, report.index, traffic);
            }
        }
    }

    fn show_links(&mut self) {
        let statuses: Vec<_> = self.parts.node.links().collect();
        for status in statuses {
            self.show_link(&status);
        }
    }

    /// The overlay interface takes what the links carry.
    fn follow_links(&mut self, now: Instant) {
        let widest = self.parts.node.links().filter_map(|status| carried(&status)).max();
        match self.parts.interface.follow(now, widest) {
            Ok(true) => {
                tracing::info!("the interface's MTU is {} now", self.parts.interface.mtu());
                self.parts.note.show_mtu(&self.parts.interface);
            }
            Ok(false) => {}
            Err(error) => self.complain(&error.to_string()),
        }
    }

    fn show_link(&mut self, status: &ipop_link::LinkStatus) {
        let Some(peer) = self.peers.get(&status.peer) else { return };
        let view = PeerView { name: &peer.name, routes: &peer.routes, carried: &peer.carried };
        self.parts.rows.show(status, &view);
    }

    fn publish(&mut self, event: &Event) {
        let slot = match self.parts.events.publish(event) {
            true => Counter::EventsPublished.slot(),
            false => DropReason::RingFull.slot(),
        };
        self.parts.counters.add(slot, 1);
    }

    fn complain(&self, text: &str) {
        tracing::warn!("{text}");
        self.parts.errors.observe(unix_ms(), text);
    }

    /// Orders one worker about: all orders reach it in the order in which they are given.
    fn order(&mut self, worker: u8, order: ToWorker) {
        self.backlog.push_back((worker, order));
        self.flush_orders();
    }

    /// Orders all workers about.
    fn order_all(&mut self, order: impl Fn() -> ToWorker) {
        for worker in 0..self.parts.orders.len() {
            self.backlog.push_back((worker as u8, order()));
        }
        self.flush_orders();
    }

    fn flush_orders(&mut self) {
        while let Some((worker, order)) = self.backlog.pop_front() {
            // There is no such worker for a lane that was not offered.
            let Some(orders) = self.parts.orders.get(usize::from(worker)) else { continue };
            if let Err(order) = orders.send(order) {
                self.backlog.push_front((worker, order));
                return;
            }
        }
    }

    /// Says goodbye on all links, then stops the workers.
    fn leave(&mut self) {
        let now = Instant::now();
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            let _ = self.parts.node.close_link(now, peer, "the node stops");
        }
        self.carry_out();
        std::thread::sleep(GOODBYE_TIME);
        self.order_all(|| ToWorker::Stop);
        while self.ended_count < self.parts.orders.len() {
            self.flush_orders();
            while let Some((_, note)) = self.parts.notes.take() {
                if let FromWorker::Ended(reason) = note {
                    self.on_ended(reason);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Forgets what a session carried with, once it is gone.
    fn forget_session(&mut self, index: LinkIndex) {
        self.channels.remove(&index.0);
        if let Some(peer) = self.sessions.remove(&index.0).and_then(|f| self.peers.get_mut(&f)) {
            peer.carried.retire(index);
        }
    }
}
