//! Ctrl-C: everything that waits asks here, so that all is taken down again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::BenchError;

/// Pause between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(2);

/// Whether somebody wants the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens to SIGINT, SIGTERM and SIGHUP.
    pub(crate) fn on_signals() -> Result<Self, BenchError> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, stop.0.clone())?;
        }
        Ok(stop)
    }

    /// An error as soon as somebody wants the end.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        if self.0.load(Ordering::Relaxed) { Err(BenchError::Stopped) } else { Ok(()) }
    }

    /// Sleeps, but not beyond the end.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), BenchError> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.check()?;
            std::thread::sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now())));
        }
        self.check()
    }

    /// Asks `look` until it has something; `None` when the time is up.
    pub(crate) fn wait<T>(
        &self,
        patience: Duration,
        mut look: impl FnMut() -> Result<Option<T>, BenchError>,
    ) -> Result<Option<T>, BenchError> {
        let deadline = Instant::now() + patience;
        loop {
            self.check()?;
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_what_was_found_or_with_the_time() {
        let stop = Stop::default();
        assert_eq!(stop.wait(Duration::from_secs(60), || Ok(Some(7))).unwrap(), Some(7));
        assert_eq!(stop.wait(Duration::ZERO, || Ok(None::<u8>)).unwrap(), None);
    }

    #[test]
    fn a_stop_ends_every_wait_at_once() {
        let stop = Stop::default();
        stop.0.store(true, Ordering::Relaxed);
        assert!(matches!(stop.sleep(Duration::from_secs(60)), Err(BenchError::Stopped)));
        let wait = stop.wait(Duration::from_secs(60), || Ok(None::<u8>));
        assert!(matches!(wait, Err(BenchError::Stopped)));
    }
}
