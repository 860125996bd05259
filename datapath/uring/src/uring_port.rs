//! The port on io_uring.
//!
//! The way of a turn, in the order of this file: arm what has ended, enter once, reap all events,
//! then look at each: fates of outputs put their slots back, inputs take their buffers out.

use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, Fixed};
use io_uring::{opcode, squeue};

use crate::attached::{Attached, Leaving};
use crate::buffers::BufferRing;
use crate::doorbell::Doorbell;
use crate::message::{PAYLOAD_START, parse, receive_header};
use crate::port::{
    ATTACHED_MAX, BUFFER_LEN, Batch, Completion, Datagram, Destination, FAILURES_MAX, OutputSlot,
    Port, PortError, SendError, TapFrame, WriteError,
};
use crate::queues::TapQueues;
use crate::ring::{Event, Ring, RingError, RingFeatures};
use crate::segmentation::{Segmentation, segmentation};
use crate::slots::{Job, Slots};
use crate::status::{Driver, PortConfig, PortCounters, PortFeatures};
use crate::tag::Tag;
use crate::udp::{Family, UdpSocket};

/// Buffer groups.
const FRAMES: u16 = 0;
const DATAGRAMS: u16 = 1;
/// Registered files.
const UDP_V4: u32 = 0;
const UDP_V6: u32 = 1;
const BELL: u32 = 2;
/// The first of the tap's queues; the others follow.
const TAPS: u32 = 3;

/// Reads queued on all tap queues together where one read cannot serve all frames.
const SINGLE_READS: usize = 8;

/// One worker's port: its tap queues, up to two sockets, a doorbell, on one ring.
///
/// It may be opened anywhere; the first [`wait`](Port::wait) binds it to its thread, where it is
/// to be dropped too. Dropped elsewhere, or with an operation that does not come back, it leaks
/// its packet memory rather than let the kernel write into memory that is someone else's.
pub struct UringPort {
    ring: Ring,
    memory: ManuallyDrop<Memory>,
    taps: TapQueues,
    v4: Option<Arc<UdpSocket>>,
    v6: Option<Arc<UdpSocket>>,
    attached: Attached,
    doorbell: Doorbell,
    armed: Armed,
    failures: Failures,
    segmentation: Segmentation,
    counters: PortCounters,
    tap_multishot: bool,
    busy_poll: Duration,
    polls_cards: bool,
    /// Fates decided without the ring, for the next batch.
    decided: Vec<Completion>,
    events: Vec<Event>,
}

/// Before Linux 6.4 a tap says of itself that it may block, and the kernel leaves its reads and
/// writes to threads of its own, which do not keep their order. It asks once, when the file is
/// registered.
fn do_not_block(taps: &TapQueues) -> Result<(), RingError> {
    let refused = |source| RingError::Refused { action: "read a tap without blocking by", source };
    taps.iter().try_for_each(|tap| tap.set_nonblocking().map_err(refused))
}

/// All that the kernel is given addresses of.
struct Memory {
    frames: BufferRing,
    datagrams: BufferRing,
    slots: Slots,
    receive_header: Box<libc::msghdr>,
}

// SAFETY: the one member that is not `Send` by itself is the receive header, whose pointers are
// null for ever; the ring is entered by one thread at a time through `&mut self`.
unsafe impl Send for Memory {}

