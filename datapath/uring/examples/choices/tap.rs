//! Frames out of a tap that is always full.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ipop_uring::{Completion, PollPort, PortConfig, TapQueue, UringPort, pin_to_core};

use crate::common::{KernelPort, MAC_A, Namespace, thread_cpu_time};

/// How a port reads a tap.
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    /// One queued read takes all frames.
    Multishot,
    /// Several queued reads take a frame each.
    Single,
    /// By plain system calls.
    PollLoop,
}

/// A namespace, and how its traffic looks.
pub struct TapReads {
    namespace: Namespace,
    /// Datagrams of one send: more than one make a super-datagram.
    segments: usize,
}

impl TapReads {
    pub fn new(segments: usize) -> TapReads {
        TapReads { namespace: Namespace::new(), segments }
    }

    /// CPU microseconds per frame.
    pub fn measure(&self, reading: Reading, time: Duration) -> f64 {
        let (tap, queue) = self.namespace.tap("tap0", MAC_A, "10.9.0.1");
        let neighbour = "neigh replace 10.9.0.2 lladdr 02:00:00:00:00:0b dev tap0";
        self.namespace.ip(neighbour);
        let source = self.namespace.run(|| UdpSocket::bind("10.9.0.1:0").unwrap());
        source.connect("10.9.0.2:9").unwrap();
        let len = if self.segments == 1 { 64 } else { 1300 };
        set_segment_len(&source, len);
        let done = AtomicBool::new(false);
        let micros = thread::scope(|scope| {
            scope.spawn(|| {
                pin_to_core(1).unwrap();
                let bytes = vec![7; self.segments * len];
                while !done.load(Ordering::Relaxed) {
                    // A tap that is full drops: it is meant to be.
                    let _ = source.send(&bytes);
                }
            });
            let micros = match reading {
                Reading::PollLoop => read::<PollPort>(queue, false, time),
                Reading::Multishot => read::<UringPort>(queue, false, time),
                Reading::Single => read::<UringPort>(queue, true, time),
            };
            done.store(true, Ordering::Relaxed);
            micros
        });
        drop(tap);
        micros
    }
}

fn read<P: KernelPort>(queue: TapQueue, single_reads: bool, time: Duration) -> f64 {
    let config = PortConfig { single_reads, ..PortConfig::default() };
    let mut port = P::open(queue, None, None, &config);
    let mut batch = port.batch();
    let (mut frames, mut begun) = (0u32, thread_cpu_time());
    let warm = Instant::now() + time / 4;
    let end = warm + time;
    let mut is_warm = false;
    while Instant::now() < end {
        if !is_warm && Instant::now() >= warm {
            (is_warm, frames, begun) = (true, 0, thread_cpu_time());
        }
        port.wait(Some(Duration::from_millis(10)), &mut batch).unwrap();
        for completion in batch.drain() {
            if let Completion::TapFrame(frame) = completion {
                frames += u32::from(frame.bytes().len() > 64);
                port.release_frame(frame);
            }
        }
    }
    (thread_cpu_time() - begun).as_secs_f64() * 1e6 / f64::from(frames.max(1))
}

fn set_segment_len(socket: &UdpSocket, len: usize) {
    let value = len as i32;
    let (value, len) = (&raw const value, size_of::<i32>() as u32);
    // SAFETY: the descriptor is open, and the value an integer that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            value.cast::<libc::c_void>(),
            len,
        )
    };
    assert_eq!(result, 0, "UDP_SEGMENT: {}", std::io::Error::last_os_error());
}
