//! Ports on the real kernel: their inputs, outputs, doorbell and end. Each test runs on both.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    KernelPort, MAC_A, Namespace, PATIENCE, fate, has_linux, on_every_port, open_files, reap_until,
    thread_cpu_time,
};
use ipop_uring::{
    Batch, Completion, Datagram, Destination, Driver, Family, PortConfig, PortError, SendError,
    WriteError, pin_to_core, probe,
};

const V4: [&str; 2] = ["10.1.0.1", "10.1.0.2"];
const V6: [&str; 2] = ["fd01::1", "fd01::2"];

/// Two connected namespaces and a port in each.
struct Pair<P> {
    _here: Namespace,
    _there: Namespace,
    sender: P,
    receiver: P,
    batch: Batch,
}

impl<P: KernelPort> Pair<P> {
    fn new(config: &PortConfig) -> Self {
        let (here, there) = (Namespace::new(), Namespace::new());
        here.connect(&there);
        let (sender, receiver): (P, P) = (here.port(config), there.port(config));
        let batch = sender.batch();
        Pair { _here: here, _there: there, sender, receiver, batch }
    }

    fn destination(&self, addresses: [&str; 2]) -> Destination {
        let local_ip = addresses[0].parse().unwrap();
        let remote = self.address_of(&self.receiver, addresses[1]);
        Destination { remote, local_ip, local_port: 0 }
    }

    fn address_of(&self, port: &P, ip: &str) -> SocketAddr {
        let family = if ip.contains(':') { Family::V6 } else { Family::V4 };
        SocketAddr::new(ip.parse().unwrap(), port.socket(family).unwrap().port())
    }

    fn send(&mut self, data: &[u8], segment_size: usize, destination: &Destination) {
        let mut slot = self.sender.output().unwrap();
        slot[..data.len()].copy_from_slice(data);
        self.sender.send(slot, data.len(), segment_size, destination);
    }

    fn fate(&mut self) -> Completion {
        fate(&mut self.sender, &mut self.batch)
    }