/// Which inputs have an operation queued or running.
#[derive(Debug, Default)]
struct Armed {
    /// How many of each queue.
    taps: Vec<usize>,
    v4: bool,
    v6: bool,
    doorbell: bool,
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Failures {
    /// Of each queue.
    taps: Vec<u32>,
    v4: u32,
    v6: u32,
}

impl UringPort {
    /// Opens a port. Nothing is read or sent before the first [`wait`](Port::wait).
    ///
    /// # Errors
    /// [`RingError`] says why this machine gives no ring and what to do.
    pub fn open(
        taps: impl Into<TapQueues>,
        v4: Option<Arc<UdpSocket>>,
        v6: Option<Arc<UdpSocket>>,
        config: &PortConfig,
    ) -> Result<UringPort, RingError> {
        let taps = taps.into();
        let inputs = usize::from(config.frames.next_power_of_two())
            + usize::from(config.datagrams.next_power_of_two());
        let slots = usize::from(config.slots);
        // Every buffer and slot may complete at once, and every input may end.
        let submissions =
            (slots + SINGLE_READS + taps.len() + 2 * ATTACHED_MAX + 8).next_power_of_two();
        let completions = (inputs + slots + SINGLE_READS + taps.len() + 2 * ATTACHED_MAX + 32)
            .max(2 * submissions);
        let ring = Ring::open(submissions as u32, completions as u32)?;
        let doorbell = Doorbell::new()
            .map_err(|source| RingError::Refused { action: "make the doorbell of", source })?;
        let socket = |socket: &Option<Arc<UdpSocket>>| {
            socket.as_ref().map_or(-1, |socket| socket.as_fd().as_raw_fd())
        };
        let mut files = vec![socket(&v4), socket(&v6), doorbell.as_fd().as_raw_fd()];
        files.extend(taps.iter().map(|tap| tap.as_fd().as_raw_fd()));
        let tap_multishot = ring.features().tap_multishot && !config.single_reads;
        if !tap_multishot {
            do_not_block(&taps)?;
        }
        ring.register_files(&files)?;
        let memory = Memory {
            frames: BufferRing::register(&ring, FRAMES, config.frames)?,
            datagrams: BufferRing::register(&ring, DATAGRAMS, config.datagrams)?,
            slots: Slots::allocate(config.slots)?,
            receive_header: Box::new(receive_header()),
        };
        Ok(UringPort {
            tap_multishot,
            busy_poll: config.busy_poll,
            polls_cards: !config.busy_poll.is_zero() && ring.poll_cards(config.busy_poll),
            ring,
            memory: ManuallyDrop::new(memory),
            v4,
            v6,
            attached: Attached::default(),
            doorbell,
            armed: Armed { taps: vec![0; taps.len()], ..Armed::default() },
            failures: Failures { taps: vec![0; taps.len()], ..Failures::default() },
            taps,
            segmentation: Segmentation::default(),
            counters: PortCounters::default(),
            decided: Vec::with_capacity(slots),
            events: Vec::with_capacity(completions),
        })
    }

    /// A handle that wakes this port from another thread.
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    /// The socket of a family, for sending past the port.
    pub fn socket(&self, family: Family) -> Option<&Arc<UdpSocket>> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// A batch large enough for anything that one `wait` can bring.
    pub fn batch(&self) -> Batch {
        Batch::with_capacity(self.events.capacity())
    }

    /// What is in use.
    pub fn probe(&self) -> PortFeatures {
        PortFeatures {
            driver: Driver::Ring(RingFeatures {
                tap_multishot: self.tap_multishot,
                ..self.ring.features()
            }),
            busy_poll: self.busy_poll,
            polls_cards: self.polls_cards,
            segmentation: !self.segmentation.is_off(),
            v4: self.v4.is_some(),
            v6: self.v6.is_some(),
        }
    }

    /// What went out of the ordinary.
    pub fn counters(&self) -> PortCounters {
        self.counters
    }
}

impl Port for UringPort {
    fn wait(&mut self, wait: Option<Duration>, batch: &mut Batch) -> Result<(), PortError> {
        self.arm();
        let ready = !batch.is_empty() || !self.decided.is_empty() || self.ring.has_events();
        let wait = if ready { Some(Duration::ZERO) } else { wait };
        self.enter(wait).map_err(PortError::Enter)?;
        let mut events = std::mem::take(&mut self.events);
        self.ring.reap(&mut events);
        self.decided.drain(..).for_each(|fate| batch.push(fate));
        let mut outcome = Ok(());
        for event in events.drain(..) {
            let result = self.handle(event, batch);
            outcome = outcome.and(result);
        }
        self.events = events;
        if !self.attached.is_empty() && self.ring.is_submitted() {
            self.attached.let_go();
        }
        outcome
    }

    fn release_frame(&mut self, frame: TapFrame) {
        self.memory.frames.provide(frame.buffer);
    }

    fn release_datagram(&mut self, datagram: Datagram) {
        self.memory.datagrams.provide(datagram.buffer);
    }

    fn output(&mut self) -> Option<OutputSlot> {
        self.memory.slots.take()
    }

