//! Frames whose headers hosts rarely send.

use ipop_lab::{RawFrame, VNET_LEN};
use ipop_system_tests::headers::{V4, V6, ethernet, on_wire, tcp, transport_frame, udp};

const FIN: u16 = 1;
const SYN: u16 = 2;
const RST: u16 = 4;
const PSH: u16 = 8;
const ACK: u16 = 0x10;
const URG: u16 = 0x20;
const ECE: u16 = 0x40;
const CWR: u16 = 0x80;
const AE: u16 = 0x100;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];

/// What frames try, and these in the order in which they are sent.
pub type Group = (&'static str, Vec<RawFrame>);

/// All frames that any underlay carries and that bear no VLAN tag.
pub fn groups() -> Vec<Group> {
    vec![
        ("IPv4", ipv4()),
        ("IPv6", ipv6()),
        ("TCP flags and options", tcp_headers()),
        ("TCP segments that follow each other", tcp_rows()),
        ("UDP", udp_headers()),
        ("UDP datagrams that follow each other", udp_rows()),
        ("TCP super-segments", tcp_supers()),
        ("UDP super-segments", udp_supers()),
        ("other protocols", others()),
    ]
}

/// Frames with VLAN tags.
pub fn vlan() -> Group {
    ("VLAN tags", tagged())
}

/// Frames that no datagram of the underlay carries whole.
pub fn large() -> Vec<Group> {
    let payload = |len| (0..len).map(|byte| (byte % 251) as u8).collect::<Vec<_>>();
    let plain = [1400, 1410, 1500, 2900, 8980].map(|len| {
        let ip = V4 { id: len, options: vec![1; 4], ..V4::default() };
        let len = usize::from(len) - 24;
        bare([ethernet(IPV4), ip.header(len), payload(len)].concat())
    });
    let tcp = [1500, 8900].map(|len| {
        let header = tcp(7, ACK | PSH, &TIMESTAMPS);
        let ip = V4 { protocol: 6, ..V4::default() }.header(32 + len);
        transport_frame(&ethernet(IPV4), &ip, header, &payload(len), len)
    });
    let uso = [(8000, 2000), (16000, 7000)].map(|(len, size)| {
        let ip = V4 { protocol: 17, fragment: 0, ..V4::default() }.header(8 + len);
        transport_frame(&ethernet(IPV4), &ip, udp(len), &payload(len), size)
    });
    vec![
        ("large IPv4", plain.into()),
        ("large TCP", tcp.into()),
        ("UDP super-segments of large datagrams", uso.into()),
    ]
}

/// A frame of which nothing is known.
fn bare(bytes: Vec<u8>) -> RawFrame {
    RawFrame { vnet: [0; VNET_LEN], bytes }
}

/// The same frame twice: once with its checksum left to the card, and once with it in place.
fn both(frame: RawFrame) -> Vec<RawFrame> {
    let finished = on_wire(&frame).into_iter().map(bare);
    [frame.clone()].into_iter().chain(finished).collect()
}

fn v4_frame(ip: &V4, payload: &[u8]) -> RawFrame {
    bare([&ethernet(IPV4), &ip.header(payload.len()), payload].concat())
}

fn tcp_frame(ip: &V4, header: Vec<u8>, payload: &[u8], gso_size: usize) -> RawFrame {
    let ip = V4 { protocol: 6, ..ip.clone() };
    let network = ip.header(header.len() + payload.len());
    transport_frame(&ethernet(IPV4), &network, header, payload, gso_size)
}

fn udp_frame(ip: &V4, payload: &[u8], gso_size: usize) -> RawFrame {
    let ip = V4 { protocol: 17, ..ip.clone() };
    let network = ip.header(8 + payload.len());
    transport_frame(&ethernet(IPV4), &network, udp(payload.len()), payload, gso_size)
}

fn ipv4() -> Vec<RawFrame> {
    let usual = V4::default();
    let record_route = [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let router_alert = [148, 4, 0, 0];
    let headers = [
        V4 { tos: 0xb9, ttl: 1, ..usual.clone() },
        V4 { tos: 0xff, ttl: 255, id: 0xbeef, fragment: 0, ..usual.clone() },
        V4 { options: record_route.to_vec(), ..usual.clone() },
        V4 { options: router_alert.to_vec(), protocol: 2, ttl: 1, ..usual.clone() },
        V4 { options: vec![1; 40], ..usual.clone() },
        V4 { fragment: 0x8000, ..usual.clone() },
        // Fragments: first, middle, last, and one that overlaps them.
        V4 { fragment: 0x2000, id: 7, protocol: 17, ..usual.clone() },
        V4 { fragment: 0x2001, id: 7, protocol: 17, ..usual.clone() },
        V4 { fragment: 0x0003, id: 7, protocol: 17, ..usual.clone() },
        V4 { fragment: 0x2001, id: 7, protocol: 6, ..usual.clone() },
    ];
    let mut frames: Vec<_> = headers.iter().map(|ip| v4_frame(ip, &[0xa5; 24])).collect();
    frames.push(v4_frame(&usual, &[]));
    frames.push(v4_frame(&usual, &[1; 1380]));
    // Bytes behind the packet, a wrong header checksum, a wrong length.
    let mut padded = v4_frame(&usual, &[1; 4]);
    padded.bytes.extend([0xee; 18]);
    let mut wrong_sum = v4_frame(&usual, &[2; 30]);
    wrong_sum.bytes[24] ^= 0xff;
    let mut wrong_len = v4_frame(&usual, &[3; 30]);
    wrong_len.bytes[17] += 9;
    frames.extend([padded, wrong_sum, wrong_len]);
    let echo = [8, 0, 0xf7, 0xfb, 0, 1, 0, 3];
    frames.push(v4_frame(&V4 { protocol: 1, ..usual.clone() }, &echo));
    let about = V4 { protocol: 17, ..usual.clone() }.header(8);
    let unreachable = [&[3, 4, 0, 0, 0, 0, 5, 0], &about[..], &udp(0)].concat();
    frames.push(v4_frame(&V4 { protocol: 1, tos: 0xc0, ..usual }, &unreachable));
    frames
}

fn ipv6() -> Vec<RawFrame> {
    let usual = V6::default();
    let pad = |kind| (kind, vec![0, 1, 4, 0, 0, 0, 0]);
    let fragment = |offset: u16| {
        let [high, low] = offset.to_be_bytes();
        (44, vec![0, high, low, 0, 0, 0, 9])
    };
    let routing = (43, [&[2, 4, 1, 0, 0, 0, 0][..], &[0x20; 16]].concat());
    let headers = [
        V6 { class: 0xb9, flow: 0xa_bcde, hops: 1, ..usual.clone() },
        V6 { class: 3, flow: 0xf_ffff, hops: 255, ..usual.clone() },
        V6 { protocol: 59, ..usual.clone() },
        V6 { extensions: vec![pad(0), pad(60)], protocol: 17, ..usual.clone() },
        V6 { extensions: vec![pad(0), routing.clone(), pad(60)], protocol: 6, ..usual.clone() },
        V6 { extensions: vec![fragment(1)], protocol: 17, ..usual.clone() },
        V6 { extensions: vec![fragment(24)], protocol: 17, ..usual.clone() },
        V6 { extensions: vec![pad(60); 9], ..usual.clone() },
    ];
    let frame = |ip: &V6, payload: &[u8]| {
        bare([&ethernet(IPV6), &ip.header(payload.len()), payload].concat())
    };
    let mut frames: Vec<_> = headers.iter().map(|ip| frame(ip, &[0x5a; 24])).collect();
    frames.push(frame(&usual, &[]));
    frames.push(frame(&V6 { protocol: 58, ..usual.clone() }, &[128, 0, 1, 2, 0, 1, 0, 2, 9]));
    for ip in headers.iter().chain([&usual]) {
        // Right checksums below, which need the final destination of a routing header.
        if ip.extensions.iter().any(|(kind, _)| [43, 44].contains(kind)) {
            continue;
        }
        let header = tcp(9, ACK | PSH, &TIMESTAMPS);
        let network = V6 { protocol: 6, ..ip.clone() }.header(header.len() + 64);
        frames.extend(both(transport_frame(&ethernet(IPV6), &network, header, &[7; 64], 64)));
        let network = V6 { protocol: 17, ..ip.clone() }.header(8 + 65);
        frames.extend(both(transport_frame(&ethernet(IPV6), &network, udp(65), &[8; 65], 65)));
    }
    frames
}

fn tcp_headers() -> Vec<RawFrame> {
    let fast_open = [2, 4, 2, 0, 4, 2, 3, 3, 7, 1, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    let sack = [1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4];
    let unknown = [253, 8, 0xf9, 0x89, 1, 2, 3, 4];
    let long = [&TIMESTAMPS[..], &sack, &unknown].concat();
    let headers = [
        (SYN, &fast_open[..]),
        (SYN | ACK | ECE, &fast_open),
        (SYN | ECE | CWR | AE, &TIMESTAMPS),
        (ACK, &[]),
        (ACK, &long),
        (ACK | PSH, &sack),
        (ACK | FIN | PSH, &TIMESTAMPS),
        (ACK | URG | PSH, &[]),
        (ACK | CWR | ECE, &unknown),
        (RST | ACK, &[]),
        (RST, &[]),
        (0, &[]),
        (0xfff, &[1; 40]),
    ];
    let mut frames = Vec::new();
    for (flags, options) in headers {
        for payload in [&[][..], &[0x11], &[0x22; 1300]] {
            let mut header = tcp(1000, flags, options);
            header[18..20].copy_from_slice(&[1, 2]);
            frames.extend(both(tcp_frame(&V4::default(), header, payload, 1400)));
        }
    }
    let mut wrong = frames[1].clone();
    wrong.bytes[50] ^= 0x55;
    frames.push(wrong);
    frames
}

/// Rows that a receiver may join, and rows that it may not because something changes on the way.
fn tcp_rows() -> Vec<RawFrame> {
    type Change = fn(usize, &mut V4, &mut Vec<u8>);
    let changes: [Change; 12] = [
        |_, _, _| {},
        |_, ip, _| ip.fragment = 0,
        |n, ip, _| (ip.fragment, ip.id) = (0, 77 * n as u16),
        |n, ip, _| ip.ttl = if n == 5 { 9 } else { 64 },
        |n, ip, _| ip.tos = if n % 7 == 3 { 3 } else { 2 },
        |n, _, header| header[13] |= if n % 4 == 2 { PSH as u8 } else { 0 },
        |n, _, header| header[14] = n as u8,
        |n, _, header| header[11] = n as u8,
        |n, _, header| header[27] = (n / 3) as u8,
        |n, _, header| header[13] |= if n == 6 { ECE as u8 } else { 0 },
        |n, _, header| header[13] |= if n == 6 { CWR as u8 } else { 0 },
        |n, _, header| header[13] |= if n == 11 { (FIN | PSH) as u8 } else { 0 },
    ];
    let mut frames = Vec::new();
    for change in changes {
        for number in 0..12_usize {
            let mut ip = V4 { id: 300 + number as u16, ..V4::default() };
            let sequence = 0xffff_f000_u32.wrapping_add(number as u32 * 500);
            let mut header = tcp(sequence, ACK, &TIMESTAMPS);
            change(number, &mut ip, &mut header);
            let payload = [number as u8; 500];
            let payload = if number == 11 { &payload[..123] } else { &payload };
            frames.push(tcp_frame(&ip, header, payload, 1400));
        }
    }
    // With checksums in place, of which one is wrong: it must stay wrong.
    let mut finished: Vec<_> = packets_of(&frames[..12]);
    finished[4].bytes[50] ^= 1;
    frames.extend(finished);
    frames
}

fn packets_of(frames: &[RawFrame]) -> Vec<RawFrame> {
    frames.iter().flat_map(on_wire).map(bare).collect()
}

fn udp_headers() -> Vec<RawFrame> {
    let usual = V4::default();
    let mut frames = Vec::new();
    for payload in [&[][..], &[1], &[2; 99], &[3; 1372]] {
        for tos in [0, 3, 0xfd] {
            frames.extend(both(udp_frame(&V4 { tos, ..usual.clone() }, payload, 1400)));
        }
    }
    let finished = packets_of(&frames[..4]);
    // No checksum, a wrong one, and a length that says less than there is.
    for (at, value) in [(40, [0, 0]), (40, [0xde, 0xad]), (38, [0, 8])] {
        let mut changed = finished.clone();
        changed.iter_mut().for_each(|frame| frame.bytes[at..at + 2].copy_from_slice(&value));
        frames.extend(changed);
    }
    frames
}

fn udp_rows() -> Vec<RawFrame> {
    type Change = fn(usize, &mut V4);
    let changes: [Change; 7] = [
        |_, _| {},
        |_, ip| ip.id = 0,
        |_, ip| ip.fragment = 0,
        |_, ip| (ip.fragment, ip.id) = (0, 0),
        |n, ip| (ip.fragment, ip.id) = (0, 31 * n as u16),
        |n, ip| ip.tos = if n == 4 { 3 } else { 1 },
        |n, ip| ip.ttl = 60 + (n / 5) as u8,
    ];
    let mut frames = Vec::new();
    for size in [1, 40, 700, 1300] {
        for change in changes {
            for number in 0..12_u8 {
                let mut ip = V4 { id: 65_530_u16.wrapping_add(number.into()), ..V4::default() };
                change(number.into(), &mut ip);
                let payload = vec![number; if number == 9 { size / 2 } else { size }];
                frames.push(udp_frame(&ip, &payload, 1400));
            }
        }
    }
    // Without checksums: nobody may give them one.
    let mut bare_ones = packets_of(&frames[..12]);
    bare_ones.iter_mut().for_each(|frame| frame.bytes[40..42].fill(0));
    frames.extend(bare_ones);
    frames
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|byte| (byte.wrapping_mul(31) >> 3) as u8).collect()
}

fn tcp_supers() -> Vec<RawFrame> {
    let usual = V4::default();
    let mut frames = Vec::new();
    for (flags, len, size) in [
        (ACK, 44 * 1348, 1348),
        (ACK | PSH, 3000, 1000),
        (ACK | PSH | FIN, 2500, 1348),
        (ACK | CWR, 10_000, 1348),
        (ACK | ECE | PSH, 1349, 1348),
        (ACK | PSH, 2000, 88),
    ] {
        for ip in [
            usual.clone(),
            V4 { fragment: 0, id: 0xfff0, tos: 3, ttl: 2, ..usual.clone() },
            V4 { options: vec![1; 8], ..usual.clone() },
        ] {
            let header = tcp(0xffff_ff00, flags, &TIMESTAMPS);
            // Options of the IP header come off what fits a packet.
            let size = size - ip.options.len();
            frames.push(tcp_frame(&ip, header, &payload(len), size));
        }
        let header = tcp(1, flags, &TIMESTAMPS);
        let ip = V6 { protocol: 6, class: 0x22, flow: 0x1_2345, ..V6::default() };
        let network = ip.header(header.len() + len);
        let size = size.min(1328);
        frames.push(transport_frame(&ethernet(IPV6), &network, header, &payload(len), size));
    }
    frames
}

fn udp_supers() -> Vec<RawFrame> {
    let mut frames = Vec::new();
    for (len, size) in [(20_000, 1372), (4000, 1000), (64, 1), (2001, 2000 - 700), (30_000, 500)] {
        for fragment in [0x4000, 0] {
            let ip = V4 { fragment, id: 0xfffa, tos: 2, ..V4::default() };
            frames.push(udp_frame(&ip, &payload(len), size));
        }
        let network = V6 { protocol: 17, hops: 3, ..V6::default() }.header(8 + len);
        let size = size.min(1352);
        frames.push(transport_frame(&ethernet(IPV6), &network, udp(len), &payload(len), size));
    }
    frames
}

fn tagged() -> Vec<RawFrame> {
    let link = |tags: &[u16], ethertype: u16| {
        let words = tags.iter().chain([&ethertype]);
        [vec![0; 12], words.flat_map(|word| word.to_be_bytes()).collect()].concat()
    };
    // Numbers with priority and the bit "may be dropped".
    let mut frames = Vec::new();
    for tags in [&[0x8100, 0x0005][..], &[0x8100, 0xffff], &[0x88a8, 0x6002, 0x8100, 0x1003]] {
        let network = V4::default().header(40);
        frames.push(bare([link(tags, IPV4), network, payload(40)].concat()));
        let network = V6::default().header(40);
        frames.push(bare([link(tags, IPV6), network, payload(40)].concat()));
        frames.push(bare([link(tags, 0x88b5), payload(60)].concat()));
    }
    for (len, size) in [(300, 1300), (5000, 1300)] {
        let header = tcp(5, ACK, &TIMESTAMPS);
        let network = V4 { protocol: 6, ..V4::default() }.header(header.len() + len);
        let link = link(&[0x8100, 0x2007], IPV4);
        frames.push(transport_frame(&link, &network, header, &payload(len), size));
        let network = V4 { protocol: 17, ..V4::default() }.header(8 + len);
        frames.push(transport_frame(&link, &network, udp(len), &payload(len), size));
    }
    frames
}

fn others() -> Vec<RawFrame> {
    let to = |destination: [u8; 6], ethertype: u16, content: &[u8]| {
        let mut frame = ethernet(ethertype);
        frame[..6].copy_from_slice(&destination);
        bare([&frame[..], content].concat())
    };
    let network = V4 { addresses: [[192, 0, 2, 1], [224, 0, 0, 251]], ..V4::default() };
    vec![
        to([0; 6], 0x88b5, &[1; 46]),
        to([0; 6], 0x88b5, &[]),
        to([0; 6], 0x8847, &[0, 1, 0x11, 64, 0x45]),
        to([0xff; 6], 0x88b6, &[2; 200]),
        to([1, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc, &[3; 60]),
        to([1, 0, 0x5e, 0, 0, 0xfb], IPV4, &[network.header(30), payload(30)].concat()),
        // An ethertype that its content contradicts.
        to([0; 6], IPV6, &V4::default().header(0)),
        to([0; 6], IPV4, &[0x60; 50]),
        to([0; 6], IPV4, &[]),
    ]
}