    /// One datagram, keeping those that came along for later calls.
    fn receive(&mut self) -> Datagram {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline);
            let mut kept = Batch::default();
            let mut found = None;
            for completion in self.batch.drain() {
                match completion {
                    Completion::Datagram(datagram) if found.is_none() => found = Some(datagram),
                    Completion::TapFrame(frame) => self.receiver.release_frame(frame),
                    other => kept.push(other),
                }
            }
            self.batch = kept;
            if let Some(datagram) = found {
                return datagram;
            }
            self.receiver.wait(Some(Duration::from_millis(100)), &mut self.batch).unwrap();
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn a_segmented_send_arrives_as_one_completion<P: KernelPort>() {
    let mut pair = Pair::<P>::new(&PortConfig::default());
    for addresses in [V4, V6] {
        let destination = pair.destination(addresses);
        let data = pattern(40 * 1400 - 300);
        pair.send(&data, 1400, &destination);
        assert!(matches!(pair.fate(), Completion::Sent { slot: 0 }));
        let datagram = pair.receive();
        assert_eq!(datagram.data(), data);
        assert_eq!(datagram.segment_size(), 1400);
        assert_eq!(datagram.segments().count(), 40);
        assert_eq!(datagram.remote(), pair.address_of(&pair.sender, addresses[0]));
        assert_eq!(datagram.local_ip().to_string(), addresses[1]);
        pair.receiver.release_datagram(datagram);
    }
}

fn single_datagrams_go_by_queue_and_past_it<P: KernelPort>() {
    let mut pair = Pair::<P>::new(&PortConfig::default());
    for addresses in [V4, V6] {
        let mut destination = pair.destination(addresses);
        pair.send(&pattern(900), 1400, &destination);
        assert!(matches!(pair.fate(), Completion::Sent { .. }));
        let datagram = pair.receive();
        assert_eq!((datagram.data(), datagram.segment_size()), (&pattern(900)[..], 900));
        pair.receiver.release_datagram(datagram);
        // The kernel chooses the source, and finds the same.
        destination.local_ip = [0, 0, 0, 0].into();
        pair.sender.send_plain(b"check", &destination).unwrap();
        let datagram = pair.receive();
        assert_eq!(datagram.data(), b"check");
        assert_eq!(datagram.remote().ip().to_string(), addresses[0]);
        pair.receiver.release_datagram(datagram);
        pair.sender.send_plain(b"", &destination).unwrap();
        assert_eq!(pair.receive().data(), b"", "an empty datagram is one");
    }
}

fn the_source_address_is_the_one_asked_for<P: KernelPort>() {
    let mut pair = Pair::<P>::new(&PortConfig::default());
    pair._here.ip("addr add 10.1.0.77/32 dev lo");
    let mut destination = pair.destination(V4);
    destination.local_ip = "10.1.0.77".parse().unwrap();
    pair.send(b"from elsewhere", 0, &destination);
    assert!(matches!(pair.fate(), Completion::Sent { .. }));
    assert_eq!(pair.receive().remote().ip().to_string(), "10.1.0.77");
}

fn send_errors_are_told_apart<P: KernelPort>() {
    let mut pair = Pair::<P>::new(&PortConfig::default());
    for addresses in [V4, V6] {
        let good = pair.destination(addresses);
        pair.send(&pattern(5000), 0, &good);
        let error = SendError::TooBig;
        assert!(matches!(pair.fate(), Completion::SendFailed { error: e, .. } if e == error));
        pair.send(&pattern(5000), 2000, &good);
        let fate = pair.fate();
        assert!(matches!(fate, Completion::SendFailed { error: e, .. } if e == error), "{fate:?}");
        let gone = Destination {
            local_ip: if good.remote.is_ipv4() { "10.1.0.99" } else { "fd01::99" }.parse().unwrap(),
            ..good
        };
        for segment_size in [0, 100] {
            pair.send(&pattern(1000), segment_size, &gone);
            let fate = pair.fate();
            let Completion::SendFailed { error: SendError::Unreachable(_), .. } = fate else {
                panic!("{fate:?}")
            };
        }
    }
    let no_route = Destination {
        remote: "192.0.2.1:9".parse().unwrap(),
        local_ip: [0, 0, 0, 0].into(),
        local_port: 0,
    };
    pair.send(b"x", 0, &no_route);
    let fate = pair.fate();
    let unreachable = SendError::Unreachable(libc::ENETUNREACH);
    assert!(matches!(fate, Completion::SendFailed { error, .. } if error == unreachable));
    assert_eq!(pair.sender.send_plain(b"x", &no_route), Err(unreachable));
    // Beyond the limits of the call; nothing reaches the kernel, every slot comes back.
    let good = pair.destination(V4);
    for (len, segment_size) in [(0, 0), (65_508, 1400), (65_000, 1000), (6500, 100)] {
        pair.send(&pattern(len), segment_size, &good);
        let fate = pair.fate();
        let too_big = SendError::TooBig;
        assert!(matches!(fate, Completion::SendFailed { slot: 0, error } if error == too_big));
    }
    assert!(pair.sender.probe().segmentation);
    assert_eq!(pair.sender.counters().unsegmented_sends, 0);
}

fn a_route_without_segmentation_is_served_datagram_by_datagram<P: KernelPort>() {
    let mut pair = Pair::<P>::new(&PortConfig::default());
    let destination = pair.destination(V4);
    // A socket without UDP checksums is one that the kernel refuses to segment for.
    let (one, len) = (1i32, size_of::<i32>() as libc::socklen_t);
    let socket = std::os::fd::AsFd::as_fd(&**pair.sender.socket(Family::V4).unwrap()).as_raw_fd();
    // SAFETY: SO_NO_CHECK reads one int.
    let set = unsafe {
        let value = (&raw const one).cast();
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, value, len)
    };
    assert_eq!(set, 0);
    for turn in 1..=3 {
        let data = pattern(3 * 1000 + 7);
        pair.send(&data, 1000, &destination);
        assert!(matches!(pair.fate(), Completion::Sent { .. }));
        let mut got = Vec::new();
        while got.len() < data.len() {
            let datagram = pair.receive();
            got.extend_from_slice(datagram.data());
            pair.receiver.release_datagram(datagram);
        }
        assert_eq!(got, data);
        assert_eq!(pair.sender.counters().unsegmented_sends, turn);
    }
    let plain = pair.sender.socket(Family::V4).unwrap().clone();
    plain.send_segments(&pattern(2500), 1000, &destination).unwrap();
}

