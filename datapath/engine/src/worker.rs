//! One worker: frames from its tap queues to its UDP sockets and back.
//!
//! A turn is: wait and reap once; carry out the agent's orders; then, in the order of the batch,
//! fates of outputs, the datagrams (ingress), the frames (egress); then flush what waited for the
//! end of the batch. What was queued reaches the kernel with the next wait.
//!
//! Orders do not wait for their bell: a full batch may hold datagrams that were sealed with keys
//! which the agent has ordered to be installed, while the bell is in the next one.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use ipop_pipeline::{Pipeline, SendRun, Sink, Source, ToAgent};
use ipop_steer::{Counter, DropReason};
use ipop_uring::{Batch, Completion, Destination, OutputSlot, Port, PortError, SendError};
use ipop_wire::{LinkIndex, channel};

use crate::counting::Publisher;
use crate::exchange::{FromWorker, Handover, Inbox, LinkReport, Notes, ToWorker};

/// Orders carried out in one turn at most, so that packets are not held up by them.
const ORDERS_PER_TURN: usize = 64;
/// The same of frames that other workers handed over.
const HANDED_PER_TURN: usize = 64;

/// Where each session's datagrams go.
type Destinations = HashMap<LinkIndex, Destination>;

/// A worker on any port.
pub(crate) struct Worker<P: Port> {
    port: P,
    pipeline: Pipeline<OutputSlot>,
    destinations: Destinations,
    inbox: Inbox,
    outside: Outside,
    /// When the last wait returned.
    woken: Instant,
    stopping: bool,
}

/// What a worker tells others by.
pub(crate) struct Outside {
    /// To the agent.
    pub(crate) notes: Notes,
    /// To the first worker; its own end, if this is the first.
    pub(crate) handover: Handover,
    /// To observers.
    pub(crate) counters: Publisher,
}

impl<P: Port> Worker<P> {
    pub(crate) fn new(
        port: P,
        pipeline: Pipeline<OutputSlot>,
        inbox: Inbox,
        outside: Outside,
    ) -> Self {
        let destinations = Destinations::new();
        let woken = Instant::now();
        Self { port, pipeline, destinations, inbox, outside, woken, stopping: false }
    }

