//! Private network namespaces, and what several tests want of a port.

#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses a part of it")]

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipop_uring::{
    Batch, Completion, Doorbell, Family, PollPort, Port, PortConfig, PortCounters, PortFeatures,
    Tap, TapQueue, TapQueues, UdpSocket, UringPort,
};

pub const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
pub const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the kernel is this one or a later one.
pub fn has_linux(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (major, minor)
}

/// A port on the real kernel, whichever way it goes there.
pub trait KernelPort: Port + Send + Sized + 'static {
    /// The module that [`on_every_port`] makes for it.
    const NAME: &str;

    fn open(
        taps: impl Into<TapQueues>,
        v4: Option<Arc<UdpSocket>>,
        v6: Option<Arc<UdpSocket>>,
        config: &PortConfig,
    ) -> Self;
    fn doorbell(&self) -> Doorbell;
    fn socket(&self, family: Family) -> Option<&Arc<UdpSocket>>;
    fn batch(&self) -> Batch;
    fn probe(&self) -> PortFeatures;
    fn counters(&self) -> PortCounters;
}

macro_rules! kernel_port {
    ($port:ident, $name:literal) => {
        impl KernelPort for $port {
            const NAME: &str = $name;

            fn open(
                taps: impl Into<TapQueues>,
                v4: Option<Arc<UdpSocket>>,
                v6: Option<Arc<UdpSocket>>,
                config: &PortConfig,
            ) -> Self {
                $port::open(taps, v4, v6, config).unwrap()
            }

            fn doorbell(&self) -> Doorbell {
                self.doorbell()
            }

            fn socket(&self, family: Family) -> Option<&Arc<UdpSocket>> {
                self.socket(family)
            }

            fn batch(&self) -> Batch {
                self.batch()
            }

            fn probe(&self) -> PortFeatures {
                self.probe()
            }

            fn counters(&self) -> PortCounters {
                self.counters()
            }
        }
    };
}

kernel_port!(UringPort, "uring");
kernel_port!(PollPort, "poll");

/// Tests that each port has to pass, by the names of their generic functions.
macro_rules! on_every_port {
    ($($test:ident)*) => {
        mod uring {
            $(#[test]
            fn $test() {
                super::$test::<ipop_uring::UringPort>();
            })*
        }

        mod poll {
            $(#[test]
            fn $test() {
                super::$test::<ipop_uring::PollPort>();
            })*
        }
    };
}
pub(crate) use on_every_port;

/// A network namespace that lives as long as this value and what was opened in it.
pub struct Namespace(OwnedFd);

impl Namespace {
    pub fn new() -> Namespace {
        let unshared = thread::spawn(|| {
            // SAFETY: changes the namespace of this thread alone.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "needs CAP_SYS_ADMIN");
            OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
        });
        let namespace = Namespace(unshared.join().unwrap());
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `work` on a thread of its own inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                // SAFETY: a namespace file descriptor; changes this thread alone.
                assert_eq!(unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
                work()
            });
            worker.join().unwrap()
        })
    }

    /// Runs `ip` with space-separated arguments and gives its output.
    pub fn ip(&self, arguments: &str) -> String {
        let output = self.run(|| Command::new("ip").args(arguments.split(' ')).output().unwrap());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A veth pair: `10.1.0.1` and `fd01::1` here, `.2` and `::2` there.
    pub fn connect(&self, peer: &Namespace) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), peer.0.as_raw_fd());
        self.ip(&format!("link add veth0 type veth peer name veth0 netns {path}"));
        for (namespace, n) in [(self, 1), (peer, 2)] {
            namespace.ip(&format!("addr add 10.1.0.{n}/24 dev veth0"));
            namespace.ip(&format!("addr add fd01::{n}/64 dev veth0 nodad"));
            namespace.ip("link set veth0 up");
        }
    }

    /// An interface that is up, with an address and an MTU of 1400.
    pub fn tap(&self, name: &str, mac: [u8; 6], address: &str) -> (Tap, TapQueue) {
        let (tap, mut queues) = self.tap_with_queues(name, 1, mac, address);
        (tap, queues.remove(0))
    }

    /// As [`tap`](Self::tap), with so many queues.
    pub fn tap_with_queues(
        &self,
        name: &str,
        queues: usize,
        mac: [u8; 6],
        address: &str,
    ) -> (Tap, Vec<TapQueue>) {
        let address: IpAddr = address.parse().unwrap();
        self.run(|| {
            let (mut tap, queues) = Tap::open(name, queues, mac).unwrap();
            tap.set_mtu(1400).unwrap();
            tap.add_address(address, if address.is_ipv4() { 24 } else { 64 }).unwrap();
            tap.set_up(true).unwrap();
            (tap, queues)
        })
    }

    pub fn socket(&self, family: Family) -> Arc<UdpSocket> {
        self.run(|| Arc::new(UdpSocket::bind(family, 0).unwrap()))
    }

    /// A port with a tap that nobody uses and sockets of both families.
    pub fn port<P: KernelPort>(&self, config: &PortConfig) -> P {
        let (_, queue) = self.tap("tap0", MAC_A, "10.9.0.1");
        let (v4, v6) = (self.socket(Family::V4), self.socket(Family::V6));
        P::open(queue, Some(v4), Some(v6), config)
    }
}

/// Waits until `done` says of a completion that it was the last one needed.
pub fn reap_until<P: KernelPort>(
    port: &mut P,
    batch: &mut Batch,
    mut done: impl FnMut(&mut P, Completion) -> bool,
) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "nothing came");
        port.wait(Some(Duration::from_millis(100)), batch).unwrap();
        let mut finished = false;
        for completion in batch.drain() {
            finished |= done(port, completion);
        }
        if finished {
            return;
        }
    }
}

/// Waits for the fate of one output, giving back whatever else comes.
pub fn fate(port: &mut impl KernelPort, batch: &mut Batch) -> Completion {
    let mut fate = None;
    reap_until(port, batch, |port, completion| {
        match completion {
            Completion::TapFrame(frame) => port.release_frame(frame),
            Completion::Datagram(datagram) => port.release_datagram(datagram),
            Completion::Doorbell | Completion::DatagramLost => {}
            other => fate = Some(other),
        }
        fate.is_some()
    });
    fate.unwrap()
}

/// User and system time of the calling thread.
pub fn thread_cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

pub fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
