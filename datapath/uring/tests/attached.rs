//! Sockets that a port is given while it runs, on the real kernel. Each test runs on both ports.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "what is common is used by others")]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{KernelPort, Namespace, PATIENCE, on_every_port};
use ipop_uring::{
    ATTACHED_MAX, Batch, Completion, Datagram, Destination, Family, PortConfig, UdpSocket,
};

const HERE: &str = "10.1.0.1";
const THERE: &str = "10.1.0.2";

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn receive(port: &mut impl KernelPort) -> Datagram {
    let deadline = Instant::now() + PATIENCE;
    let mut found = None;
    while found.is_none() {
        assert!(Instant::now() < deadline);
        let mut batch = Batch::default();
        port.wait(Some(Duration::from_millis(100)), &mut batch).unwrap();
        for completion in batch.drain() {
            match completion {
                Completion::Datagram(datagram) => found = Some(datagram),
                Completion::TapFrame(frame) => port.release_frame(frame),
                _ => {}
            }
        }
    }
    found.unwrap()
}

fn send(port: &mut impl KernelPort, to: &Destination) {
    let mut slot = port.output().unwrap();
    slot[..10_000].fill(7);
    port.send(slot, 10_000, 1000, to);
    port.wait(Some(Duration::ZERO), &mut Batch::default()).unwrap();
}

fn attached_sockets_send_and_receive_beside_the_ports_own<P: KernelPort>() {
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect(&there);
    let config = PortConfig::default();
    let (mut near, mut far): (P, P) = (here.port(&config), there.port(&config));
    let own = far.socket(Family::V4).unwrap().port();
    let near_end = at(HERE, near.socket(Family::V4).unwrap().port());
    far.wait(Some(Duration::ZERO), &mut Batch::default()).unwrap();
    for turn in 0..3 {
        let guests: Vec<_> = (0..ATTACHED_MAX).map(|_| there.socket(Family::V4)).collect();
        let ports: Vec<u16> = guests.iter().map(|guest| UdpSocket::port(guest)).collect();
        let watched: Vec<_> = guests.iter().map(Arc::downgrade).collect();
        for guest in guests {
            assert!(far.attach(guest), "turn {turn}");
        }
        assert!(!far.attach(there.socket(Family::V4)), "it is full");
        far.wait(Some(Duration::ZERO), &mut Batch::default()).unwrap();
        for port in ports.iter().copied().chain([own]) {
            // In: what comes says where it came to.
            let to = Destination { remote: at(THERE, port), ..from(HERE, 0) };
            send(&mut near, &to);
            let datagram = receive(&mut far);
            assert_eq!(datagram.local(), at(THERE, port));
            assert_eq!((datagram.data().len(), datagram.segment_size()), (10_000, 1000));
            far.release_datagram(datagram);
            // Out: by the port that the destination names.
            send(&mut far, &Destination { remote: near_end, ..from(THERE, port) });
            let datagram = receive(&mut near);
            assert_eq!(datagram.remote(), at(THERE, port));
            near.release_datagram(datagram);
        }
        // Gone: places and files are free again once the kernel has let go.
        ports.iter().for_each(|port| far.detach(*port));
        for _ in 0..5 {
            far.wait(Some(Duration::from_millis(2)), &mut Batch::default()).unwrap();
        }
        assert!(watched.iter().all(|guest| guest.upgrade().is_none()), "turn {turn}");
        // What names a port that is gone leaves from the port's own.
        send(&mut far, &Destination { remote: near_end, ..from(THERE, ports[0]) });
        let datagram = receive(&mut near);
        assert_eq!(datagram.remote(), at(THERE, own));
        near.release_datagram(datagram);
    }
}

fn from(ip: &str, local_port: u16) -> Destination {
    let local_ip: IpAddr = ip.parse().unwrap();
    Destination { remote: SocketAddr::new(local_ip, 9), local_ip, local_port }
}

on_every_port! {
    attached_sockets_send_and_receive_beside_the_ports_own
}
