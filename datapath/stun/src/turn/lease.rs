//! A promise of the server that runs out: a permission or a channel binding.

use std::time::{Duration, Instant};

/// How long a refusal stands before the same is asked again.
const BARRED: Duration = Duration::from_secs(60);
/// From an unanswered request to the next.
const RETRY: Duration = Duration::from_secs(5);

/// How long a kind of lease lasts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term {
    /// From the asking to the end.
    pub life: Duration,
    /// From the asking to the asking again.
    pub renew: Duration,
}

/// One lease: when to ask for it and until when it holds.
#[derive(Debug, Default)]
pub(super) struct Lease {
    asking: bool,
    ask_at: Option<Instant>,
    until: Option<Instant>,
    barred: Option<Instant>,
}

impl Lease {
    /// Asks for the lease as soon as possible, unless it is held, asked for or barred.
    pub fn want(&mut self, now: Instant) {
        if !self.asking && self.until.is_none() && !self.is_barred(now) {
            self.ask_at.get_or_insert(now);
        }
    }

    /// Whether the server said no a short time ago.
    pub fn is_barred(&self, now: Instant) -> bool {
        self.barred.is_some_and(|until| now < until)
    }

    /// Whether the server's promise stands.
    pub fn is_held(&self) -> bool {
        self.until.is_some()
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.ask_at.is_some_and(|at| at <= now)
    }

    /// Whether nothing is left of it: neither held nor asked for, nor barred.
    pub fn is_void(&self, now: Instant) -> bool {
        !self.asking && self.until.is_none() && self.ask_at.is_none() && !self.is_barred(now)
    }

    /// When something is due.
    pub fn next(&self) -> Option<Instant> {
        self.ask_at.into_iter().chain(self.until).min()
    }

    /// The request goes out.
    pub fn ask(&mut self) {
        self.asking = true;
        self.ask_at = None;
    }

    /// Nobody needs it any more: it runs out.
    pub fn lapse(&mut self) {
        self.ask_at = None;
    }

    /// Ends a promise whose time is over; true if it stood until now.
    pub fn expire(&mut self, now: Instant) -> bool {
        let over = self.until.is_some_and(|until| until <= now);
        if over {
            self.until = None;
        }
        over
    }

    /// The server said yes to what was asked at `asked`. True if it is new.
    pub fn grant(&mut self, asked: Instant, term: Term) -> bool {
        let new = self.until.is_none();
        *self = Self {
            ask_at: Some(asked + term.renew),
            until: Some(asked + term.life),
            ..Self::default()
        };
        new
    }

    /// The server said no. True if it had said yes before.
    pub fn refuse(&mut self, now: Instant) -> bool {
        let held = self.until.is_some();
        *self = Self { barred: Some(now + BARRED), ..Self::default() };
        held
    }

    /// The server said nothing.
    pub fn miss(&mut self, now: Instant) {
        self.asking = false;
        self.ask_at = Some(now + RETRY);
    }

    /// Until when the server may still hold to it, as far as we know.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}
