//! Two rows of packets, which have to be equal flow by flow.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::on_wire::{get, network_start, put, sum};

/// Differences that are legitimate, with how often each was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Identification of an IPv4 packet that may not be fragmented and is no fragment. It has no
    /// meaning (RFC 6864 section 4), and a virtio-net header cannot say that the packets of a
    /// super-segment all have the same.
    pub id_of_atomic: u64,
}

/// What a way may do to packets besides carrying them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing: all come, in order within each flow.
    Faithful,
    /// It may lose some.
    Lossy,
    /// It may lose some and swap others.
    Unordered,
}

/// Wants `got` to be `sent`, as far as the way allows; hardware addresses aside, which belong to
/// the interfaces. Nothing may come more often than it was sent.
///
/// # Errors
/// A text that shows the first packets that differ.
pub fn compare(sent: &[Vec<u8>], got: &[Vec<u8>], way: Way) -> Result<Allowed, String> {
    let (mut sent, got) = (by_flow(sent), by_flow(got));
    let mut allowed = Allowed::default();
    for (flow, got) in got {
        let sent = sent.remove(&flow).unwrap_or_default();
        allowed.id_of_atomic += compare_flow(sent, &got, way)?;
    }
    match sent.into_values().next() {
        Some(missing) if way == Way::Faithful => {
            Err(format!("nothing came of {}", dump(&missing[0])))
        }
        _ => Ok(allowed),
    }
}

/// Returns how many packets differ in what is allowed.
fn compare_flow(mut sent: Vec<Vec<u8>>, got: &[Vec<u8>], way: Way) -> Result<u64, String> {
    // What is taken from is the end, so the first one comes last.
    sent.reverse();
    let mut twins = 0;
    for packet in got {
        let place = match way {
            Way::Faithful => sent.len().checked_sub(1).filter(|last| is_same(&sent[*last], packet)),
            Way::Lossy => sent.iter().rposition(|want| is_same(want, packet)),
            Way::Unordered => sent
                .iter()
                .rposition(|want| is_equal(want, packet))
                .or_else(|| sent.iter().rposition(|want| is_same(want, packet))),
        };
        let Some(place) = place else {
            let next = sent.last().map_or_else(|| "nothing more".to_owned(), |next| dump(next));
            return Err(format!("sent: {next}\ncame: {}", dump(packet)));
        };
        twins += u64::from(!is_equal(&sent[place], packet));
        if way == Way::Unordered {
            sent.remove(place);
        } else {
            sent.truncate(place);
        }
    }
    match sent.last() {
        Some(missing) if way == Way::Faithful => {
            Err(format!("this did not come: {}", dump(missing)))
        }
        _ => Ok(twins),
    }
}

fn is_same(a: &[u8], b: &[u8]) -> bool {
    is_equal(a, b) || is_atomic_twin(a, b)
}

/// Equal from the ethertype on.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.get(12..) == b.get(12..)
}

/// Equal but for the identification, which has no meaning in them, and for what sums it up.
fn is_atomic_twin(a: &[u8], b: &[u8]) -> bool {
    const DONT_FRAGMENT: u16 = 0x4000;
    let is_atomic = |packet: &[u8]| {
        let start = network_start(packet);
        packet.len() >= start + 20
            && packet[start - 2..start] == [8, 0]
            && packet[start] >> 4 == 4
            && get(packet, start + 6) & !0x8000 == DONT_FRAGMENT
            && packet.get(start..start + usize::from(packet[start] & 15) * 4).map(sum)
                == Some(0xffff)
    };
    if !is_atomic(a) || !is_atomic(b) {
        return false;
    }
    let without_id = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        let start = network_start(&packet);
        put(&mut packet, start + 4, 0);
        put(&mut packet, start + 10, 0);
        packet
    };
    is_equal(&without_id(a), &without_id(b))
}

/// Packets by what tells flows apart for a kernel as well: ethertype, addresses, protocol, and
/// ports where they are.
fn by_flow(packets: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for packet in packets {
        flows.entry(flow_of(packet)).or_default().push(packet.clone());
    }
    flows
}

