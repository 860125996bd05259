//! STUN and TURN servers: asked for on each stream, and again before credentials run out.

use super::Wishes;
use super::requests::Purpose;
use ipop_jingle::services;
use ipop_signal::{Happening, IceServers, TurnServer};
use minidom::Element;
use std::time::{Duration, Instant};

const REFRESH_MIN: Duration = Duration::from_secs(60);
const REFRESH_MAX: Duration = Duration::from_secs(12 * 3600);
/// After a question that was not answered with a list.
const REFRESH_AFTER_REFUSAL: Duration = Duration::from_secs(600);

/// Ties the wall clock, in which credentials expire, to the machine's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) at: Instant,
    /// Seconds since 1970 then.
    pub(crate) unix_s: u64,
}

pub(crate) struct Services {
    domain: String,
    clock: Clock,
    /// As the server said.
    servers: IceServers,
    /// As last told to the controller.
    told: Option<IceServers>,
    refresh: Option<Instant>,
}

impl Services {
    pub(crate) fn new(domain: String, clock: Clock) -> Self {
        Self { domain, clock, servers: IceServers::default(), told: None, refresh: None }
    }

    pub(crate) fn query(&mut self, wishes: &mut Wishes<'_>) {
        self.refresh = None;
        wishes.get(&self.domain, services::emit_query(), Purpose::Services);
    }

    pub(crate) fn disconnected(&mut self) {
        self.refresh = None;
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.refresh
    }

    pub(crate) fn handle_timeout(&mut self, wishes: &mut Wishes<'_>) {
        if self.refresh.is_some_and(|at| at <= wishes.now) {
            self.query(wishes);
        }
    }

    /// `answer` is `None` when the server refused or did not answer.
    pub(crate) fn on_answer(
        &mut self,
        purpose: &Purpose,
        answer: Option<&Element>,
        wishes: &mut Wishes<'_>,
    ) {
        let answer = answer.and_then(services::parse);
        match (purpose, answer) {
            (Purpose::Services, Some(found)) => {
                let known = std::mem::replace(&mut self.servers, found.servers).turn;
                for server in found.locked {
                    // The credentials that were known hold until others come.
                    self.servers.turn.extend(known.iter().find(|k| is_same(k, &server)).cloned());
                    let query = services::emit_credentials(&server);
                    wishes.get(&self.domain, query, Purpose::Credentials(server));
                }
                self.schedule(wishes.now);
            }
            (Purpose::Services, None) => {
                self.refresh = Some(wishes.now + REFRESH_AFTER_REFUSAL);
            }
            (Purpose::Credentials(asked), Some(found)) => {
                for keyed in found.servers.turn {
                    let (at, transport) = (asked.at.clone(), asked.transport);
                    self.put(TurnServer { at, transport, ..keyed });
                }
                self.schedule(wishes.now);
            }
            _ => {}
        }
        if self.told.as_ref() != Some(&self.servers) {
            self.told = Some(self.servers.clone());
            wishes.happen(Happening::IceServers(self.servers.clone()));
        }
    }

    /// Puts a server in its own place, if it is there already.
    fn put(&mut self, server: TurnServer) {
        match self.servers.turn.iter_mut().find(|known| is_same(known, &server)) {
            Some(known) => *known = server,
            None => self.servers.turn.push(server),
        }
    }

    /// Half-way through the shortest life, so that there is time to ask more than once.
    fn schedule(&mut self, now: Instant) {
        let unix_s = self.clock.unix_s + now.saturating_duration_since(self.clock.at).as_secs();
        let ends = self.servers.turn.iter().filter_map(|server| server.expires_unix_s);
        let life = ends.min().map(|end| Duration::from_secs(end.saturating_sub(unix_s)));
        let pause = life.map_or(REFRESH_MAX, |life| (life / 2).clamp(REFRESH_MIN, REFRESH_MAX));
        self.refresh = Some(now + pause);
    }
}

/// Whether it is the same server, whoever we are there.
fn is_same(one: &TurnServer, other: &TurnServer) -> bool {
    (&one.at, one.transport) == (&other.at, other.transport)
}
