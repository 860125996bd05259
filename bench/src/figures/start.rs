//! From the start of both nodes to the first packet that is answered.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::process::Process;
use crate::stage::Stage;
use crate::systems::Launch;
use crate::tunnel::Tunnel;

/// How long a system may take.
const PATIENCE: Duration = Duration::from_secs(45);
/// Pause between packets.
const PAUSE: Duration = Duration::from_millis(2);
const PORT: u16 = 5302;

/// Launches a system and sends packets until one is answered; returns the seconds since before the
/// launch.
pub(crate) fn first_packet(stage: &Stage, launch: Launch<'_>) -> Result<(Tunnel, f64), BenchError> {
    let port = PORT.to_string();
    let command = stage.tool(1, &["udp-echo", "--port", &port])?;
    let mut echo = Process::start(command, stage.folder(), "echo")?;
    stage.wait_for_port(&mut echo, "udp", PORT)?;
    let socket = stage.ends[0].inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PAUSE))?;
        Ok(socket)
    })?;
    let start = Instant::now();
    let mut tunnel = launch()?;
    let far = (tunnel.far, PORT);
    let answered = stage.stop.wait(PATIENCE, || {
        tunnel.check()?;
        // Until the overlay is there, neither way works: that is what is waited for.
        let _ = socket.send_to(b"first", far);
        let mut buffer = [0; 64];
        Ok(socket.recv_from(&mut buffer).is_ok().then(|| start.elapsed().as_secs_f64()))
    })?;
    match answered {
        Some(seconds) => Ok((tunnel, seconds)),
        None => {
            let seconds = PATIENCE.as_secs();
            Err(BenchError::new(format!("no packet was answered within {seconds} s")))
        }
    }
}