fn flow_of(packet: &[u8]) -> Vec<u8> {
    let start = network_start(packet);
    let Some(ethertype) = packet.get(12..start) else { return Vec::new() };
    let mut flow = ethertype.to_vec();
    let ip = &packet[start..];
    match ip.first().map_or(0, |first| first >> 4) {
        4 if ip.len() >= 20 && ethertype.ends_with(&[8, 0]) => {
            flow.extend(&ip[9..10]);
            flow.extend(&ip[12..20]);
            let is_fragment = get(ip, 6) & 0x3fff != 0;
            let ports = usize::from(ip[0] & 15) * 4;
            if !is_fragment && matches!(ip[9], 6 | 17) {
                flow.extend(ip.get(ports..ports + 4).unwrap_or_default());
            }
        }
        6 if ip.len() >= 40 && ethertype.ends_with(&[0x86, 0xdd]) => {
            let (protocol, ports) = behind_extensions(ip);
            flow.push(protocol);
            flow.extend(&ip[8..40]);
            if matches!(protocol, 6 | 17) {
                flow.extend(ip.get(ports..ports + 4).unwrap_or_default());
            }
        }
        _ => {}
    }
    flow
}

/// The protocol of an IPv6 packet and where it begins: behind options and routing headers, but not
/// behind a fragment header, where there need not be ports.
fn behind_extensions(ip: &[u8]) -> (u8, usize) {
    let (mut protocol, mut at) = (ip[6], 40);
    while matches!(protocol, 0 | 43 | 60)
        && let Some(&[next, words]) = ip.get(at..at + 2)
    {
        protocol = next;
        at += (usize::from(words) + 1) * 8;
    }
    (protocol, at)
}

fn dump(packet: &[u8]) -> String {
    let mut text = format!("{} bytes", packet.len());
    for (number, byte) in packet.iter().take(128).enumerate() {
        let _ = write!(text, "{}{byte:02x}", if number % 16 == 0 { "\n  " } else { " " });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::craft::{V4, ethernet};
    use super::*;

    fn packet(id: u16, fragment: u16, last: u8) -> Vec<u8> {
        let ip = V4 { id, fragment, ..V4::default() };
        [ethernet(0x0800), ip.header(1), vec![last]].concat()
    }

    #[test]
    fn only_what_is_allowed_may_differ() {
        let sent = [packet(1, 0x4000, 9)];
        assert_eq!(compare(&sent, &sent, Way::Faithful), Ok(Allowed::default()));
        let twin = compare(&sent, &[packet(2, 0x4000, 9)], Way::Faithful);
        assert_eq!(twin, Ok(Allowed { id_of_atomic: 1 }));
        for wrong in [packet(1, 0x4000, 8), packet(1, 0, 9)] {
            assert!(compare(&sent, &[wrong], Way::Unordered).is_err());
        }
        let meant = compare(&[packet(1, 0, 9)], &[packet(2, 0, 9)], Way::Unordered);
        assert!(meant.is_err(), "the identification of what may be fragmented has a meaning");
    }

    #[test]
    fn order_and_number_count_as_the_way_says() {
        let row = [packet(1, 0, 1), packet(2, 0, 2), packet(3, 0, 3)];
        let swapped = [row[1].clone(), row[0].clone(), row[2].clone()];
        let holds = |got: &[Vec<u8>], way| compare(&row, got, way).is_ok();
        for way in [Way::Faithful, Way::Lossy, Way::Unordered] {
            assert!(holds(&row, way), "{way:?}");
            assert_eq!(holds(&row[1..], way), way != Way::Faithful, "{way:?}");
            assert_eq!(holds(&row[..2], way), way != Way::Faithful, "{way:?}");
            assert_eq!(holds(&[], way), way != Way::Faithful, "{way:?}");
            assert_eq!(holds(&swapped, way), way == Way::Unordered, "{way:?}");
            let twice = [&row[..], &row[..1]].concat();
            assert!(!holds(&twice, way), "{way:?}: nothing comes more often than it was sent");
        }
    }
}
