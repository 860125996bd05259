//! Stop signals for commands without an event loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

/// Sets `stop` when SIGINT, SIGTERM or SIGHUP comes.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_stop(stop: Arc<AtomicBool>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let signals = {
        let _inside = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
    };
    let [a, b, c] = signals;
    let (mut a, mut b, mut c) = (a?, b?, c?);
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = a.recv() => {}
                    _ = b.recv() => {}
                    _ = c.recv() => {}
                }
                stop.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}
