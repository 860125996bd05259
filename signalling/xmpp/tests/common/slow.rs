//! A TCP connection on which everything takes its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// What stands in front of a server.
pub struct Slow {
    /// The port to use instead of the server's.
    pub port: u16,
    turns: Arc<AtomicUsize>,
}

impl Slow {
    /// How many times the client has spoken: first, or after the server had. Each is a round trip.
    pub fn turns(&self) -> usize {
        self.turns.load(Ordering::Relaxed).div_ceil(2)
    }
}

/// Counts a word of one end, unless the last one was its own as well.
fn count(turns: &AtomicUsize, is_client: bool) {
    let last = turns.load(Ordering::Relaxed);
    if last.is_multiple_of(2) == is_client {
        turns.store(last + 1, Ordering::Relaxed);
    }
}

/// Forwards to a port of this host, each byte later by the delay.
pub async fn proxy(port: u16, delay: Duration) -> Slow {
    let turns = Arc::new(AtomicUsize::new(0));
    Slow { port: listen(port, delay, turns.clone()).await, turns }
}

async fn listen(port: u16, delay: Duration, turns: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let (ours, theirs) = (turns.clone(), turns.clone());
            tokio::spawn(forward(from_client, to_server, delay, move || count(&ours, true)));
            tokio::spawn(forward(from_server, to_client, delay, move || count(&theirs, false)));
        }
    });
    near
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Duration,
    heard: impl Fn(),
) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((at, bytes)) = receiver.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 65536];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        heard();
        if sender.send((Instant::now() + delay, buffer[..len].to_vec())).is_err() {
            return;
        }
    }
}
