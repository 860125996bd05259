//! `ipop capture`: what links carry, decrypted on the overlay's interface and sealed on the
//! networks below, in one file for Wireshark.
//!
//! The kernel sees both sides anyway, so the datapath is not asked and does nothing for it. Where
//! a link's datagrams go is read from the segment again and again, so a link that moves is
//! followed.

mod frame;
mod pcapng;
mod scope;

use std::collections::BTreeMap;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipop_packets::{Packet, PacketSocket, Wanted};
use ipop_steer::Fingerprint;

use crate::args::Capture;
use crate::failure::{Code, Failure};
use crate::instance::RunDir;
use crate::ping;
use crate::signals;
use crate::snapshot::{Link, Snapshot};

use frame::Datagram;
use pcapng::{Frame, Writer};
use scope::Scope;

/// From one look at where links are to the next.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// What a reader of a pipe waits for at most.
const FLUSH_PAUSE: Duration = Duration::from_millis(100);
/// Ethernet, and the loopback, which looks the same (linux/if_arp.h).
const HARDWARE_ETHERNET: [u16; 2] = [1, 772];

const INNER: &str = "decrypted frames; as the kernel has them: segments may be many as one, and \
                     those have no complete checksum";
const OUTER: &str = "sealed datagrams, cut as on the cable";

type Sink = BufWriter<Box<dyn Write>>;

/// Runs `ipop capture`.
///
/// # Errors
/// When there is no such instance or peer, the right to capture is missing, or the file cannot be
/// written.
pub fn run(flags: &Capture) -> Result<ExitCode, Failure> {
    let instance = RunDir::running(flags.instance.name.as_deref())?;
    let peer = flags.peer.as_deref().map(|peer| ping::find(&instance, peer)).transpose()?;
    let snapshot = Snapshot::of(&instance)?;
    let tap = tap_index(&snapshot)?;
    let (inner, outer) = (flags.inner || !flags.outer, flags.outer || !flags.inner);
    let wanted = Wanted { interface: inner.then_some(tap), udp_except: outer.then_some(tap) };
    let socket = PacketSocket::open(wanted).map_err(|error| cannot_open(&error))?;
    let to = open(&flags.write)?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::on_stop(stop.clone()).map_err(Failure::failed)?;
    let of = peer.as_ref().map_or_else(|| "all links".to_owned(), about);
    let comment = format!("ipop capture of instance {}: {of}", snapshot.name);
    let mut capture = Session {
        writer: Writer::new(to, &comment).map_err(|error| cannot_write(&error))?,
        scope: scope_of(peer.as_ref()),
        peer,
        instance,
        tap,
        tap_name: snapshot.datapath.get("interface").cloned().unwrap_or_default(),
        frame_len_max: flags.snaplen,
        numbers: BTreeMap::new(),
        counts: Counts::default(),
        frame: Vec::new(),
    };
    capture.look();
    eprintln!("ipop: capturing {of}; Ctrl-C ends");
    let result = capture.run(socket, flags, &stop);
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever read our output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(cannot_write(&error)),
    }
}

fn scope_of(peer: Option<&Link>) -> Scope {
    let fingerprint = peer.and_then(|link| link.fingerprint.parse::<Fingerprint>().ok());
    fingerprint.map_or_else(Scope::all, |fingerprint| Scope::of(&fingerprint.0))
}

fn about(link: &Link) -> String {
    let addresses: Vec<_> = link.addresses.iter().map(ToString::to_string).collect();
    format!("the link to {} ({})", link.name, addresses.join(", "))
}

/// The overlay's interface.
fn tap_index(snapshot: &Snapshot) -> Result<u32, Failure> {
    let name = snapshot.datapath.get("interface").map_or("", String::as_str);
    interface_index(name).ok_or_else(|| {
        Failure::failed(format!(
            "there is no interface `{name}` here: run this in the network namespace of the instance"
        ))
    })
}

fn interface_index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

