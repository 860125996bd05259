//! What the kernel tells of changes to the network, for the agent, which sleeps elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipop_shm::Ringer;
use ipop_uring::{NetworkChange, NetworkWatch};

/// Before the watch is opened again when it fails.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// The agent's end of the watch: what has changed since it looked last.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Flags>);

#[derive(Default)]
struct Flags {
    is_watching: AtomicBool,
    addresses: AtomicBool,
    mtus: AtomicBool,
}

impl Flags {
    fn note(&self, change: NetworkChange, ringer: &Ringer) {
        self.addresses.fetch_or(change.addresses, Ordering::Relaxed);
        self.mtus.fetch_or(change.mtus, Ordering::Relaxed);
        ringer.ring();
    }
}

impl Network {
    /// Starts a thread that listens to the kernel and rings the agent's bell. It ends with the
    /// process. Without one, the agent looks for itself every now and then. `own` is the number of
    /// the overlay interface.
    pub(crate) fn watch(ringer: Ringer, own: u32) -> Self {
        let network = Self::default();
        let flags = network.0.clone();
        let thread = std::thread::Builder::new().name("network".to_owned());
        if let Err(error) = thread.spawn(move || listen(&flags, &ringer, own)) {
            tracing::warn!("changes of the network are noticed late: {error}");
        }
        network
    }

    /// Whether the kernel is being listened to.
    pub(crate) fn is_watching(&self) -> bool {
        self.0.is_watching.load(Ordering::Relaxed)
    }

    /// What has changed since the last call.
    pub(crate) fn take(&self) -> Option<NetworkChange> {
        let change = NetworkChange {
            addresses: self.0.addresses.swap(false, Ordering::Relaxed),
            mtus: self.0.mtus.swap(false, Ordering::Relaxed),
        };
        (change.addresses || change.mtus).then_some(change)
    }
}

fn listen(flags: &Flags, ringer: &Ringer, own: u32) {
    loop {
        if let Err(error) = listen_once(flags, ringer, own) {
            tracing::debug!("changes of the network are noticed late: {error}");
        }
        flags.is_watching.store(false, Ordering::Relaxed);
        // What happened since is not told: the agent looks now, and often until there is a watch.
        flags.note(NetworkChange { addresses: true, mtus: true }, ringer);
        std::thread::sleep(REOPEN_AFTER);
    }
}

fn listen_once(flags: &Flags, ringer: &Ringer, own: u32) -> std::io::Result<()> {
    let mut watch = NetworkWatch::open(own)?;
    flags.is_watching.store(true, Ordering::Relaxed);
    loop {
        flags.note(watch.wait()?, ringer);
    }
}