fn receiving_survives_the_end_of_the_buffers<P: KernelPort>() {
    let config = PortConfig { datagrams: 4, ..PortConfig::default() };
    let mut pair = Pair::<P>::new(&config);
    let destination = pair.destination(V4);
    let count = 40;
    // Arm first, so that the burst meets a running receive.
    pair.receiver.wait(Some(Duration::ZERO), &mut pair.batch).unwrap();
    for n in 0..count {
        pair.sender.send_plain(&pattern(100 + n), &destination).unwrap();
    }
    // With all buffers kept, nothing more comes, and waiting still waits.
    let mut held = Vec::new();
    while held.len() < 4 {
        held.push(pair.receive());
    }
    let (begun, cpu) = (Instant::now(), thread_cpu_time());
    while begun.elapsed() < Duration::from_millis(200) {
        pair.receiver.wait(Some(Duration::from_millis(100)), &mut pair.batch).unwrap();
        for completion in pair.batch.drain() {
            assert!(matches!(completion, Completion::TapFrame(_)), "{completion:?}");
        }
    }
    assert!(thread_cpu_time() - cpu < Duration::from_millis(50), "spins without buffers");
    let mut lengths = Vec::new();
    while lengths.len() < count {
        let datagram = held.pop().unwrap_or_else(|| pair.receive());
        lengths.push(datagram.data().len());
        pair.receiver.release_datagram(datagram);
    }
    lengths.sort_unstable();
    assert_eq!(lengths, (100..100 + count).collect::<Vec<_>>(), "none was lost");
    assert!(pair.receiver.counters().datagrams_exhausted > 0);
}

fn slots_come_back_and_the_last_used_is_next<P: KernelPort>() {
    let config = PortConfig { slots: 8, ..PortConfig::default() };
    let mut pair = Pair::<P>::new(&config);
    let destination = pair.destination(V4);
    for _ in 0..50 {
        let mut taken = Vec::new();
        while let Some(slot) = pair.sender.output() {
            taken.push(slot);
        }
        assert_eq!(taken.len(), 8);
        let last = taken.pop().unwrap();
        for (n, slot) in taken.into_iter().enumerate() {
            match n {
                0 => pair.sender.send(slot, 100, 0, &destination),
                1 => pair.sender.send(slot, 70_000, 0, &destination),
                2 => pair.sender.send(slot, 5_000, 0, &destination),
                3 => pair.sender.write_tap(slot, 0..3),
                4 => pair.sender.write_tap(slot, 5..5),
                _ => pair.sender.discard(slot),
            }
        }
        pair.sender.discard(last);
        let mut fates = 0;
        reap_until(&mut pair.sender, &mut pair.batch, |port, completion| {
            match completion {
                Completion::TapFrame(frame) => port.release_frame(frame),
                _ => fates += 1,
            }
            fates == 5
        });
    }
    let slot = pair.sender.output().unwrap();
    let index = slot.index();
    pair.sender.discard(slot);
    assert_eq!(pair.sender.output().unwrap().index(), index);
}

fn a_tap_refuses_bad_frames_and_says_why<P: KernelPort>() {
    let namespace = Namespace::new();
    let mut port: P = namespace.port(&PortConfig::default());
    let mut batch = port.batch();
    let mut write = |port: &mut P, header: [u8; 12], frame_len: usize| {
        let mut slot = port.output().unwrap();
        slot.fill(0);
        slot[20..32].copy_from_slice(&header);
        port.write_tap(slot, 20..32 + frame_len);
        match fate(port, &mut batch) {
            Completion::WriteFailed { error, .. } => Some(error),
            Completion::Written { .. } => None,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(write(&mut port, [0; 12], 60), None);
    assert_eq!(write(&mut port, [0; 12], 5), Some(WriteError::Malformed), "no Ethernet header");
    let mut beyond = [0; 12];
    (beyond[0], beyond[6]) = (1, 200);
    assert_eq!(write(&mut port, beyond, 60), Some(WriteError::Malformed), "checksum beyond");
    namespace.ip("link set tap0 down");
    assert_eq!(write(&mut port, [0; 12], 60), Some(WriteError::InterfaceDown));
    namespace.ip("link set tap0 up");
    assert_eq!(write(&mut port, [0; 12], 60), None);
}

fn a_doorbell_wakes_and_rings_become_one<P: KernelPort>() {
    let namespace = Namespace::new();
    let mut port: P = namespace.port(&PortConfig::default());
    let mut batch = port.batch();
    let doorbell = port.doorbell();
    let count = |batch: &mut Batch, port: &mut P| {
        let mut rings = 0;
        for completion in batch.drain() {
            match completion {
                Completion::Doorbell => rings += 1,
                Completion::TapFrame(frame) => port.release_frame(frame),
                other => panic!("{other:?}"),
            }
        }
        rings
    };
    for _ in 0..1000 {
        doorbell.ring();
    }
    let mut rings = 0;
    let quiet = Instant::now() + Duration::from_millis(200);
    while Instant::now() < quiet {
        port.wait(Some(Duration::from_millis(20)), &mut batch).unwrap();
        rings += count(&mut batch, &mut port);
    }
    assert_eq!(rings, 1);
    for _ in 0..100 {
        let ringer = thread::spawn({
            let doorbell = doorbell.clone();
            move || doorbell.ring()
        });
        let deadline = Instant::now() + PATIENCE;
        while rings == 1 {
            assert!(Instant::now() < deadline, "did not wake");
            port.wait(None, &mut batch).unwrap();
            rings += count(&mut batch, &mut port);
        }
        rings = 1;
        ringer.join().unwrap();
    }
}

fn no_ring_of_a_doorbell_is_lost<P: KernelPort>() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let namespace = Namespace::new();
    let mut port: P = namespace.port(&PortConfig::default());
    let mut batch = port.batch();
    let queued = AtomicU64::new(0);
    let (doorbell, total, mut taken) = (port.doorbell(), 200_000u64, 0u64);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..total / 2 {
                    queued.fetch_add(1, Ordering::Release);
                    doorbell.ring();
                }
            });
        }
        let deadline = Instant::now() + 3 * PATIENCE;
        while taken < total {
            assert!(Instant::now() < deadline, "asleep with {taken} of {total} taken");
            port.wait(Some(PATIENCE), &mut batch).unwrap();
            for completion in batch.drain() {
                match completion {
                    Completion::Doorbell => taken += queued.swap(0, Ordering::Acquire),
                    Completion::TapFrame(frame) => port.release_frame(frame),
                    other => panic!("{other:?}"),
                }
            }
        }
    });
}

