//! The port without io_uring: a poll loop of plain system calls, UDP by `quinn-udp`.
//!
//! For machines that forbid io_uring, as most container profiles do. The way of a turn, in the
//! order of this file: poll once, then read a bounded amount of whatever is ready. Outputs are
//! executed where they are queued, which keeps their order, and their slots are free at once: the
//! next output is built in the bytes that the core still has in its cache. Only their fates wait
//! for the next turn.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::doorbell::Doorbell;
use crate::memory::Buffer;
use crate::pool::Pool;
use crate::port::{
    ATTACHED_MAX, BUFFER_LEN, Batch, Completion, Datagram, Destination, FAILURES_MAX, OutputSlot,
    Port, PortError, SLOT_LEN, SendError, TapFrame, WriteError,
};
use crate::queues::{TAP_QUEUES_MAX, TapQueues};
use crate::segmentation::{Segmentation, segmentation};
use crate::status::{Driver, PortConfig, PortCounters, PortFeatures};
use crate::udp::{Family, UdpSocket};

/// Receives per turn and socket at most: one `recvmmsg`.
const RECEIVES_MAX: usize = 16;
/// Bytes after which a turn reads no more frames, so that those read are still in the core's
/// cache when they are sealed; small frames end at the number of buffers instead.
const FRAMES_LEN: usize = 256 * 1024;
/// The doorbell and the port's own sockets; tap queues follow, and then attached sockets.
const OWN_FILES: usize = 3;
const FILES_MAX: usize = OWN_FILES + TAP_QUEUES_MAX + ATTACHED_MAX;
/// Outputs between two waits at most: their fates have to be kept without allocating.
const FATES_MAX: usize = 1024;

const _: () = assert!(RECEIVES_MAX <= BATCH_SIZE);

/// One worker's port: its tap queues, up to two sockets, a doorbell, and no ring.
///
/// It differs from [`crate::UringPort`] in nothing that a worker sees but speed.
pub struct PollPort {
    taps: TapQueues,
    v4: Option<Channel>,
    v6: Option<Channel>,
    attached: Vec<Channel>,
    doorbell: Doorbell,
    frames: Pool,
    datagrams: Pool,
    slots: Pool,
    /// Inputs that are left alone until a buffer is free.
    paused: Paused,
    /// Failed reads of each tap queue in a row.
    tap_failures: [u32; TAP_QUEUES_MAX],
    segmentation: Segmentation,
    counters: PortCounters,
    busy_poll: Duration,
    /// Fates of outputs, for the next batch.
    fates: Vec<Completion>,
}

/// A socket and what is known of it.
struct Channel {
    socket: Arc<UdpSocket>,
    state: UdpSocketState,
    /// Failed receives in a row.
    failures: u32,
}

#[derive(Debug, Default)]
struct Paused {
    frames: bool,
    datagrams: bool,
}

/// What a poll found.
#[derive(Debug, Default)]
struct Ready {
    doorbell: bool,
    v4: bool,
    v6: bool,
    attached: [bool; ATTACHED_MAX],
    taps: [bool; TAP_QUEUES_MAX],
}

impl Ready {
    fn any(&self) -> bool {
        let inputs = self.attached.iter().chain(&self.taps);
        self.doorbell || self.v4 || self.v6 || inputs.copied().any(|ready| ready)
    }
}

impl PollPort {
    /// Opens a port; the queue and the sockets are in non-blocking mode from then on.
    ///
    /// # Errors
    /// What the kernel said: no memory, no more files, or a socket that takes no option.
    pub fn open(
        taps: impl Into<TapQueues>,
        v4: Option<Arc<UdpSocket>>,
        v6: Option<Arc<UdpSocket>>,
        config: &PortConfig,
    ) -> io::Result<PollPort> {
        let taps = taps.into();
        for tap in taps.iter() {
            tap.set_nonblocking()?;
        }
        Ok(PollPort {
            taps,
            v4: v4.map(Channel::new).transpose()?,
            v6: v6.map(Channel::new).transpose()?,
            attached: Vec::with_capacity(ATTACHED_MAX),
            doorbell: Doorbell::new()?,
            frames: Pool::allocate(config.frames, BUFFER_LEN)?,
            datagrams: Pool::allocate(config.datagrams, BUFFER_LEN)?,
            slots: Pool::allocate(config.slots, SLOT_LEN)?,
            paused: Paused::default(),
            tap_failures: [0; TAP_QUEUES_MAX],
            segmentation: Segmentation::default(),
            counters: PortCounters::default(),
            busy_poll: config.busy_poll,
            fates: Vec::with_capacity(FATES_MAX),
        })
    }

