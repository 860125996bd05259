//! One TCP connection after the other, each with settings of its own.

use std::io::{self, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use super::{PATIENCE, Sums, is_over};
use crate::dice::Dice;
use crate::pattern::{fill, wrong};
use crate::traffic::{BLOCK_LEN, read_full};

/// Streams of all connections differ in these bits of their positions.
const NUMBER_SHIFT: u32 = 40;
/// Maximum segment sizes that an end insists on, bytes; most do not.
const SEGMENT_SIZES: [Option<u32>; 8] =
    [None, None, None, None, None, Some(88), Some(536), Some(1000)];
/// The largest write of a connection, bytes.
const WRITES: [usize; 4] = [16, 1500, 64 << 10, BLOCK_LEN];
/// Bytes that a connection with writes of up to 16 bytes carries at most.
const BYTES_BY_TINY_WRITES: u64 = 256 << 10;

/// Between whom connections are made.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// The sender's namespace.
    pub from: PathBuf,
    /// The receiver's namespace.
    pub to: PathBuf,
    /// The receiver's address.
    pub address: IpAddr,
}

/// How one connection is set.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Differs between connections.
    number: u64,
    bytes: u64,
    write_max: usize,
    segment_size: Option<u32>,
    is_prompt: bool,
    congestion: &'static str,
}

/// Sends at least `bytes`, or until the time is up, by as many connections as it takes.
pub(crate) fn send_many(route: &Route, bytes: u64, until: Option<Instant>, seed: u64) -> Sums {
    let mut dice = Dice::new(seed);
    let mut sums = Sums::default();
    while sums.stream_bytes < bytes && !is_over(until) {
        let plan = plan(&mut dice, bytes - sums.stream_bytes);
        sums += send_one(route, plan, until, dice.number());
    }
    sums
}

fn plan(dice: &mut Dice, bytes: u64) -> Plan {
    let write_max = dice.pick(&WRITES);
    let largest = if write_max == WRITES[0] { BYTES_BY_TINY_WRITES } else { 1 << 32 };
    // A few connections are short; most carry all there is.
    let wanted = if dice.below(4) == 0 { dice.size(1 << 20) } else { bytes };
    Plan {
        number: dice.below(1 << (64 - NUMBER_SHIFT)),
        bytes: wanted.min(bytes).min(largest),
        write_max,
        segment_size: dice.pick(&SEGMENT_SIZES),
        is_prompt: dice.below(2) == 0,
        congestion: dice.pick(&["cubic", "reno"]),
    }
}

fn send_one(route: &Route, plan: Plan, until: Option<Instant>, seed: u64) -> Sums {
    let address = SocketAddr::new(route.address, 0);
    let listener = ipop_lab::inside(&route.to, move || listen(address, plan)).unwrap();
    let address = listener.local_addr().unwrap();
    let stream = ipop_lab::inside(&route.from, move || connect(address, plan)).unwrap();
    let sender = std::thread::spawn(move || send(stream, plan, until, seed));
    let (received, wrong) = receive(&listener, plan);
    let sent = sender.join().unwrap();
    assert!(received <= sent, "{received} bytes of {sent} sent: {plan:?}");
    Sums {
        streams: 1,
        stream_bytes: received,
        stream_bytes_wrong: wrong,
        stream_bytes_missing: sent - received,
        ..Sums::default()
    }
}

fn socket(address: SocketAddr, plan: Plan) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(size) = plan.segment_size {
        socket.set_tcp_mss(size)?;
    }
    socket.set_tcp_nodelay(plan.is_prompt)?;
    socket.set_tcp_congestion(plan.congestion.as_bytes())?;
    Ok(socket)
}

fn listen(address: SocketAddr, plan: Plan) -> io::Result<TcpListener> {
    let socket = socket(address, plan)?;
    socket.bind(&address.into())?;
    socket.listen(1)?;
    Ok(socket.into())
}

fn connect(address: SocketAddr, plan: Plan) -> io::Result<TcpStream> {
    let socket = socket(address, plan)?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Returns how many bytes were sent.
fn send(mut stream: TcpStream, plan: Plan, until: Option<Instant>, seed: u64) -> u64 {
    let mut dice = Dice::new(seed);
    let mut block = vec![0; BLOCK_LEN];
    let mut at = 0;
    while at < plan.bytes && !is_over(until) {
        let length = (plan.bytes - at).min(BLOCK_LEN as u64) as usize;
        fill(&mut block[..length], at + (plan.number << NUMBER_SHIFT));
        let mut rest = &block[..length];
        while !rest.is_empty() {
            let size = dice.size(plan.write_max as u64) as usize;
            let (piece, behind) = rest.split_at(size.min(rest.len()));
            stream.write_all(piece).unwrap_or_else(|error| panic!("{error}: {plan:?}"));
            rest = behind;
        }
        at += length as u64;
    }
    stream.shutdown(Shutdown::Write).unwrap();
    at
}

/// Returns how many bytes came, and how many of them were wrong.
fn receive(listener: &TcpListener, plan: Plan) -> (u64, u64) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut block, mut room) = (vec![0; BLOCK_LEN], vec![0; BLOCK_LEN]);
    let (mut at, mut wrong_bytes) = (0, 0);
    loop {
        let (length, _) = read_full(&mut stream, &mut block);
        let start = at + (plan.number << NUMBER_SHIFT);
        wrong_bytes += wrong(&block[..length], start, &mut room[..length]);
        at += length as u64;
        if length < block.len() {
            return (at, wrong_bytes);
        }
    }
}