    /// Turns until told to stop, or the port ends.
    pub(crate) fn run(mut self, mut batch: Batch) {
        let result = loop {
            if let Err(error) = self.turn(self.until_due(), &mut batch) {
                break Some(error.to_string());
            }
            if self.stopping {
                break None;
            }
        };
        // The queue has room again soon: nobody else is left to fill it.
        while !self.outside.notes.send(FromWorker::Ended(result.clone())) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How long there is nothing to do unless something comes.
    fn until_due(&self) -> Option<Duration> {
        self.pipeline.repeat_due().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// One turn, see the head of this file.
    pub(crate) fn turn(
        &mut self,
        wait: Option<Duration>,
        batch: &mut Batch,
    ) -> Result<(), PortError> {
        // What the wait finds ready has waited since the last one returned.
        let busy = self.woken.elapsed();
        self.port.wait(wait, batch)?;
        self.outside.counters.add(Counter::KernelEntries, 1);
        let now = Instant::now();
        self.woken = now;
        self.pipeline.note_wait(now, busy);
        self.obey(now);
        for completion in batch.drain() {
            self.on_completion(now, completion);
        }
        let mut sink = Kernel {
            port: &mut self.port,
            destinations: &self.destinations,
            outside: &self.outside,
        };
        self.pipeline.repeat(now, &mut sink);
        self.pipeline.flush_ingress(now, &mut sink);
        self.pipeline.flush_egress(&mut sink);
        Ok(())
    }

    fn on_completion(&mut self, now: Instant, completion: Completion) {
        let mut sink = Kernel {
            port: &mut self.port,
            destinations: &self.destinations,
            outside: &self.outside,
        };
        match completion {
            Completion::Sent { .. } | Completion::Written { .. } => {}
            Completion::SendFailed { error, .. } => {
                tracing::trace!("send failed: {error}");
                self.outside.counters.drop(DropReason::SendFailed);
            }
            Completion::WriteFailed { error, .. } => {
                tracing::trace!("tap write failed: {error}");
                self.outside.counters.drop(DropReason::TapWriteFailed);
            }
            Completion::DatagramLost => {
                self.outside.counters.drop(DropReason::BuffersExhausted);
            }
            // Orders have been seen to.
            Completion::Doorbell => self.take_handed(now),
            Completion::Datagram(datagram) => {
                let source = Source { remote: datagram.remote(), local: datagram.local() };
                let (data, size) = (datagram.data(), datagram.segment_size());
                self.pipeline.ingress(now, data, size, source, &mut sink);
                self.port.release_datagram(datagram);
            }
            Completion::TapFrame(frame) => {
                self.on_frame(now, frame.bytes());
                self.port.release_frame(frame);
            }
        }
    }

    fn on_frame(&mut self, now: Instant, bytes: &[u8]) {
        let mut sink = Kernel {
            port: &mut self.port,
            destinations: &self.destinations,
            outside: &self.outside,
        };
        self.pipeline.egress(now, bytes, &mut sink);
    }

    fn obey(&mut self, now: Instant) {
        for _ in 0..ORDERS_PER_TURN {
            let Some(order) = self.inbox.take() else { return };
            self.on_order(now, order);
        }
        // The bell may have been answered: whatever is left needs another ring.
        self.inbox.ring_again();
    }

    /// Sends what workers without a lane of their own have handed over.
    fn take_handed(&mut self, now: Instant) {
        for _ in 0..HANDED_PER_TURN {
            let Some(frame) = self.outside.handover.take() else { return };
            self.on_frame(now, &frame);
        }
        self.inbox.ring_again();
    }

    fn on_order(&mut self, now: Instant, order: ToWorker) {
        match order {
            ToWorker::Install(entry, destination) => {
                self.set_destination(entry.index, destination);
                self.pipeline.install_link(*entry);
            }
            ToWorker::SetPath { index, path } => {
                self.set_destination(index, path.map(|(_, destination)| destination));
                self.pipeline.set_path(index, path.map(|(path, _)| path));
            }
            ToWorker::Activate { index, mac } => {
                self.pipeline.use_link(index);
                self.announce(&mac);
            }
            ToWorker::Remove(index) => {
                self.destinations.remove(&index);
                self.pipeline.remove_link(index);
            }
            ToWorker::SendControl { index, channel, to, data } => {
                self.send_control(now, index, channel, to, &data);
            }
            ToWorker::SendProbe { index, channel, data } => {
                self.send_probe(now, index, channel, &data);
            }
            ToWorker::AddRoute { address, prefix, mac } => {
                self.pipeline.add_route(address, prefix, mac);
                self.announce(&mac);
            }
            ToWorker::Announce(mac) => self.announce(&mac),
            ToWorker::RemoveRoute { address, prefix } => {
                self.pipeline.remove_route(address, prefix);
            }
            ToWorker::SetOwnAddresses(addresses) => self.pipeline.set_addresses(&addresses),
            ToWorker::Attach(socket) => {
                if !self.port.attach(socket) {
                    tracing::warn!("the port takes no further socket");
                }
            }
            ToWorker::Detach(port) => self.port.detach(port),
            ToWorker::Report => self.report(now),
            ToWorker::Stop => self.stopping = true,
        }
    }

    fn set_destination(&mut self, index: LinkIndex, destination: Option<Destination>) {
        match destination {
            Some(destination) => drop(self.destinations.insert(index, destination)),
            None => drop(self.destinations.remove(&index)),
        }
    }

    /// Lets the host send what it holds back for a peer.
    fn announce(&mut self, mac: &[u8; 6]) {
        let mut sink = Kernel {
            port: &mut self.port,
            destinations: &self.destinations,
            outside: &self.outside,
        };
        self.pipeline.announce(mac, &mut sink);
    }

    fn send_control(
        &mut self,
        now: Instant,
        index: LinkIndex,
        channel: Option<u16>,
        to: Option<Destination>,
        data: &[u8],
    ) {
        let Some(destination) = to.or_else(|| self.destinations.get(&index).copied()) else {
            return self.outside.counters.drop(DropReason::LinkNotUp);
        };
        let Some(mut slot) = self.port.output() else {
            return self.outside.counters.drop(DropReason::OutputFull);
        };
        match self.pipeline.seal_control(now, index, channel, data, &mut slot) {
            Ok(len) => self.port.send(slot, len, len, &destination),
            Err(reason) => {
                tracing::debug!("a control frame is not sent: {}", reason.name());
                self.outside.counters.drop(DropReason::LinkNotUp);
                self.port.discard(slot);
            }
        }
    }

    /// As [`send_control`](Self::send_control), but past the queue, whose failures say nothing of
    /// lengths.
    fn send_probe(&mut self, now: Instant, index: LinkIndex, channel: Option<u16>, data: &[u8]) {
        let Some(destination) = self.destinations.get(&index) else { return };
        let Some(mut slot) = self.port.output() else {
            return self.outside.counters.drop(DropReason::OutputFull);
        };
        if let Ok(len) = self.pipeline.seal_control(now, index, channel, data, &mut slot)
            && let Err(SendError::TooBig) = self.port.send_plain(&slot[..len], destination)
        {
            let datagram_len = u16::try_from(len).unwrap_or(u16::MAX);
            // One that is not told of is taken for lost.
            let _ = self.outside.notes.send(FromWorker::TooBig { index, datagram_len });
        }
        self.port.discard(slot);
    }

    fn report(&mut self, now: Instant) {
        self.pipeline.maintain(now);
        self.outside.counters.publish(self.pipeline.counters());
        let links = self.pipeline.link_statuses().map(|link| LinkReport {
            index: link.index,
            counters: link.counters,
            epoch: link.sealing_epoch,
            heard: link.heard,
        });
        let report = FromWorker::Report(links.collect());
        // The next report says it all again.
        let _ = self.outside.notes.send(report);
    }
}

/// The kernel and the agent, as the pipeline puts things out.
struct Kernel<'a, P: Port> {
    port: &'a mut P,
    destinations: &'a Destinations,
    outside: &'a Outside,
}

impl<P: Port> Sink for Kernel<'_, P> {
    type Slot = OutputSlot;