    /// A handle that wakes this port from another thread.
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    /// The socket of a family, for sending past the port.
    pub fn socket(&self, family: Family) -> Option<&Arc<UdpSocket>> {
        self.channel(family).map(|channel| &channel.socket)
    }

    /// A batch large enough for anything that one `wait` can bring.
    pub fn batch(&self) -> Batch {
        Batch::with_capacity(FATES_MAX + 1)
    }

    /// What is in use.
    pub fn probe(&self) -> PortFeatures {
        PortFeatures {
            driver: Driver::PollLoop,
            busy_poll: self.busy_poll,
            polls_cards: false,
            segmentation: !self.segmentation.is_off(),
            v4: self.v4.is_some(),
            v6: self.v6.is_some(),
        }
    }

    /// What went out of the ordinary.
    pub fn counters(&self) -> PortCounters {
        self.counters
    }

    fn channel(&self, family: Family) -> Option<&Channel> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }
}

impl Port for PollPort {
    fn wait(&mut self, wait: Option<Duration>, batch: &mut Batch) -> Result<(), PortError> {
        let idle = batch.is_empty() && self.fates.is_empty();
        let ready = self.look(if idle { wait } else { Some(Duration::ZERO) })?;
        self.fates.drain(..).for_each(|fate| batch.push(fate));
        if ready.doorbell && self.doorbell.silence_and_answer() {
            batch.push(Completion::Doorbell);
        }
        for (channel, ready) in [(&mut self.v4, ready.v4), (&mut self.v6, ready.v6)] {
            if let Some(channel) = channel.as_mut().filter(|_| ready) {
                channel.receive(&mut self.datagrams, &mut self.counters, batch)?;
            }
        }
        for (channel, _) in self.attached.iter_mut().zip(ready.attached).filter(|(_, ready)| *ready)
        {
            // That one fails ends nothing else.
            let _ = channel.receive(&mut self.datagrams, &mut self.counters, batch);
        }
        self.read_taps(ready.taps, batch)
    }

    fn release_frame(&mut self, frame: TapFrame) {
        self.frames.put_back(frame.buffer);
    }

    fn release_datagram(&mut self, datagram: Datagram) {
        self.datagrams.put_back(datagram.buffer);
    }

    fn output(&mut self) -> Option<OutputSlot> {
        if self.fates.len() + self.slots.taken() >= FATES_MAX {
            return None;
        }
        self.slots.take().map(|buffer| OutputSlot { buffer })
    }

    fn send(
        &mut self,
        slot: OutputSlot,
        len: usize,
        segment_size: usize,
        destination: &Destination,
    ) {
        if self.slots.owns(&slot.buffer) {
            let result = self.transmit(&slot, len, segment_size, destination);
            self.fates.push(Completion::of_send(slot.index(), result));
            self.slots.put_back(slot.buffer);
        }
    }

    fn write_tap(&mut self, slot: OutputSlot, range: Range<usize>) {
        if self.slots.owns(&slot.buffer) {
            let result = match slot.get(range).filter(|frame| !frame.is_empty()) {
                Some(frame) => rustix::io::write(self.taps.get(self.taps.place_of(frame)), frame)
                    .map(drop)
                    .map_err(|errno| WriteError::from_errno(errno.raw_os_error())),
                None => Err(WriteError::Malformed),
            };
            self.fates.push(Completion::of_write(slot.index(), result));
            self.slots.put_back(slot.buffer);
        }
    }

    fn discard(&mut self, slot: OutputSlot) {
        self.slots.put_back(slot.buffer);
    }

    fn send_plain(&mut self, data: &[u8], destination: &Destination) -> Result<(), SendError> {
        self.sending(destination).ok_or(SendError::NoSocket)?.socket.send(data, destination)
    }

    fn attach(&mut self, socket: Arc<UdpSocket>) -> bool {
        let count = self.attached.len();
        if count < ATTACHED_MAX {
            self.attached.extend(Channel::new(socket));
        }
        self.attached.len() > count
    }

    fn detach(&mut self, port: u16) {
        self.attached.retain(|channel| channel.socket.port() != port);
    }
}

impl PollPort {
    /// The socket that a destination is reached from.
    fn sending(&self, destination: &Destination) -> Option<&Channel> {
        let family = Family::of(&destination.remote);
        let named = |channel: &&Channel| {
            (channel.socket.port(), channel.socket.family()) == (destination.local_port, family)
        };
        self.attached.iter().find(named).or(self.channel(family))
    }