    fn send(
        &mut self,
        slot: OutputSlot,
        len: usize,
        segment_size: usize,
        destination: &Destination,
    ) {
        if !self.memory.slots.owns(&slot) {
            return;
        }
        let Some((socket, guest)) = self.sending(destination) else {
            return self.decide_send(slot, Err(SendError::NoSocket));
        };
        let Some(size) = segmentation(len, segment_size) else {
            return self.decide_send(slot, Err(SendError::TooBig));
        };
        if size != 0 && self.segmentation.is_refused(destination) {
            let result = socket.send_each(&slot[..len], size, destination);
            self.counters.unsegmented_sends += 1;
            return self.decide_send(slot, result);
        }
        let index = slot.index();
        let message = self.memory.slots.start_send(slot, len, size, destination);
        let entry = match guest {
            Some(file) => opcode::SendMsg::new(file, message),
            None if destination.remote.is_ipv4() => opcode::SendMsg::new(Fixed(UDP_V4), message),
            None => opcode::SendMsg::new(Fixed(UDP_V6), message),
        };
        let entry = entry.flags(libc::MSG_DONTWAIT as u32).build();
        // SAFETY: message and payload belong to the slot, which `Slots` keeps untouched until
        // the completion is reaped; an attached file stays open until it was submitted.
        if !unsafe { self.ring.push(entry, Tag::Send(index).encode()) }
            && let Some((slot, _)) = self.memory.slots.finish(index)
        {
            self.decide_send(slot, Err(SendError::NoBuffers(libc::EBUSY)));
        }
    }

    fn write_tap(&mut self, slot: OutputSlot, range: Range<usize>) {
        if !self.memory.slots.owns(&slot) {
            return;
        }
        let index = slot.index();
        if range.start >= range.end || range.end > slot.len() {
            self.memory.slots.put_back(slot);
            let error = WriteError::Malformed;
            return self.decided.push(Completion::WriteFailed { slot: index, error });
        }
        let tap = Fixed(TAPS + self.taps.place_of(&slot[range.clone()]) as u32);
        let start = self.memory.slots.start_write(slot, &range);
        let entry = opcode::Write::new(tap, start, range.len() as u32).build();
        // SAFETY: the bytes belong to the slot, which `Slots` keeps untouched until the
        // completion is reaped.
        if !unsafe { self.ring.push(entry, Tag::Write(index).encode()) }
            && let Some((slot, _)) = self.memory.slots.finish(index)
        {
            self.memory.slots.put_back(slot);
            let error = WriteError::NoBuffers(libc::EBUSY);
            self.decided.push(Completion::WriteFailed { slot: index, error });
        }
    }

    fn discard(&mut self, slot: OutputSlot) {
        self.memory.slots.put_back(slot);
    }

    fn send_plain(&mut self, data: &[u8], destination: &Destination) -> Result<(), SendError> {
        let (socket, _) = self.sending(destination).ok_or(SendError::NoSocket)?;
        socket.send(data, destination)
    }

    fn attach(&mut self, socket: Arc<UdpSocket>) -> bool {
        self.attached.add(socket)
    }

    fn detach(&mut self, port: u16) {
        self.attached.ask_to_leave(port);
    }
}

impl UringPort {
    /// The socket that a destination is reached from, and its file if it is an attached one.
    #[inline]
    fn sending(&self, destination: &Destination) -> Option<(&Arc<UdpSocket>, Option<Fd>)> {
        let family = Family::of(&destination.remote);
        match self.attached.find(destination.local_port, family) {
            Some(guest) => Some((&guest.socket, Some(guest.fd()))),
            None => self.socket(family).map(|socket| (socket, None)),
        }
    }

    /// Enters the ring; with busy polling, sleeps only after having looked for so long.
    fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        if self.busy_poll.is_zero() || wait == Some(Duration::ZERO) {
            return self.ring.enter(wait);
        }
        self.ring.enter(Some(Duration::ZERO))?;
        let start = Instant::now();
        let end = wait.map_or(self.busy_poll, |wait| wait.min(self.busy_poll));
        while !self.ring.has_work() {
            if start.elapsed() >= end {
                return self.ring.enter(wait.map(|wait| wait.saturating_sub(end)));
            }
            std::hint::spin_loop();
        }
        self.ring.enter(Some(Duration::ZERO))
    }

    /// Queues the inputs that have ended. One without buffers waits: it would end at once.
    fn arm(&mut self) {
        if !self.armed.doorbell {
            let poll = opcode::PollAdd::new(Fixed(BELL), libc::POLLIN as u32).multi(true);
            // SAFETY: a poll points at no memory.
            self.armed.doorbell = unsafe { self.ring.push(poll.build(), Tag::Doorbell.encode()) };
        }
        if self.memory.datagrams.available() > 0 {
            if self.v4.is_some() && !self.armed.v4 {
                self.armed.v4 = self.arm_receive(UDP_V4, Tag::V4);
            }
            if self.v6.is_some() && !self.armed.v6 {
                self.armed.v6 = self.arm_receive(UDP_V6, Tag::V6);
            }
        }
        if !self.attached.is_empty() {
            self.arm_attached();
        }
        self.arm_taps();
    }