/// Lets the interface's own first frames pass.
fn settle(port: &mut impl KernelPort, batch: &mut Batch) {
    let quiet = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < quiet {
        port.wait(Some(Duration::from_millis(50)), batch).unwrap();
        for completion in batch.drain() {
            if let Completion::TapFrame(frame) = completion {
                port.release_frame(frame);
            }
        }
    }
}

fn waiting_keeps_time_and_costs_nothing<P: KernelPort>() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    });
    let mut port: P = namespace.port(&PortConfig { single_reads: false, ..PortConfig::default() });
    let mut batch = port.batch();
    port.doorbell().ring();
    settle(&mut port, &mut batch);
    for limit in [0, 1, 10, 1500].map(Duration::from_millis) {
        let (begun, cpu) = (Instant::now(), thread_cpu_time());
        port.wait(Some(limit), &mut batch).unwrap();
        let (took, cpu) = (begun.elapsed(), thread_cpu_time() - cpu);
        assert!(batch.is_empty(), "{batch:?}");
        assert!(took >= limit, "{took:?} of {limit:?}");
        assert!(took < limit + Duration::from_secs(1), "{took:?} for {limit:?}");
        assert!(cpu < Duration::from_millis(5), "{cpu:?} of CPU for {limit:?}");
    }
}

fn a_batch_with_something_in_it_is_not_kept_waiting<P: KernelPort>() {
    let namespace = Namespace::new();
    let mut port: P = namespace.port(&PortConfig::default());
    let mut batch = port.batch();
    let slot = port.output().unwrap();
    port.write_tap(slot, 9..9);
    port.wait(None, &mut batch).unwrap();
    assert!(batch.drain().any(|fate| matches!(fate, Completion::WriteFailed { .. })));
    batch.push(Completion::Doorbell);
    port.wait(None, &mut batch).unwrap();
    assert!(!batch.is_empty());
}

