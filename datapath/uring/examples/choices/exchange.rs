//! Super-datagrams from one end of a veth pair to the other, both ends on one ring.

use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use crate::common::{Namespace, thread_cpu_time};
use crate::provided::{GROUP, Provided};

/// Payload bytes of each datagram.
const SEGMENT_LEN: u16 = 1472;
/// Bytes of a super-datagram: 44 datagrams.
const SEND_LEN: usize = 44 * SEGMENT_LEN as usize;
/// Super-datagrams per round.
const SENDS: usize = 8;
const RECEIVE_LEN: usize = 1 << 16;
const SOCKET_BUFFER_LEN: usize = 8 << 20;
const WARM_ROUNDS: u32 = 50;
/// A round takes microseconds; after this a datagram was lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Completions of receives have an index; those of sends this bit as well.
const IS_SEND: u64 = 1 << 32;
/// The completion of the cancellation that ends a measurement.
const CANCELLED: u64 = u64::MAX;

/// How datagrams leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    Queued,
    Direct,
    ZeroCopy,
}

/// One way to use a ring.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    pub has_fixed_files: bool,
    pub is_deferred: bool,
    /// One receive takes all that comes, into buffers that the kernel picks; else each has its own.
    pub is_multishot: bool,
    /// Receive buffers; a round fills eight.
    pub buffers: usize,
    pub sending: Sending,
}

/// Two sockets, each in a namespace of its own.
pub struct Exchange {
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Exchange {
    pub fn new() -> Exchange {
        let (here, there) = (Namespace::new(), Namespace::new());
        here.connect(&there);
        let receiver = there.run(|| UdpSocket::bind("10.1.0.2:4000").unwrap());
        let sender = here.run(|| UdpSocket::bind("10.1.0.1:4000").unwrap());
        sender.connect("10.1.0.2:4000").unwrap();
        set_option(&sender, libc::UDP_SEGMENT, i32::from(SEGMENT_LEN));
        set_option(&receiver, libc::UDP_GRO, 1);
        for socket in [&sender, &receiver] {
            rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER_LEN)
                .unwrap();
            rustix::net::sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER_LEN).unwrap();
        }
        // The first datagram finds the neighbour; more would not be kept while it does.
        sender.send(&[0]).unwrap();
        receiver.recv(&mut [0]).unwrap();
        Exchange { sender, receiver }
    }

    /// CPU microseconds per super-datagram, sent and received.
    pub fn measure(&self, variant: &Variant, time: Duration) -> f64 {
        let mut round = Round::new(self, *variant);
        for _ in 0..WARM_ROUNDS {
            round.run();
        }
        let (end, begun, mut rounds) = (Instant::now() + time, thread_cpu_time(), 0u32);
        while Instant::now() < end {
            round.run();
            rounds += 1;
        }
        let micros = (thread_cpu_time() - begun).as_secs_f64() * 1e6;
        round.finish();
        micros / f64::from(rounds) / SENDS as f64
    }
}

fn set_option(socket: &UdpSocket, option: i32, value: i32) {
    let (value, len) = (&raw const value, size_of::<i32>() as u32);
    // SAFETY: the descriptor is open, and the value an integer that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_UDP,
            option,
            value.cast::<libc::c_void>(),
            len,
        )
    };
    assert_eq!(result, 0, "UDP option {option}: {}", std::io::Error::last_os_error());
}

/// What is used again and again. The ring is dropped first, and with it all that is in flight.
struct Round {
    ring: IoUring,
    variant: Variant,
    sender: RawFd,
    receiver: RawFd,
    outputs: Vec<Vec<u8>>,
    inputs: Vec<Vec<u8>>,
    provided: Option<Provided>,
    armed: Vec<bool>,
    /// Sends, and notices of zero copy, that are not over.
    sending: usize,
    received: usize,
}

impl Round {
    fn new(exchange: &Exchange, variant: Variant) -> Round {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_cqsize(256);
        if variant.is_deferred {
            builder.setup_defer_taskrun();
        } else {
            builder.setup_coop_taskrun();
        }
        let ring = builder.build(128).unwrap();
        let (sender, receiver) = (exchange.sender.as_raw_fd(), exchange.receiver.as_raw_fd());
        ring.submitter().register_files(&[sender, receiver]).unwrap();
        let provided =
            variant.is_multishot.then(|| Provided::register(&ring, variant.buffers, RECEIVE_LEN));
        Round {
            ring,
            variant,
            sender,
            receiver,
            outputs: vec![vec![7; SEND_LEN]; SENDS],
            inputs: vec![
                vec![0; RECEIVE_LEN];
                if variant.is_multishot { 0 } else { variant.buffers }
            ],
            provided,
            armed: vec![false; variant.buffers],
            sending: 0,
            received: 0,
        }
    }