    /// Waits for the inputs: first awake for as long as busy polling goes, then asleep.
    fn look(&mut self, wait: Option<Duration>) -> Result<Ready, PortError> {
        let awake = wait.map_or(self.busy_poll, |wait| self.busy_poll.min(wait));
        if !awake.is_zero() {
            let start = Instant::now();
            while start.elapsed() < awake {
                let ready = self.poll(Some(Duration::ZERO))?;
                if ready.any() {
                    return Ok(ready);
                }
            }
        }
        self.poll(wait.map(|wait| wait - awake))
    }

    /// Waits for the inputs. One without buffers is left out: it would be ready at once, for ever.
    fn poll(&mut self, wait: Option<Duration>) -> Result<Ready, PortError> {
        let starved = Paused {
            frames: self.frames.available() == 0,
            datagrams: self.datagrams.available() == 0,
        };
        self.counters.frames_exhausted += u64::from(starved.frames && !self.paused.frames);
        self.counters.datagrams_exhausted += u64::from(starved.datagrams && !self.paused.datagrams);
        self.paused = starved;

        let socket = |family| {
            let socket = self.socket(family).filter(|_| !self.paused.datagrams);
            self.file(socket.map(|socket| socket.as_fd()))
        };
        let tap = |place: usize| {
            let tap = Some(self.taps.get(place)).filter(|_| !self.paused.frames);
            self.file(tap.map(|tap| tap.as_fd()))
        };
        let bell = self.file(Some(self.doorbell.as_fd()));
        let guest = |place: usize| {
            let guest = self.attached.get(place).filter(|_| !self.paused.datagrams);
            self.file(guest.map(|channel| channel.socket.as_fd()))
        };
        let mut own = [bell, socket(Family::V4), socket(Family::V6)].into_iter();
        let mut files: [_; FILES_MAX] = std::array::from_fn(|at| match at.checked_sub(OWN_FILES) {
            Some(place) if place < self.taps.len() => tap(place),
            Some(place) => guest(place - self.taps.len()),
            None => own.next().unwrap_or_else(|| self.file(None)),
        });
        let guests = OWN_FILES + self.taps.len();
        let count = guests + self.attached.len();
        // A limit beyond what the kernel can count is none.
        let limit = wait.and_then(|wait| Timespec::try_from(wait).ok());
        match rustix::event::poll(&mut files[..count], limit.as_ref()) {
            Ok(_) => {
                let is_ready = |at: usize| at < count && !files[at].revents().is_empty();
                let [doorbell, v4, v6] = std::array::from_fn(is_ready);
                let is_tap = |at: usize| at < self.taps.len() && is_ready(OWN_FILES + at);
                let taps = std::array::from_fn(is_tap);
                let attached = std::array::from_fn(|at| is_ready(guests + at));
                Ok(Ready { doorbell, v4, v6, attached, taps })
            }
            Err(Errno::INTR) => Ok(Ready::default()),
            Err(errno) => Err(PortError::Poll(errno.into())),
        }
    }

    /// What to poll for an input; for none, the doorbell, asked for nothing.
    fn file<'a>(&'a self, input: Option<BorrowedFd<'a>>) -> PollFd<'a> {
        match input {
            Some(input) => PollFd::from_borrowed_fd(input, PollFlags::IN),
            None => PollFd::new(&self.doorbell, PollFlags::empty()),
        }
    }

    /// Reads a frame of each queue that has one, and again, until none has or it is enough.
    fn read_taps(
        &mut self,
        mut ready: [bool; TAP_QUEUES_MAX],
        batch: &mut Batch,
    ) -> Result<(), PortError> {
        let mut read_len = 0;
        while read_len < FRAMES_LEN && ready.contains(&true) {
            for (queue, is_ready) in ready.iter_mut().enumerate() {
                if *is_ready {
                    let len = self.read_tap(queue, batch)?;
                    *is_ready = len > 0;
                    read_len += len;
                }
            }
        }
        Ok(())
    }

    /// Reads one frame; 0 if there is none, or no buffer for it.
    fn read_tap(&mut self, queue: usize, batch: &mut Batch) -> Result<usize, PortError> {
        let Some(mut buffer) = self.frames.take() else { return Ok(0) };
        match rustix::io::read(self.taps.get(queue), buffer.bytes_mut()) {
            Ok(len @ 1..) => {
                self.tap_failures[queue] = 0;
                batch.push(Completion::TapFrame(TapFrame { buffer, len: len as u32 }));
                Ok(len)
            }
            result => {
                self.frames.put_back(buffer);
                self.on_tap_failure(queue, result.err().unwrap_or(Errno::IO)).map(|()| 0)
            }
        }
    }