    fn reserve(&mut self) -> Option<OutputSlot> {
        self.port.output()
    }

    fn discard(&mut self, slot: OutputSlot) {
        self.port.discard(slot);
    }

    fn send(&mut self, slot: OutputSlot, run: SendRun) {
        match self.destinations.get(&run.link) {
            Some(destination) => self.port.send(slot, run.len, run.segment_size, destination),
            None => {
                self.outside.counters.drop(DropReason::LinkNotUp);
                self.port.discard(slot);
            }
        }
    }

    fn write_tap(&mut self, slot: OutputSlot, range: Range<usize>) {
        self.port.write_tap(slot, range);
    }

    fn hand_over(&mut self, tap_frame: &[u8]) {
        if !self.outside.handover.send(tap_frame) {
            self.outside.counters.drop(DropReason::HandoverFull);
        }
    }

    fn to_agent(&mut self, item: ToAgent<'_>) {
        if !self.outside.notes.send(note(item)) {
            self.outside.counters.drop(DropReason::AgentQueueFull);
        }
    }
}

/// The item as a value of its own; a datagram as it came.
fn note(item: ToAgent<'_>) -> FromWorker {
    let datagram = |source: Source, data: Vec<u8>| {
        let Source { remote, local } = source;
        FromWorker::Datagram { local, remote, data }
    };
    match item {
        ToAgent::Stun { source, datagram: data }
        | ToAgent::TurnChannel { source, datagram: data } => datagram(source, data.to_vec()),
        ToAgent::Handshake { source, channel, header, body } => {
            let mut data = Vec::with_capacity(body.len() + 20);
            let inner_len = header.emit().len() + body.len();
            if let Some(number) = channel {
                let inner_len = u16::try_from(inner_len).unwrap_or(u16::MAX);
                data.extend_from_slice(&channel::channel_prefix(number, inner_len));
            }
            data.extend_from_slice(&header.emit());
            data.extend_from_slice(body);
            datagram(source, data)
        }
        ToAgent::Control { link, source, channel, body } => {
            let Source { local, remote } = source;
            FromWorker::Control { index: link, local, remote, channel, data: body.to_vec() }
        }
        ToAgent::NoRoute(address) => FromWorker::NoRoute(address),
    }
}