    /// All outputs to the other end and back to us.
    fn run(&mut self) {
        self.received = 0;
        self.arm();
        for at in 0..SENDS {
            self.send(at);
        }
        while self.received < SENDS * SEND_LEN || self.sending > 0 {
            self.wait();
            self.reap();
        }
    }

    fn wait(&self) {
        let limit = Timespec::from(PATIENCE);
        let limit = SubmitArgs::new().timespec(&limit);
        self.ring.submitter().submit_with_args(1, &limit).expect("no datagram is lost");
    }

    fn arm(&mut self) {
        if self.variant.is_multishot {
            if !std::mem::replace(&mut self.armed[0], true) {
                let entry = match self.variant.has_fixed_files {
                    true => opcode::RecvMulti::new(Fixed(1), GROUP).build(),
                    false => opcode::RecvMulti::new(Fd(self.receiver), GROUP).build(),
                };
                self.push(entry.user_data(0));
            }
            return;
        }
        for at in 0..self.variant.buffers {
            if std::mem::replace(&mut self.armed[at], true) {
                continue;
            }
            let (buffer, len) = (self.inputs[at].as_mut_ptr(), RECEIVE_LEN as u32);
            let entry = if self.variant.has_fixed_files {
                opcode::Recv::new(Fixed(1), buffer, len).build()
            } else {
                opcode::Recv::new(Fd(self.receiver), buffer, len).build()
            };
            self.push(entry.user_data(at as u64));
        }
    }

    fn send(&mut self, at: usize) {
        let (buffer, len) = (self.outputs[at].as_ptr(), SEND_LEN as u32);
        let entry = match (self.variant.sending, self.variant.has_fixed_files) {
            (Sending::Direct, _) => {
                // SAFETY: an open descriptor, and a buffer of this length that nobody writes.
                let sent = unsafe { libc::send(self.sender, buffer.cast(), SEND_LEN, 0) };
                assert_eq!(sent, SEND_LEN as isize, "{}", std::io::Error::last_os_error());
                return;
            }
            (Sending::Queued, true) => opcode::Send::new(Fixed(0), buffer, len).build(),
            (Sending::Queued, false) => opcode::Send::new(Fd(self.sender), buffer, len).build(),
            (Sending::ZeroCopy, true) => opcode::SendZc::new(Fixed(0), buffer, len).build(),
            (Sending::ZeroCopy, false) => opcode::SendZc::new(Fd(self.sender), buffer, len).build(),
        };
        self.sending += 1;
        self.push(entry.user_data(IS_SEND | at as u64));
    }

    fn push(&mut self, entry: Entry) {
        // SAFETY: the entry points at a buffer of this value that is neither moved nor touched
        // before its completion: `run` ends with all sends over, receives stay armed, and the ring
        // is dropped before the buffers.
        unsafe { self.ring.submission().push(&entry) }.unwrap();
    }

    fn reap(&mut self) {
        let completions: Vec<cqueue::Entry> = self.ring.completion().collect();
        for completion in completions {
            let (result, data) = (completion.result(), completion.user_data());
            if data & IS_SEND == 0 {
                self.take(&completion);
            } else {
                let is_notice = cqueue::notif(completion.flags());
                assert!(is_notice || result == SEND_LEN as i32, "a send failed: {result}");
                // A notice that the buffer is free again follows.
                self.sending -= usize::from(!cqueue::more(completion.flags()));
            }
        }
        if self.received < SENDS * SEND_LEN {
            self.arm();
        }
    }

    /// What a receive brought.
    fn take(&mut self, completion: &cqueue::Entry) {
        let (result, flags) = (completion.result(), completion.flags());
        // A multishot receive ends when no buffer is left, and is armed again.
        let is_exhausted = self.variant.is_multishot && result == -libc::ENOBUFS;
        assert!(result > 0 || is_exhausted, "a receive failed: {result}");
        self.received += result.max(0) as usize;
        if let (Some(provided), Some(index)) = (&mut self.provided, cqueue::buffer_select(flags)) {
            provided.provide(index);
        }
        self.armed[completion.user_data() as usize] = cqueue::more(flags);
    }

    /// Ends every armed receive, so that no buffer is in use any more.
    fn finish(mut self) {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        self.push(cancel.user_data(CANCELLED));
        while self.armed.iter().any(|is_armed| *is_armed) {
            self.wait();
            let completions: Vec<cqueue::Entry> = self.ring.completion().collect();
            let receives = completions.iter().filter(|one| one.user_data() != CANCELLED);
            receives.for_each(|one| self.armed[one.user_data() as usize] = false);
        }
    }
}