    fn arm_taps(&mut self) {
        let queues = self.taps.len();
        let depth = if self.tap_multishot { 1 } else { (SINGLE_READS / queues).max(1) };
        let depth = depth.min(self.memory.frames.available());
        for queue in 0..queues {
            while self.armed.taps[queue] < depth && self.arm_tap(queue) {
                self.armed.taps[queue] += 1;
            }
        }
    }

    fn arm_attached(&mut self) {
        let has_buffers = self.memory.datagrams.available() > 0;
        for (place, guest) in self.attached.iter_mut() {
            let tag = Tag::Attached(place).encode();
            if guest.leaving == Leaving::Asked && guest.is_armed {
                let cancel = opcode::AsyncCancel::new(tag).build();
                // SAFETY: a cancellation points at no memory.
                if unsafe { self.ring.push(cancel, Tag::Cancel.encode()) } {
                    guest.leaving = Leaving::Cancelled;
                }
            } else if guest.leaving == Leaving::No && !guest.is_armed && has_buffers {
                let header = &raw const *self.memory.receive_header;
                let entry = opcode::RecvMsgMulti::new(guest.fd(), header, DATAGRAMS).build();
                // SAFETY: as in `arm_receive`; the file stays open until it was submitted.
                guest.is_armed = unsafe { self.ring.push(entry, tag) };
            }
        }
    }

    fn arm_receive(&mut self, file: u32, tag: Tag) -> bool {
        let header = &raw const *self.memory.receive_header;
        let entry = opcode::RecvMsgMulti::new(Fixed(file), header, DATAGRAMS).build();
        // SAFETY: the header is boxed, never written, and freed only once the ring is idle; the
        // buffers are those of a registered ring.
        unsafe { self.ring.push(entry, tag.encode()) }
    }

    fn arm_tap(&mut self, queue: usize) -> bool {
        let tap = Fixed(TAPS + queue as u32);
        // The crate's ReadMulti loses the "registered file" flag: say it again.
        let entry = if self.tap_multishot {
            let flags = squeue::Flags::FIXED_FILE | squeue::Flags::BUFFER_SELECT;
            opcode::ReadMulti::new(tap, 0, FRAMES).build().flags(flags)
        } else {
            let read = opcode::Read::new(tap, std::ptr::null_mut(), BUFFER_LEN as u32);
            read.buf_group(FRAMES).build().flags(squeue::Flags::BUFFER_SELECT)
        };
        // SAFETY: the buffers are those of a registered ring.
        unsafe { self.ring.push(entry, Tag::Tap(queue as u16).encode()) }
    }

    fn handle(&mut self, event: Event, batch: &mut Batch) -> Result<(), PortError> {
        match Tag::decode(event.user_data) {
            Some(Tag::Send(slot)) => self.on_sent(slot, event.result, batch),
            Some(Tag::Write(slot)) => self.on_written(slot, event.result, batch),
            Some(Tag::Doorbell) => {
                self.armed.doorbell = event.more();
                if self.doorbell.answer() {
                    batch.push(Completion::Doorbell);
                }
            }
            Some(Tag::Tap(queue)) => return self.on_tap(queue.into(), event, batch),
            Some(Tag::V4) => {
                self.armed.v4 = event.more();
                let port = self.v4.as_ref().map_or(0, |socket| socket.port());
                self.failures.v4 = self.on_received(event, batch, self.failures.v4, port)?;
            }
            Some(Tag::V6) => {
                self.armed.v6 = event.more();
                let port = self.v6.as_ref().map_or(0, |socket| socket.port());
                self.failures.v6 = self.on_received(event, batch, self.failures.v6, port)?;
            }
            Some(Tag::Attached(place)) => self.on_attached(place, event, batch),
            Some(Tag::Cancel) | None => {}
        }
        Ok(())
    }

    fn on_sent(&mut self, index: u16, result: i32, batch: &mut Batch) {
        let Some((slot, job)) = self.memory.slots.finish(index) else { return };
        let sent = match job {
            _ if result >= 0 => Ok(()),
            Job::Send { len, segment_size, destination }
                if segment_size != 0 && matches!(-result, libc::EIO | libc::EINVAL) =>
            {
                self.send_unsegmented(&slot[..len], segment_size, &destination)
            }
            _ => Err(SendError::from_errno(-result)),
        };
        self.memory.slots.put_back(slot);
        batch.push(Completion::of_send(index, sent));
    }

