//! Sends back what comes.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use super::PACKET_MAX;
use crate::error::BenchError;
use crate::stop::Stop;

/// Until somebody wants the end.
pub(super) fn run(port: u16, stop: &Stop) -> Result<(), BenchError> {
    let socket = UdpSocket::bind(("0.0.0.0", port))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut buffer = vec![0; PACKET_MAX];
    while stop.check().is_ok() {
        match socket.recv_from(&mut buffer) {
            // What cannot be sent back is lost, as on any network.
            Ok((len, from)) => drop(socket.send_to(&buffer[..len], from)),
            Err(error) if is_passing(error.kind()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
        || kind == ErrorKind::ConnectionRefused
}
