//! TURN clients over TCP, on the port of XMPP: for networks that let nothing else out.
//!
//! A connection holds a stranger's place until it has an allocation, and is closed when it is
//! without one for [`IDLE_TIME`]. What its client does not read waits within bounds and is dropped
//! beyond them, message by message.

use super::RelayHandle;
use super::framing::{self, OutOfStep};
use crate::strangers;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};

/// For an allocation, from the connection on or from the end of the one before.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// A client that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes that wait for one client; as many may be under way to it.
const QUEUE_LEN_MAX: usize = 256 * 1024;
/// Bytes that wait for all clients.
const QUEUES_LEN_MAX: usize = 128 << 20;
/// Bytes that the kernel takes for a client beyond those under way to it.
const UNSENT_MAX: u32 = 64 * 1024;
const READ_LEN: usize = 32 * 1024;
/// What a client without an allocation may have under way: requests are small.
const STRANGER_READ_LEN: usize = 4096;

/// Whether a connection that begins with this byte is a TURN client's: XML begins otherwise, and so
/// does TLS.
pub(crate) fn is_turn(first: u8) -> bool {
    first <= 3
}

/// What waits for a client.
pub(super) struct Outlet {
    queue: Mutex<Vec<u8>>,
    filled: Notify,
    /// Bytes that wait for all clients.
    all: Arc<AtomicUsize>,
}

/// Bytes on their way to a client, which count until they are gone.
struct Batch {
    bytes: Vec<u8>,
    all: Arc<AtomicUsize>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl Outlet {
    pub(super) fn new(all: Arc<AtomicUsize>) -> Self {
        Self { queue: Mutex::default(), filled: Notify::new(), all }
    }

    /// Puts a message behind the others, padded, if there is room.
    pub(super) fn push(&self, message: &[u8]) {
        let mut queue = self.lock();
        let len = message.len().next_multiple_of(4);
        let end = queue.len() + len;
        let all = self.all.load(Ordering::Relaxed) + len;
        if end <= QUEUE_LEN_MAX && all <= QUEUES_LEN_MAX {
            self.all.fetch_add(len, Ordering::Relaxed);
            queue.extend_from_slice(message);
            queue.resize(end, 0);
            self.filled.notify_one();
        }
    }

    async fn next(&self) -> Batch {
        loop {
            let bytes = std::mem::take(&mut *self.lock());
            if !bytes.is_empty() {
                return Batch { bytes, all: self.all.clone() };
            }
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let len = self.lock().len();
        self.all.fetch_sub(len, Ordering::Relaxed);
    }
}

/// A client's place at the relay, given up when dropped.
struct Seat {
    relay: RelayHandle,
    place: super::Place,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.relay.leave(self.place);
    }
}

/// Serves a TURN client until one side ends it.
pub(crate) async fn serve_stream(
    relay: RelayHandle,
    mut tcp: TcpStream,
    remote: SocketAddr,
    stranger: strangers::Place,
) {
    // What waits, waits here, where it is counted.
    let _ = socket2::SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT_MAX);
    let local = tcp.local_addr().map_or(remote.ip(), |local| local.ip());
    let Some((place, outlet)) = relay.enter(remote, local) else { return };
    let seat = Seat { relay, place };
    let (mut reader, mut writer) = tcp.split();
    let write = async {
        loop {
            let batch = outlet.next().await;
            let write = writer.write_all(&batch.bytes);
            if !matches!(timeout(WRITE_TIMEOUT, write).await, Ok(Ok(()))) {
                return;
            }
        }
    };
    let ended = tokio::select! {
        ended = read(&seat, &mut reader, stranger) => ended,
        () = write => "it takes nothing",
    };
    tracing::debug!(%remote, ended, "a TURN client is gone");
}

/// Takes what the client sends; why that ends.
async fn read(
    seat: &Seat,
    reader: &mut (impl AsyncReadExt + Unpin),
    stranger: strangers::Place,
) -> &'static str {
    let mut stranger = Some(stranger);
    let mut waiting = Vec::new();
    let mut deadline = Instant::now() + IDLE_TIME;
    loop {
        let room = if stranger.is_some() { STRANGER_READ_LEN } else { READ_LEN };
        waiting.reserve(room);
        let mut reading = (&mut *reader).take(room as u64);
        match timeout_at(deadline, reading.read_buf(&mut waiting)).await {
            Ok(Ok(0)) => return "it has closed",
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return "the connection broke",
            Err(_) if seat.relay.take(seat.place, std::iter::empty()) => {
                deadline = Instant::now() + IDLE_TIME;
                continue;
            }
            Err(_) => return "it has no allocation",
        }
        let taken = match framing::messages(&waiting) {
            Ok((messages, taken)) => {
                if seat.relay.take(seat.place, messages.into_iter()) {
                    stranger = None;
                    deadline = Instant::now() + IDLE_TIME;
                }
                taken
            }
            Err(OutOfStep) => return "it does not speak TURN",
        };
        waiting.drain(..taken);
        if stranger.is_some() && waiting.len() > STRANGER_READ_LEN {
            return "it says much without an allocation";
        }
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn what_waits_is_bounded_and_counted_until_it_is_gone() {
        let all = Arc::<AtomicUsize>::default();
        let waiting = || all.load(Ordering::Relaxed);
        let (slow, other) = (Outlet::new(all.clone()), Outlet::new(all.clone()));
        for _ in 0..1000 {
            slow.push(&[7; 1001]);
        }
        assert_eq!(waiting(), QUEUE_LEN_MAX / 1004 * 1004);
        let batch = slow.next().await;
        assert_eq!((batch.bytes.len(), &batch.bytes[1000..1004]), (waiting(), &[7, 0, 0, 0][..]));
        other.push(&[1; 8]);
        drop(batch);
        assert_eq!(waiting(), 8);
        drop(other);
        assert_eq!(waiting(), 0);
        all.store(QUEUES_LEN_MAX, Ordering::Relaxed);
        slow.push(&[1; 8]);
        assert_eq!(waiting(), QUEUES_LEN_MAX);
    }
}