    fn on_tap_failure(&mut self, queue: usize, errno: Errno) -> Result<(), PortError> {
        match errno {
            Errno::AGAIN | Errno::INTR => Ok(()),
            // What reads say once the device was deleted.
            Errno::BADFD | Errno::FAULT => Err(PortError::TapGone),
            _ => {
                self.counters.input_failures += 1;
                self.tap_failures[queue] += 1;
                if self.tap_failures[queue] > FAILURES_MAX {
                    return Err(PortError::TapRead(errno.into()));
                }
                Ok(())
            }
        }
    }

    /// Sends at once. Refused segmentation is told apart by trying again without.
    fn transmit(
        &mut self,
        slot: &[u8],
        len: usize,
        segment_size: usize,
        destination: &Destination,
    ) -> Result<(), SendError> {
        let channel = self.sending(destination).ok_or(SendError::NoSocket)?;
        let size = segmentation(len, segment_size).ok_or(SendError::TooBig)?;
        let data = &slot[..len];
        if size != 0 && self.segmentation.is_refused(destination) {
            let result = channel.socket.send_each(data, size, destination);
            self.counters.unsegmented_sends += 1;
            return result;
        }
        match channel.send(data, size, destination) {
            Err(libc::EIO | libc::EINVAL) if size != 0 => {
                channel.socket.send_each(data, size, destination)?;
                self.counters.unsegmented_sends += 1;
                self.segmentation.refuse(destination.remote.ip());
                Ok(())
            }
            result => result.map_err(SendError::from_errno),
        }
    }
}

impl Channel {
    fn new(socket: Arc<UdpSocket>) -> io::Result<Channel> {
        let state = UdpSocketState::new(UdpSockRef::from(&*socket))?;
        Ok(Channel { socket, state, failures: 0 })
    }

    /// Sends `data`, cut into `segment_size` bytes each if that is not 0.
    fn send(
        &self,
        data: &[u8],
        segment_size: u16,
        destination: &Destination,
    ) -> Result<(), libc::c_int> {
        let Destination { remote, local_ip, .. } = *destination;
        let usable = !local_ip.is_unspecified() && local_ip.is_ipv4() == remote.is_ipv4();
        let transmit = Transmit {
            destination: remote,
            ecn: None,
            contents: data,
            segment_size: (segment_size != 0).then_some(usize::from(segment_size)),
            src_ip: usable.then_some(local_ip),
        };
        let result = self.state.try_send(UdpSockRef::from(&*self.socket), &transmit);
        result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// Takes what there is, as far as buffers go. Nothing is ever cut: a buffer takes the largest
    /// datagram there can be.
    fn receive(
        &mut self,
        pool: &mut Pool,
        counters: &mut PortCounters,
        batch: &mut Batch,
    ) -> Result<(), PortError> {
        let count = pool.available().min(RECEIVES_MAX);
        if count == 0 {
            return Ok(());
        }
        let mut metas = [RecvMeta::default(); RECEIVES_MAX];
        let mut free = pool.free_mut();
        let mut slices: [_; RECEIVES_MAX] = std::array::from_fn(|_| {
            IoSliceMut::new(free.next().map_or(&mut [], |buffer| buffer.bytes_mut()))
        });
        drop(free);
        let socket = UdpSockRef::from(&*self.socket);
        match self.state.recv(socket, &mut slices[..count], &mut metas) {
            Ok(received) => {
                self.failures = 0;
                let filled = std::iter::from_fn(|| pool.take());
                for (meta, buffer) in metas.iter().take(received).zip(filled) {
                    let port = self.socket.port();
                    batch.push(Completion::Datagram(datagram(buffer, meta, port)));
                }
                Ok(())
            }
            Err(error) => self.on_failure(error, counters),
        }
    }

    fn on_failure(
        &mut self,
        error: io::Error,
        counters: &mut PortCounters,
    ) -> Result<(), PortError> {
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
            return Ok(());
        }
        counters.input_failures += 1;
        self.failures += 1;
        if self.failures > FAILURES_MAX { Err(PortError::Receive(error)) } else { Ok(()) }
    }
}

fn datagram(buffer: Buffer, meta: &RecvMeta, local_port: u16) -> Datagram {
    let unspecified = match meta.addr {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    Datagram {
        buffer,
        start: 0,
        len: meta.len as u32,
        segment_size: if meta.stride == 0 { meta.len as u32 } else { meta.stride as u32 },
        remote: meta.addr,
        local_ip: meta.dst_ip.unwrap_or(unspecified),
        local_port,
    }
}