fn dropping_a_port_releases_everything<P: KernelPort>() {
    // Files are counted per process, so the count runs in one that does nothing else.
    if std::env::var_os("IPOP_URING_ALONE").is_none() {
        let name = format!("{}::dropping_a_port_releases_everything", P::NAME);
        let test = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--test-threads", "1"])
            .env("IPOP_URING_ALONE", "1")
            .status();
        assert!(test.unwrap().success());
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect(&there);
    let mut files = None;
    for turn in 0..10 {
        let before = open_files();
        assert_eq!(*files.get_or_insert(before), before, "turn {turn}");
        let config = PortConfig { single_reads: turn % 2 == 1, ..PortConfig::default() };
        let mut port: P = here.port(&config);
        let destination = Destination {
            remote: "10.1.0.2:9".parse().unwrap(),
            local_ip: "10.1.0.1".parse().unwrap(),
            local_port: 0,
        };
        assert!(here.ip("-o link show").contains("tap0"));
        let mut batch = port.batch();
        for n in 0..5 {
            port.wait(Some(Duration::from_millis(n)), &mut batch).unwrap();
            let slot = port.output().unwrap();
            port.send(slot, 1000, 100, &destination);
            port.doorbell().ring();
        }
        // Values that outlive the port keep their memory.
        let kept = port.output().unwrap();
        let begun = Instant::now();
        drop(port);
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        assert!(!here.ip("-o link show").contains("tap0"), "the interface is gone");
        assert!(kept.iter().all(|byte| *byte == 0));
        for completion in batch.drain() {
            if let Completion::TapFrame(frame) = completion {
                assert!(!frame.bytes().is_empty());
            }
        }
    }
}

fn a_port_moves_to_another_thread_before_it_runs<P: KernelPort>() {
    let namespace = Namespace::new();
    let mut port: P = namespace.port(&PortConfig::default());
    let doorbell = port.doorbell();
    let runner = thread::spawn(move || {
        pin_to_core(0).unwrap();
        let mut batch = port.batch();
        reap_until(&mut port, &mut batch, |port, completion| match completion {
            Completion::TapFrame(frame) => {
                port.release_frame(frame);
                false
            }
            completion => matches!(completion, Completion::Doorbell),
        });
    });
    doorbell.ring();
    runner.join().unwrap();
}

fn a_port_dropped_on_a_foreign_thread_harms_nobody<P: KernelPort>() {
    let namespace = Namespace::new();
    let mut port: P = namespace.port(&PortConfig::default());
    let mut batch = port.batch();
    port.wait(Some(Duration::from_millis(1)), &mut batch).unwrap();
    thread::spawn(move || drop(port)).join().unwrap();
}

fn a_deleted_interface_ends_the_port<P: KernelPort>() {
    let namespace = Namespace::new();
    for single_reads in [false, true] {
        let mut port: P = namespace.port(&PortConfig { single_reads, ..PortConfig::default() });
        let mut batch = port.batch();
        port.wait(Some(Duration::ZERO), &mut batch).unwrap();
        namespace.ip("link del tap0");
        let deadline = Instant::now() + PATIENCE;
        let error = loop {
            assert!(Instant::now() < deadline, "nobody noticed");
            if let Err(error) = port.wait(Some(Duration::from_millis(100)), &mut batch) {
                break error;
            }
            for completion in batch.drain() {
                if let Completion::TapFrame(frame) = completion {
                    port.release_frame(frame);
                }
            }
        };
        assert!(matches!(error, PortError::TapGone), "{error}");
    }
}

fn a_port_says_what_it_runs_on<P: KernelPort>() {
    let namespace = Namespace::new();
    let (_tap, queue) = namespace.tap("tap0", MAC_A, "10.9.0.1");
    let v4 = Some(namespace.socket(Family::V4));
    let config = PortConfig { single_reads: true, ..PortConfig::default() };
    let mut port = P::open(queue, v4, None, &config);
    let driver = match port.probe().driver {
        Driver::Ring(features) => {
            assert_eq!(probe().unwrap().tap_multishot, has_linux(6, 7));
            assert!(!features.tap_multishot);
            "io_uring (deferred, queued tap reads)"
        }
        Driver::PollLoop => "poll loop",
    };
    assert_eq!(port.probe().to_string(), format!("{driver}, UDP IPv4, segmented sends"));
    let v6 = Destination {
        remote: "[::1]:9".parse().unwrap(),
        local_ip: [0, 0, 0, 0].into(),
        local_port: 0,
    };
    assert_eq!(port.send_plain(b"x", &v6), Err(SendError::NoSocket));
    let slot = port.output().unwrap();
    port.send(slot, 1, 0, &v6);
    let fate = fate(&mut port, &mut Batch::default());
    assert!(matches!(fate, Completion::SendFailed { error: SendError::NoSocket, .. }));
}

on_every_port! {
    a_segmented_send_arrives_as_one_completion
    single_datagrams_go_by_queue_and_past_it
    the_source_address_is_the_one_asked_for
    send_errors_are_told_apart
    a_route_without_segmentation_is_served_datagram_by_datagram
    receiving_survives_the_end_of_the_buffers
    slots_come_back_and_the_last_used_is_next
    a_tap_refuses_bad_frames_and_says_why
    a_doorbell_wakes_and_rings_become_one
    no_ring_of_a_doorbell_is_lost
    waiting_keeps_time_and_costs_nothing
    a_batch_with_something_in_it_is_not_kept_waiting
    dropping_a_port_releases_everything
    a_port_moves_to_another_thread_before_it_runs
    a_port_dropped_on_a_foreign_thread_harms_nobody
    a_deleted_interface_ends_the_port
    a_port_says_what_it_runs_on
}
