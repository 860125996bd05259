use super::*;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::RecvTimeoutError;

const PATIENCE: Duration = Duration::from_secs(10);
const DATA: [u8; 8] = [0x40, 1, 0, 3, b'a', b'b', b'c', 0];

struct Bench {
    node: UdpSocket,
    server: TcpListener,
    bridge: Bridge,
    events: Receiver<BridgeEvent>,
}

fn bench() -> Bench {
    let localhost = (Ipv4Addr::LOCALHOST, 0);
    let node = UdpSocket::bind(localhost).unwrap();
    node.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = TcpListener::bind(localhost).unwrap();
    let (sender, events) = channel();
    let config = BridgeConfig { node: node.local_addr().unwrap(), tls: None };
    let bridge = Bridge::start(config, move |event| drop(sender.send(event))).unwrap();
    Bench { node, server, bridge, events }
}

impl Bench {
    fn connect(&self) -> TcpStream {
        self.bridge.connect(self.server.local_addr().unwrap());
        let stream = self.server.accept().unwrap().0;
        assert_eq!(self.events.recv_timeout(PATIENCE), Ok(BridgeEvent::Connected));
        stream
    }

    fn lost(&self) -> String {
        match self.events.recv_timeout(PATIENCE).unwrap() {
            BridgeEvent::Lost(text) => text,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn datagrams_become_a_stream_and_come_back() {
    let bench = bench();
    let mut stream = bench.connect();
    bench.node.send_to(&DATA[..7], bench.bridge.address()).unwrap();
    let mut read = [0; 8];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(read, DATA, "padded");
    // Somebody else on the machine is not heard.
    let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let _ = other.send_to(&[0x40, 2, 0, 0], bench.bridge.address());
    bench.node.send_to(&[0x40, 3, 0, 0], bench.bridge.address()).unwrap();
    stream.read_exact(&mut read[..4]).unwrap();
    assert_eq!(read[..4], [0x40, 3, 0, 0]);
    // Rows of equal length, with a shorter one at the end, cut anywhere.
    let rows: Vec<_> = [&DATA[..], &DATA, &DATA, &[0x40, 9, 0, 0], &DATA].concat();
    for piece in rows.chunks(5) {
        stream.write_all(piece).unwrap();
    }
    let mut buffer = [0; 100];
    for expected in [&DATA[..7], &DATA[..7], &DATA[..7], &[0x40, 9, 0, 0], &DATA[..7]] {
        let (length, from) = bench.node.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (expected, bench.bridge.address()));
    }
    assert_eq!(bench.bridge.take_counts(), BridgeCounts { connected: 1, ..Default::default() });
}

#[test]
fn a_lost_connection_is_told_and_made_again() {
    let bench = bench();
    drop(bench.connect());
    assert!(bench.lost().contains("closed"));
    let mut stream = bench.server.accept().unwrap().0;
    assert_eq!(bench.events.recv_timeout(PATIENCE), Ok(BridgeEvent::Connected));
    stream.write_all(b"\xffnonsense").unwrap();
    let text = bench.lost();
    assert!(text.contains("does not speak TURN"), "{text}");
    let _stream = bench.server.accept().unwrap().0;
    assert_eq!(bench.events.recv_timeout(PATIENCE), Ok(BridgeEvent::Connected));
    bench.bridge.note_gone(vec!["192.0.2.1".parse().unwrap()]);
    assert_eq!(
        bench.events.recv_timeout(Duration::from_millis(100)),
        Err(RecvTimeoutError::Timeout)
    );
    bench.bridge.note_gone(vec![Ipv4Addr::LOCALHOST.into()]);
    assert!(bench.lost().contains("is gone"));
}

#[test]
fn another_server_is_gone_to_and_come_back_from() {
    let bench = bench();
    let mut first = bench.connect();
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    bench.bridge.connect(other.local_addr().unwrap());
    assert_eq!(bench.lost(), "");
    let second = other.accept().unwrap().0;
    assert_eq!(bench.events.recv_timeout(PATIENCE), Ok(BridgeEvent::Connected));
    assert_eq!(first.read(&mut [0; 8]).unwrap(), 0);
    drop(second);
    bench.lost();
    bench.server.accept().unwrap();
}

#[test]
fn a_server_that_takes_nothing_costs_datagrams_and_no_memory() {
    let bench = bench();
    let _stream = bench.connect();
    let mut data = vec![0x40, 1, 0xea, 0x60];
    data.resize(60_004, 7);
    let deadline = Instant::now() + PATIENCE;
    let mut full = 0;
    while full == 0 {
        assert!(Instant::now() < deadline);
        bench.node.send_to(&data, bench.bridge.address()).unwrap();
        full += bench.bridge.take_counts().full;
    }
    // The handle's end is the bridge's, whatever waits.
    drop(bench.bridge);
    assert_eq!(bench.events.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn a_server_that_does_not_speak_tls_is_named() {
    let node = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (sender, events) = channel();
    let root = root_file();
    let tls = Some(BridgeTls { name: "turn.test".to_owned(), ca_file: Some(root.clone()) });
    let config = BridgeConfig { node: node.local_addr().unwrap(), tls };
    let bridge = Bridge::start(config, move |event| drop(sender.send(event))).unwrap();
    bridge.connect(server.local_addr().unwrap());
    let mut stream = server.accept().unwrap().0;
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    let Ok(BridgeEvent::Lost(text)) = events.recv_timeout(PATIENCE) else { panic!() };
    assert!(text.contains("TLS with turn.test failed"), "{text}");
    assert_eq!(bridge.take_counts().failed, 1);
    let _ = std::fs::remove_file(root);
}

/// Some root: TLS needs one before it begins.
fn root_file() -> PathBuf {
    let key = rcgen::KeyPair::generate().unwrap();
    let root = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
    let path = std::env::temp_dir().join(format!("ipop-bridge-{}.pem", std::process::id()));
    std::fs::write(&path, root.pem()).unwrap();
    path
}