    /// Second try of a segmented send that was refused. If it works, segmentation was at fault.
    fn send_unsegmented(
        &mut self,
        data: &[u8],
        segment_size: u16,
        destination: &Destination,
    ) -> Result<(), SendError> {
        let (socket, _) = self.sending(destination).ok_or(SendError::NoSocket)?;
        socket.send_each(data, segment_size, destination)?;
        self.counters.unsegmented_sends += 1;
        self.segmentation.refuse(destination.remote.ip());
        Ok(())
    }

    fn on_written(&mut self, index: u16, result: i32, batch: &mut Batch) {
        let Some((slot, _)) = self.memory.slots.finish(index) else { return };
        self.memory.slots.put_back(slot);
        let written = if result >= 0 { Ok(()) } else { Err(WriteError::from_errno(-result)) };
        batch.push(Completion::of_write(index, written));
    }

    fn on_tap(&mut self, queue: usize, event: Event, batch: &mut Batch) -> Result<(), PortError> {
        self.armed.taps[queue] -= usize::from(!event.more());
        let buffer = event.buffer().and_then(|index| self.memory.frames.take(index));
        match (event.result, buffer) {
            (1.., Some(buffer)) => {
                self.failures.taps[queue] = 0;
                let len = event.result as u32;
                batch.push(Completion::TapFrame(TapFrame { buffer, len }));
                return Ok(());
            }
            (_, Some(buffer)) => self.memory.frames.provide(buffer),
            (_, None) => {}
        }
        match -event.result {
            libc::ENOBUFS => self.counters.frames_exhausted += 1,
            // What reads say once the device was deleted.
            libc::EBADFD | libc::EFAULT => return Err(PortError::TapGone),
            errno => {
                self.counters.input_failures += 1;
                self.failures.taps[queue] += 1;
                if self.failures.taps[queue] > FAILURES_MAX {
                    return Err(PortError::TapRead(io::Error::from_raw_os_error(errno)));
                }
            }
        }
        Ok(())
    }

    /// As for the port's own sockets, but that one fails ends nothing else.
    fn on_attached(&mut self, place: u16, event: Event, batch: &mut Batch) {
        let Some(guest) = self.attached.get_mut(place) else { return };
        guest.is_armed = event.more();
        if guest.leaving == Leaving::Cancelled && event.result < 0 {
            return;
        }
        let (failures, port) = (guest.failures, guest.socket.port());
        let result = self.on_received(event, batch, failures, port);
        let Some(guest) = self.attached.get_mut(place) else { return };
        match result {
            Ok(failures) => guest.failures = failures,
            Err(_) => guest.leaving = Leaving::Cancelled,
        }
    }

    /// Returns the number of failures in a row.
    fn on_received(
        &mut self,
        event: Event,
        batch: &mut Batch,
        failures: u32,
        local_port: u16,
    ) -> Result<u32, PortError> {
        let buffer = event.buffer().and_then(|index| self.memory.datagrams.take(index));
        if let (0.., Some(buffer)) = (event.result, buffer) {
            let len = event.result as usize;
            match buffer.bytes().get(..len).and_then(parse) {
                Some(received) => batch.push(Completion::Datagram(Datagram {
                    buffer,
                    start: PAYLOAD_START as u32,
                    len: received.payload_len as u32,
                    segment_size: received.segment_size as u32,
                    remote: received.remote,
                    local_ip: received.local_ip,
                    local_port,
                })),
                None => {
                    self.memory.datagrams.provide(buffer);
                    batch.push(Completion::DatagramLost);
                }
            }
            return Ok(0);
        }
        if -event.result == libc::ENOBUFS {
            self.counters.datagrams_exhausted += 1;
            return Ok(failures);
        }
        self.counters.input_failures += 1;
        match failures + 1 {
            FAILURES_MAX.. => {
                Err(PortError::Receive(io::Error::from_raw_os_error(event.result.abs())))
            }
            failures => Ok(failures),
        }
    }

    fn decide_send(&mut self, slot: OutputSlot, result: Result<(), SendError>) {
        self.decided.push(Completion::of_send(slot.index(), result));
        self.memory.slots.put_back(slot);
    }
}

impl Drop for UringPort {
    fn drop(&mut self) {
        if self.ring.shut_down() {
            // SAFETY: dropped once, here; the ring is idle, so the kernel uses none of it.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
    }
}
