//! A name server for the lab: enough of RFC 1035 to be asked by the system's resolver.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ipop_lab::Namespace;

const PORT: u16 = 53;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const NO_SUCH_NAME: u8 = 3;
/// How long the server's end may take.
const END_PAUSE: Duration = Duration::from_millis(50);
/// `ip netns exec` shows the files in a folder of this one instead of those in /etc.
const FOLDER: &str = "/etc/netns";

/// A name server on a machine of the lab. It says nothing at all until it is told to.
#[derive(Debug)]
pub struct NameServer {
    address: Ipv4Addr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    folders: Vec<PathBuf>,
}

#[derive(Debug, Default)]
struct Shared {
    is_speaking: AtomicBool,
    is_ending: AtomicBool,
    names: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl NameServer {
    /// Takes port 53 of `address`.
    pub fn start(namespace: &Namespace, address: Ipv4Addr) -> Self {
        let place = SocketAddr::from((address, PORT));
        let socket = namespace.inside(move || UdpSocket::bind(place)).unwrap();
        socket.set_read_timeout(Some(END_PAUSE)).unwrap();
        let shared = Arc::<Shared>::default();
        let thread = {
            let shared = shared.clone();
            std::thread::spawn(move || shared.serve(&socket))
        };
        Self { address, shared, thread: Some(thread), folders: Vec::new() }
    }

    /// Programs that start on that machine from now on ask this server, and nobody else.
    pub fn serve(&mut self, machine: &Namespace) {
        let folder = PathBuf::from(FOLDER).join(machine.name());
        std::fs::create_dir_all(&folder).unwrap();
        let resolver = format!("nameserver {}\noptions timeout:1 attempts:2\n", self.address);
        std::fs::write(folder.join("resolv.conf"), resolver).unwrap();
        std::fs::write(folder.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
        self.folders.push(folder);
    }

    /// From now on it answers; a name that was not [told](Self::tell) does not exist.
    pub fn speak(&self) {
        self.shared.is_speaking.store(true, Ordering::Relaxed);
    }

    /// The addresses of a name from now on.
    pub fn tell(&self, name: &str, addresses: &[IpAddr]) {
        self.shared.names.lock().unwrap().insert(name.to_owned(), addresses.to_vec());
    }

    /// How often it was asked for an address of a name.
    pub fn asked(&self, name: &str) -> usize {
        self.shared.asked.lock().unwrap().iter().filter(|asked| *asked == name).count()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
        for folder in &self.folders {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Shared {
    fn serve(&self, socket: &UdpSocket) {
        let mut query = [0; 1500];
        while !self.is_ending.load(Ordering::Relaxed) {
            let Ok((len, from)) = socket.recv_from(&mut query) else { continue };
            if let Some(answer) = self.answer(&query[..len]) {
                let _ = socket.send_to(&answer, from);
            }
        }
    }

    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let mut at = 12;
        let mut labels = Vec::new();
        while let Some(len @ 1..) = query.get(at).copied() {
            let label = query.get(at + 1..at + 1 + usize::from(len))?;
            labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
            at += 1 + usize::from(len);
        }
        let kind = u16::from_be_bytes(query.get(at + 1..at + 3)?.try_into().ok()?);
        let question = &query[12..at + 5];
        let name = labels.join(".");
        if kind == TYPE_A {
            self.asked.lock().unwrap().push(name.clone());
        }
        if !self.is_speaking.load(Ordering::Relaxed) {
            return None;
        }
        let known = self.names.lock().unwrap().get(&name).cloned();
        let code = if known.is_some() { 0 } else { NO_SUCH_NAME };
        let data: Vec<_> =
            known.into_iter().flatten().filter_map(|address| record(kind, address)).collect();
        let mut answer = query[..2].to_vec();
        answer.extend([0x85, 0x80 | code, 0, 1, 0, data.len() as u8, 0, 0, 0, 0]);
        answer.extend(question);
        for data in data {
            // The name of the question, class IN, to be forgotten at once.
            answer.extend([0xc0, 12]);
            answer.extend(kind.to_be_bytes());
            answer.extend([0, 1, 0, 0, 0, 0]);
            answer.extend((data.len() as u16).to_be_bytes());
            answer.extend(data);
        }
        Some(answer)
    }
}

fn record(kind: u16, address: IpAddr) -> Option<Vec<u8>> {
    match (kind, address) {
        (TYPE_A, IpAddr::V4(address)) => Some(address.octets().to_vec()),
        (TYPE_AAAA, IpAddr::V6(address)) => Some(address.octets().to_vec()),
        _ => None,
    }
}
