//! The thread that holds a mapping.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Mapping;
use crate::dialogue::Dialogue;

/// Before a router that maps nothing is asked again; its owner may have turned mappings on.
const RETRY_AFTER: Duration = Duration::from_secs(600);
/// A lease that is shorter is not renewed more often than this.
const RENEW_AFTER_MIN: Duration = Duration::from_secs(10);

/// How long the end waits for the mapping to be given back. A question that is under way may take
/// longer; its mapping then ends by itself.
const GIVE_BACK_TIME: Duration = Duration::from_secs(1);

enum Wish {
    LookAgain,
    Stop,
}

/// Holds a mapping of one UDP port for as long as it lives, and gives it back at its end.
pub struct Mapper {
    wishes: Sender<Wish>,
    thread: Option<JoinHandle<()>>,
}

impl Mapper {
    /// Starts asking. `tell` hears of each mapping that is new or another, and of its loss.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(port: u16, tell: impl Fn(Option<Mapping>) + Send + 'static) -> io::Result<Self> {
        let (wishes, wished) = channel();
        let run = move || Holder { port, held: None, tell }.run(&wished);
        let thread = std::thread::Builder::new().name("port mapping".to_owned()).spawn(run)?;
        Ok(Self { wishes, thread: Some(thread) })
    }

    /// The network has changed: another router may be in charge.
    pub fn look_again(&self) {
        let _ = self.wishes.send(Wish::LookAgain);
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _ = self.wishes.send(Wish::Stop);
        let deadline = Instant::now() + GIVE_BACK_TIME;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Holder<F> {
    port: u16,
    held: Option<(Dialogue, Mapping)>,
    tell: F,
}

impl<F: Fn(Option<Mapping>)> Holder<F> {
    fn run(mut self, wished: &Receiver<Wish>) {
        let mut due = Instant::now();
        loop {
            if due <= Instant::now() {
                due = Instant::now() + self.ask();
            }
            match wished.recv_timeout(due.saturating_duration_since(Instant::now())) {
                // Most changes do not concern the way to the router.
                Ok(Wish::LookAgain) if self.is_current() => {}
                Ok(Wish::LookAgain) | Err(RecvTimeoutError::Timeout) => due = Instant::now(),
                Ok(Wish::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.give_back();
    }

    fn is_current(&self) -> bool {
        self.held.as_ref().is_some_and(|(dialogue, _)| dialogue.is_current())
    }

    /// Asks once; how long what came of it is good for.
    fn ask(&mut self) -> Duration {
        let (held, before) = match self.held.take() {
            Some((dialogue, mapping)) if dialogue.is_current() => (Ok(dialogue), Some(mapping)),
            Some((_, mapping)) => (Dialogue::open(self.port), Some(mapping)),
            None => (Dialogue::open(self.port), None),
        };
        let asked = held.and_then(|mut dialogue| {
            let mapping = dialogue.ask()?;
            Ok((dialogue, mapping))
        });
        match asked {
            Ok((dialogue, mapping)) => {
                let known = before.map(|before| (before.internal, before.external));
                if known != Some((mapping.internal, mapping.external)) {
                    let Mapping { protocol, internal, external, .. } = mapping;
                    tracing::info!("the router maps {external} to {internal} ({protocol})");
                    (self.tell)(Some(mapping));
                }
                self.held = Some((dialogue, mapping));
                (mapping.lifetime / 2).max(RENEW_AFTER_MIN)
            }
            Err(error) => {
                tracing::debug!("no port mapping: {error}");
                if before.is_some() {
                    (self.tell)(None);
                }
                RETRY_AFTER
            }
        }
    }

    fn give_back(&mut self) {
        if let Some((dialogue, mapping)) = self.held.take()
            && let Err(error) = dialogue.give_back(&mapping)
        {
            tracing::debug!("the port mapping is left to its end: {error}");
        }
    }
}
