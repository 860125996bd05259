//! A name server for one domain, `prosody.test`: enough of RFC 1035 to be asked by real resolvers.

use super::scratch::Scratch;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::{Arc, Mutex};

const TYPE_A: u16 = 1;
const TYPE_SRV: u16 = 33;

pub struct DnsServer(Arc<Mutex<String>>);

impl DnsServer {
    /// Takes port 53 of this network and makes the system's resolver ask there.
    pub fn start(scratch: &Scratch) -> Self {
        scratch.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
        scratch.write("nsswitch.conf", "hosts: files dns\n");
        for file in ["resolv.conf", "nsswitch.conf"] {
            let mount = Command::new("mount")
                .args(["--bind", &scratch.text(file), &format!("/etc/{file}")])
                .status()
                .unwrap();
            assert!(mount.success(), "mount {file}");
        }
        let records = Arc::new(Mutex::new(String::new()));
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        let shared = records.clone();
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((len, from)) = socket.recv_from(&mut query) {
                if let Some(answer) = answer(&query[..len], &shared.lock().unwrap()) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        Self(records)
    }

    /// What to say about the domain: `service priority port` separated by commas, the port `none`
    /// for a service that is decidedly not there.
    pub fn serve(&self, records: &str) {
        *self.0.lock().unwrap() = records.to_owned();
    }
}

fn answer(query: &[u8], records: &str) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    while let Some(len @ 1..) = query.get(at).copied() {
        let label = query.get(at + 1..at + 1 + usize::from(len))?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += 1 + usize::from(len);
    }
    let kind = u16::from_be_bytes(query.get(at + 1..at + 3)?.try_into().ok()?);
    let question = &query[12..at + 5];
    let found = match (kind, labels.join(".").as_str()) {
        (TYPE_A, "prosody.test" | "xmpp.prosody.test") => vec![vec![127, 0, 0, 1]],
        (TYPE_SRV, "_xmpp-client._tcp.prosody.test") => services(records, "xmpp"),
        (TYPE_SRV, "_xmpps-client._tcp.prosody.test") => services(records, "xmpps"),
        _ => Vec::new(),
    };
    let mut answer = query[..2].to_vec();
    answer.extend([0x85, 0x80, 0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
    answer.extend(question);
    for data in found {
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0]);
        answer.extend((data.len() as u16).to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}

fn services(records: &str, service: &str) -> Vec<Vec<u8>> {
    let words = records.split(',').map(|record| record.split_whitespace().collect::<Vec<_>>());
    let ours = words.filter(|words| words.first() == Some(&service));
    let data = |words: Vec<&str>| {
        let priority: u16 = words[1].parse().unwrap();
        let mut data = [priority.to_be_bytes(), [0, 1]].concat();
        match words[2].parse::<u16>() {
            Ok(port) => {
                data.extend(port.to_be_bytes());
                data.extend(b"\x04xmpp\x07prosody\x04test\x00");
            }
            Err(_) => data.extend([0, 0, 0]),
        }
        data
    };
    ours.map(data).collect()
}