fn interface_name(index: u32) -> Option<String> {
    let all = nix::net::if_::if_nameindex().ok()?;
    let found = all.iter().find(|interface| interface.index() == index)?;
    Some(found.name().to_string_lossy().into_owned())
}

fn cannot_open(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::new(
            Code::NotPermitted,
            "capturing needs CAP_NET_RAW: run as root, or give the program the capability",
        ),
        _ => Failure::failed(format!("cannot open a packet socket: {error}")),
    }
}

fn cannot_write(error: &io::Error) -> Failure {
    Failure::failed(format!("the capture cannot be written: {error}"))
}

/// The file, readable by its owner only: what the link encrypts is in it.
fn open(path: &Path) -> Result<Sink, Failure> {
    if path == Path::new("-") {
        let out = io::stdout();
        if out.is_terminal() {
            let text = "a capture is no text for a terminal: `--write FILE`, or a pipe as in \
                        `ipop capture PEER --write - | wireshark -k -i -`";
            return Err(Failure::usage(text));
        }
        return Ok(BufWriter::new(Box::new(out)));
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(path).and_then(|file| {
        // One that was there before may have been everybody's; a device stays what it is.
        if file.metadata()?.is_file() {
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        Ok(file)
    });
    let file =
        file.map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
    Ok(BufWriter::with_capacity(1 << 18, Box::new(file)))
}

#[derive(Default)]
struct Counts {
    inner: u64,
    outer: u64,
    seen: u64,
    dropped: u64,
}

struct Session {
    writer: Writer<Sink>,
    scope: Scope,
    peer: Option<Link>,
    instance: RunDir,
    tap: u32,
    tap_name: String,
    frame_len_max: u32,
    /// The file's numbers of interfaces, by the kernel's.
    numbers: BTreeMap<u32, u32>,
    counts: Counts,
    /// Kept for its memory.
    frame: Vec<u8>,
}

impl Session {
    fn run(
        &mut self,
        mut socket: PacketSocket,
        flags: &Capture,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let begin = Instant::now();
        let deadline = flags.duration.map(|time| begin + time);
        let size_max = flags.size.saturating_mul(1 << 20);
        let (mut next_look, mut next_flush) = (begin + LOOK_PAUSE, begin + FLUSH_PAUSE);
        // Who reads from a pipe wants to know at once that there is a capture.
        self.writer.flush()?;
        loop {
            let now = Instant::now();
            let is_full = flags.count.is_some_and(|count| self.count() >= count)
                || (size_max > 0 && self.writer.written() >= size_max);
            let is_over = deadline.is_some_and(|deadline| now >= deadline);
            if is_full || is_over || stop.load(Ordering::Relaxed) {
                return self.end(&socket, is_full);
            }
            if now >= next_look {
                next_look = now + LOOK_PAUSE;
                self.look();
            }
            if now >= next_flush {
                next_flush = now + FLUSH_PAUSE;
                self.writer.flush()?;
            }
            let left = deadline.map_or(FLUSH_PAUSE, |at| at.saturating_duration_since(now));
            if let Some(packet) = socket.next(left.min(FLUSH_PAUSE))? {
                self.take(&packet)?;
            }
        }
    }

    fn count(&self) -> u64 {
        self.counts.inner + self.counts.outer
    }

    /// Sees where links are now; between two datapaths nothing is known anew.
    fn look(&mut self) {
        let Ok(snapshot) = Snapshot::of(&self.instance) else { return };
        let link = self.peer.as_ref().and_then(|peer| snapshot.link_to(&peer.fingerprint));
        self.scope.learn(&snapshot, link.as_ref());
        if let Some(tap) = interface_index(&self.tap_name) {
            self.tap = tap;
        }
    }

    fn take(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        if !HARDWARE_ETHERNET.contains(&packet.hardware) {
            // An interface without Ethernet headers gets one without addresses.
            frame.extend([0; 12]);
            frame.extend(packet.protocol.to_be_bytes());
        }
        frame.extend(packet.bytes);
        let result = match packet.interface == self.tap {
            true => self.take_inner(packet, &mut frame),
            false => self.take_outer(packet, &mut frame),
        };
        self.frame = frame;
        result
    }

    fn take_inner(&mut self, packet: &Packet<'_>, frame: &mut [u8]) -> io::Result<()> {
        if !self.scope.has_inner(frame, packet.is_outgoing) {
            return Ok(());
        }
        if !packet.offload.is_tcp_segments {
            frame::complete(frame, &packet.offload);
        }
        self.counts.inner += 1;
        let interface = self.number(packet, INNER)?;
        let comment = if packet.offload.is_tcp_segments { "many segments as one" } else { "" };
        self.write(packet, interface, frame, comment)
    }

    fn take_outer(&mut self, packet: &Packet<'_>, frame: &mut [u8]) -> io::Result<()> {
        let Some(datagram) = Datagram::parse(frame) else { return Ok(()) };
        if !self.scope.has_outer(&datagram, datagram.payload(frame), packet.is_outgoing) {
            return Ok(());
        }
        let interface = self.number(packet, OUTER)?;
        if let Some(len) = packet.offload.datagram_len {
            return frame::cut(frame, &datagram, len, |one| {
                self.write_outer(packet, interface, one, &datagram)
            });
        }
        // An added Ethernet header is not counted where the checksum is.
        let added = frame.len() - packet.bytes.len();
        let mut offload = packet.offload;
        offload.checksum = offload.checksum.map(|(start, at)| (start + added, at + added));
        frame::complete(frame, &offload);
        self.write_outer(packet, interface, frame, &datagram)
    }

    fn write_outer(
        &mut self,
        packet: &Packet<'_>,
        interface: u32,
        frame: &[u8],
        datagram: &Datagram,
    ) -> io::Result<()> {
        self.counts.outer += 1;
        let comment = scope::describe(datagram.payload(frame));
        self.write(packet, interface, frame, &comment)
    }

    fn write(
        &mut self,
        packet: &Packet<'_>,
        interface: u32,
        bytes: &[u8],
        comment: &str,
    ) -> io::Result<()> {
        let Packet { at_ns, is_outgoing, vlan, .. } = *packet;
        let tagged = vlan.map(|vlan| frame::tagged(bytes, vlan));
        let bytes = tagged.as_deref().unwrap_or(bytes);
        let frame = Frame { interface, at_ns, is_outgoing, bytes, comment };
        self.writer.frame(&frame, self.frame_len_max as usize)
    }

    /// The file's number of the interface, which is added when it is new.
    fn number(&mut self, packet: &Packet<'_>, about: &str) -> io::Result<u32> {
        if let Some(number) = self.numbers.get(&packet.interface) {
            return Ok(*number);
        }
        let name = interface_name(packet.interface)
            .unwrap_or_else(|| format!("interface {}", packet.interface));
        let number = self.writer.interface(&name, about, self.frame_len_max)?;
        self.numbers.insert(packet.interface, number);
        Ok(number)
    }

    fn end(&mut self, socket: &PacketSocket, is_full: bool) -> io::Result<()> {
        if let Ok(statistics) = socket.statistics() {
            self.counts.seen += statistics.packets;
            self.counts.dropped += statistics.drops;
        }
        let Counts { inner, outer, seen, dropped } = self.counts;
        let at_ns = crate::snapshot::unix_ns();
        if let Some(interface) = self.numbers.values().min().copied() {
            self.writer.statistics(
                interface,
                at_ns,
                dropped,
                "drops of all interfaces together",
            )?;
        }
        self.writer.flush()?;
        let why = if is_full { "; the limit is reached" } else { "" };
        let uncut = if socket.knows_offloads() { "" } else { "; this kernel shows them uncut" };
        eprintln!(
            "ipop: {inner} frames inside and {outer} datagrams outside of {seen} seen, {} bytes, \
             {dropped} dropped by the kernel{why}{uncut}",
            self.writer.written()
        );
        Ok(())
    }
}
