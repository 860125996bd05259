//! Tries a TURN server: allocates, makes a channel to a second socket of this machine and sends
//! data both ways.
//!
//! ```text
//! cargo run -p ipop-stun --example turn_probe -- 198.18.0.20:3478 USER PASSWORD
//! ```

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ipop_stun::{
    BindingClient, BindingConfig, BindingOutput, ChannelNumber, Credential, Input, TurnConfig,
    TurnOutput,
};

mod driver;

use driver::Driver;

/// Datagrams sent each way.
const COUNT: usize = 100;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, username, password] = arguments.as_slice() else {
        return Err("usage: turn_probe SERVER:PORT USER PASSWORD".into());
    };
    let server: SocketAddr = server.parse()?;
    let config = TurnConfig::new(server, Credential::new(username, password)?);

    let started = Instant::now();
    let mut driver = Driver::new(socket_for(server)?, config, seed()?);
    let relayed = allocate(&mut driver)?;
    println!("allocated {relayed} after {:.1} ms", milliseconds(started));

    let peer_socket = socket_for(server)?;
    let peer = mapped(&peer_socket, server)?;
    let started = Instant::now();
    driver.client.bind(Instant::now(), peer)?;
    let bound = driver.run(PATIENCE, |driver| driver.client.channel(peer).is_some())?;
    let channel = driver.client.channel(peer).filter(|_| bound).ok_or("no channel was bound")?;
    println!("channel {:#06x} to {peer} after {:.1} ms", channel.number(), milliseconds(started));

    let there = send_to_peer(&mut driver, &peer_socket, server, channel)?;
    println!("client to peer through the channel: {there} of {COUNT}");
    let back = send_from_peer(&mut driver, &peer_socket, relayed, peer)?;
    println!("peer to client through the channel: {back} of {COUNT}");

    driver.client.close(Instant::now());
    driver.run(PATIENCE, |driver| driver.events.contains(&TurnOutput::Closed))?;
    if there + back == 2 * COUNT { Ok(()) } else { Err("some datagrams were lost".into()) }
}

fn allocate(driver: &mut Driver) -> Result<SocketAddr, Box<dyn Error>> {
    driver.run(PATIENCE, |driver| !driver.events.is_empty())?;
    match driver.events.pop() {
        Some(TurnOutput::Allocated { relayed, .. }) => Ok(relayed[0]),
        Some(TurnOutput::Failed { error, .. }) => Err(error.into()),
        _ => Err("the server gives no answer".into()),
    }
}

/// Sends as the fast path does: header and payload, no copy through the machine.
fn send_to_peer(
    driver: &mut Driver,
    peer_socket: &UdpSocket,
    server: SocketAddr,
    channel: ChannelNumber,
) -> Result<usize, Box<dyn Error>> {
    peer_socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut arrived = 0;
    for n in 0..COUNT {
        let payload = format!("there {n}");
        let mut datagram = channel.header(u16::try_from(payload.len())?).to_vec();
        datagram.extend_from_slice(payload.as_bytes());
        driver.socket.send_to(&datagram, server)?;
        let mut buffer = [0; 64];
        if let Ok((length, _)) = peer_socket.recv_from(&mut buffer)
            && buffer[..length] == *payload.as_bytes()
        {
            arrived += 1;
        }
    }
    Ok(arrived)
}

fn send_from_peer(
    driver: &mut Driver,
    peer_socket: &UdpSocket,
    relayed: SocketAddr,
    peer: SocketAddr,
) -> Result<usize, Box<dyn Error>> {
    for n in 0..COUNT {
        peer_socket.send_to(format!("back {n}").as_bytes(), relayed)?;
    }
    driver.run(PATIENCE, |driver| driver.received.len() >= COUNT)?;
    let right = driver
        .received
        .iter()
        .filter(|data| data.in_channel && data.peer == peer && data.payload.starts_with(b"back "));
    Ok(right.count())
}

/// Where the server sees `socket`.
fn mapped(socket: &UdpSocket, server: SocketAddr) -> Result<SocketAddr, Box<dyn Error>> {
    let mut client = BindingClient::new(BindingConfig::new(server), seed()?, Instant::now());
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        while let Some(output) = client.poll_output() {
            match output {
                BindingOutput::Transmit { to, data } => drop(socket.send_to(&data, to)?),
                BindingOutput::Mapped { address, .. } => return Ok(address),
                BindingOutput::Failed(error) => return Err(error.into()),
            }
        }
        let mut buffer = [0; 2048];
        if let Ok((length, remote)) = socket.recv_from(&mut buffer) {
            let input = Input { remote, data: &buffer[..length] };
            // What is not for the client is for nobody: the socket has no other use yet.
            let _ = client.handle_input(Instant::now(), input);
        }
        client.handle_timeout(Instant::now());
    }
    Err("the server does not answer STUN".into())
}

fn socket_for(server: SocketAddr) -> std::io::Result<UdpSocket> {
    UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })
}

fn seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
