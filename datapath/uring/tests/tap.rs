//! The tap interface on the real kernel.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::{MAC_A, Namespace, has_linux};
use ipop_uring::{Offloads, Tap, TapError};

fn links(namespace: &Namespace) -> String {
    namespace.ip("-o link show")
}

#[test]
fn a_tap_has_what_was_asked_for() {
    let namespace = Namespace::new();
    let (_queues, offloads) = namespace.run(|| {
        let (mut tap, queues) = Tap::open("ipop0", 1, MAC_A).unwrap();
        tap.set_mtu(1372).unwrap();
        tap.set_queue_len(777).unwrap();
        tap.set_gso_segments_max(44).unwrap();
        tap.add_address("10.9.0.1".parse().unwrap(), 24).unwrap();
        tap.add_address("10.9.0.1".parse().unwrap(), 24).unwrap();
        tap.add_address("fd09::1".parse().unwrap(), 64).unwrap();
        tap.set_up(true).unwrap();
        assert_eq!((tap.name(), tap.index() > 0), ("ipop0", true));
        (queues, tap.offloads())
    });
    assert_eq!(offloads, if has_linux(6, 2) { Offloads::TsoUso } else { Offloads::Tso });
    let link = namespace.ip("-d link show ipop0");
    for word in ["mtu 1372", "qlen 777", "gso_max_segs 44", "02:00:00:00:00:0a", "LOWER_UP"] {
        assert!(link.contains(word), "{word} in {link}");
    }
    let addresses = namespace.ip("addr show ipop0");
    assert!(addresses.contains("inet 10.9.0.1/24 brd 10.9.0.255"), "{addresses}");
    assert!(addresses.contains("inet6 fd09::1/64"), "{addresses}");
    assert!(!addresses.contains("tentative"), "usable at once: {addresses}");
    let route = namespace.ip("route get 10.9.0.77");
    assert!(route.contains("dev ipop0"), "{route}");
}

#[test]
fn addresses_go_and_come() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let (mut tap, _queues) = Tap::open("ipop0", 1, MAC_A).unwrap();
        tap.set_up(true).unwrap();
        for (address, prefix) in [("10.9.0.1", 24), ("fd09::1", 64)] {
            let address: IpAddr = address.parse().unwrap();
            tap.add_address(address, prefix).unwrap();
            assert!(namespace.ip("addr show ipop0").contains(&address.to_string()));
            tap.remove_address(address, prefix).unwrap();
            tap.remove_address(address, prefix).unwrap();
            assert!(!namespace.ip("addr show ipop0").contains(&address.to_string()));
        }
    });
}

#[test]
fn the_tap_is_silent_when_it_comes_up() {
    use std::os::fd::AsFd;
    let namespace = Namespace::new();
    namespace.run(|| {
        let (mut tap, queues) = Tap::open("ipop0", 1, MAC_A).unwrap();
        tap.add_address("fd09::1".parse().unwrap(), 64).unwrap();
        tap.set_up(true).unwrap();
        let settings = "/proc/sys/net/ipv6/conf/ipop0";
        for setting in ["accept_ra", "router_solicitations", "dad_transmits"] {
            let value = std::fs::read_to_string(format!("{settings}/{setting}")).unwrap();
            assert_eq!(value.trim(), "0", "{setting}");
        }
        // What remains are multicast listener reports; no solicitation of router or neighbour.
        let deadline = Instant::now() + Duration::from_millis(1500);
        let mut frame = [0; 2048];
        let (fd, mut frames) = (queues[0].as_fd(), 0);
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let timeout =
                rustix::event::Timespec { tv_sec: 0, tv_nsec: 1 + left.subsec_nanos() as i64 };
            let mut poll = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
            if rustix::event::poll(&mut poll, Some(&timeout)).unwrap() == 0 {
                continue;
            }
            let len = rustix::io::read(fd, &mut frame).unwrap();
            let icmp = frame[12 + 14 + 40];
            assert!(len < 12 + 14 + 40 || ![133, 135].contains(&icmp), "ICMPv6 type {icmp}");
            frames += 1;
        }
        assert!(frames < 8, "{frames} frames");
    });
}

#[test]
fn closing_the_queues_removes_the_interface() {
    let namespace = Namespace::new();
    let (tap, queues) = namespace.run(|| Tap::open("ipop%d", 2, MAC_A).unwrap());
    assert_eq!(tap.name(), "ipop0", "numbered by the kernel");
    assert_eq!(queues.len(), 2);
    assert!(links(&namespace).contains("ipop0"));
    drop(queues);
    assert!(!links(&namespace).contains("ipop0"));
    drop(tap);
}

#[test]
fn a_name_that_is_busy_is_tried_again() {
    let namespace = Namespace::new();
    let (_, queues) = namespace.run(|| Tap::open("ipop0", 1, MAC_A).unwrap());
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| namespace.run(|| Tap::open("ipop0", 1, MAC_A)));
        std::thread::sleep(Duration::from_millis(200));
        drop(queues);
        opener.join().unwrap().unwrap();
    });
}

#[test]
fn errors_say_what_to_do() {
    let namespace = Namespace::new();
    namespace.run(|| {
        for name in ["", "a/b", "a b", "a:b", ".", "sixteen-bytes-no"] {
            let error = Tap::open(name, 1, MAC_A).unwrap_err();
            assert!(matches!(error, TapError::InvalidName { .. }), "{name}: {error}");
        }
        let (mut tap, _queues) = Tap::open("ipop0", 1, MAC_A).unwrap();
        let begun = Instant::now();
        let error = Tap::open("ipop0", 1, MAC_A).unwrap_err();
        assert!(matches!(error, TapError::NameTaken { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        let error = Tap::open("lo", 1, MAC_A).unwrap_err();
        assert!(matches!(error, TapError::NameTaken { .. }), "{error}");
        let error = tap.set_mtu(20).unwrap_err();
        assert!(error.to_string().contains("MTU to 20 on interface ipop0"), "{error}");
        tap.set_mtu(1000).unwrap();
        tap.set_up(true).unwrap();
        let error = tap.add_address("fd09::1".parse().unwrap(), 64).unwrap_err();
        assert!(error.to_string().contains("1280"), "{error}");
    });
}
