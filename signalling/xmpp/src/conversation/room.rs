//! The group as one room: entering it, staying in it, and who else is there.
//!
//! Members are told apart from mere occupants by their `<node/>`. What the room says about members
//! is not taken at face value when the room itself may be what goes away:
//!
//! - a member that leaves is reported only [`LEFT_HOLD`] later, because a server that stops takes
//!   everybody out of the room just before it closes our stream;
//! - while we are out, nobody is reported as left; once back in, those who are missing have
//!   [`RETURN_GRACE`] to come back too;
//! - a member that is back before that, and says by its `instance` that it is the same run of the
//!   node, was never away.

use super::requests::Purpose;
use super::{Settings, Wishes};
use crate::backoff::Backoff;
use ipop_jingle::node::Node;
use ipop_jingle::room::{self, OccupantNotice, status};
use ipop_jingle::stanza::{Presence, PresenceKind, StanzaError};
use ipop_signal::{Announcement, FatalCause, Happening, PeerAddress};
use jid::BareJid;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// From a member's leaving to its being reported.
pub(crate) const LEFT_HOLD: Duration = Duration::from_secs(2);
/// For others to come back to a room that was gone: their longest back-off and a little more.
pub(crate) const RETURN_GRACE: Duration = Duration::from_secs(75);
/// How long the room may take to let us in.
const ENTER_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two questions whether we are still in the room (XEP-0410).
pub(crate) const SELF_PING_PERIOD: Duration = Duration::from_secs(90);
/// A stay of this length is a good one.
const STABLE: Duration = Duration::from_secs(10);
/// Who makes the room unlocks it one round trip later, and ours may be as long.
const RETRY_FIRST: Duration = Duration::from_millis(8);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// So many refusals are not worth a word.
const QUIET_RETRIES: u32 = 7;
const NICKS_MAX: u32 = 20;
/// More members than this are not tracked.
const MEMBERS_MAX: usize = 4096;

/// Where we stand.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// No stream, or nothing to announce yet.
    Apart,
    /// Asked to be let in as this occupant.
    Entering { address: PeerAddress, deadline: Instant },
    /// In.
    Inside { address: PeerAddress, since: Instant, self_ping: Instant },
    /// Out, to try again then.
    Waiting { until: Instant },
}

/// Whether a member is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presentness {
    Here,
    /// Said to have left; reported then.
    Leaving(Instant),
    /// Not seen since we were out. Reported then; `None` while we are out.
    Missing(Option<Instant>),
}

struct Record {
    node: Node,
    presentness: Presentness,
}

/// What the controller was last told about us.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Online(PeerAddress),
    Offline(String),
}

pub(crate) struct Room {
    jid: BareJid,
    password: Option<String>,
    instance: String,
    announcement: Option<Announcement>,
    /// As it stands in the room.
    announced: Option<Announcement>,
    connected: bool,
    phase: Phase,
    /// The room was asked on this stream to be unlocked, should we have made it.
    unlocks: bool,
    /// We made the room.
    is_maker: bool,
    /// How many nicks were taken.
    nicks: u32,
    members: BTreeMap<PeerAddress, Record>,
    told: Told,
    backoff: Backoff,
}

impl Room {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            jid: settings.room.clone(),
            password: settings.room_password.clone(),
            instance: settings.instance.clone(),
            announcement: None,
            announced: None,
            connected: false,
            phase: Phase::Apart,
            unlocks: false,
            is_maker: false,
            nicks: 0,
            members: BTreeMap::new(),
            told: Told::Nothing,
            backoff: Backoff::new(RETRY_FIRST, RETRY_LONGEST, settings.seed),
        }
    }

    /// Our address, while we are in.
    pub(crate) fn address(&self) -> Option<&PeerAddress> {
        match &self.phase {
            Phase::Inside { address, .. } => Some(address),
            _ => None,
        }
    }

    pub(crate) fn has_member(&self, address: &PeerAddress) -> bool {
        self.members.contains_key(address)
    }

    /// A stream is there.
    pub(crate) fn enter(&mut self, wishes: &mut Wishes<'_>) {
        self.connected = true;
        (self.unlocks, self.is_maker) = (false, false);
        self.nicks = 0;
        self.backoff.reset();
        self.ask_to_enter(wishes);
    }

    pub(crate) fn announce(&mut self, announcement: Announcement, wishes: &mut Wishes<'_>) {
        self.announcement = Some(announcement);
        match self.phase {
            Phase::Apart if self.connected => self.ask_to_enter(wishes),
            Phase::Inside { .. } => self.refresh_presence(wishes),
            _ => {}
        }
    }

    /// The stream is gone.
    pub(crate) fn disconnected(&mut self, reason: &str, wishes: &mut Wishes<'_>) {
        self.connected = false;
        self.phase = Phase::Apart;
        self.step_out();
        self.tell_offline(reason.to_owned(), wishes);
    }

    /// Says goodbye to the room.
    pub(crate) fn leave(&mut self, wishes: &mut Wishes<'_>) {
        if let Phase::Inside { address, .. } | Phase::Entering { address, .. } = &self.phase {
            let to = address.0.clone();
            wishes.send(Presence::to(to, PresenceKind::Unavailable, Vec::new()).emit());
        }
        self.phase = Phase::Apart;
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Apart => None,
            Phase::Entering { deadline, .. } => Some(*deadline),
            Phase::Inside { self_ping, .. } => Some(*self_ping),
            Phase::Waiting { until } => Some(*until),
        }
    }

    /// When the next member is to be reported as left.
    pub(crate) fn departure(&self) -> Option<Instant> {
        self.members.values().filter_map(Record::departure).min()
    }

    pub(crate) fn handle_timeout(&mut self, wishes: &mut Wishes<'_>) {
        let now = wishes.now;
        match &mut self.phase {
            Phase::Entering { deadline, .. } if *deadline <= now => {
                self.retry_later("the room does not answer".to_owned(), wishes);
            }
            Phase::Waiting { until } if *until <= now => self.ask_to_enter(wishes),
            Phase::Inside { address, self_ping, .. } if *self_ping <= now => {
                *self_ping = now + SELF_PING_PERIOD;
                wishes.get(&address.0, ipop_jingle::stanza::emit_ping(), Purpose::SelfPing);
            }
            _ => {}
        }
        let gone = |record: &Record| record.departure().is_some_and(|at| at <= now);
        let left: Vec<_> =
            self.members.iter().filter(|(_, r)| gone(r)).map(|(a, _)| a.clone()).collect();
        left.into_iter().for_each(|address| self.report_left(&address, wishes));
    }

    /// The answer to a question whether we are in the room (XEP-0410 section 3.3): errors other
    /// than these mean that the question arrived, or that nothing can be said.
    pub(crate) fn on_self_ping(&mut self, error: Option<&StanzaError>, wishes: &mut Wishes<'_>) {
        let Some(error) = error else { return };
        let known = [
            "service-unavailable",
            "feature-not-implemented",
            "item-not-found",
            "remote-server-not-found",
            "remote-server-timeout",
        ];
        if !known.contains(&error.condition.as_str()) && self.address().is_some() {
            self.step_out();
            self.retry_later("the room forgot us".to_owned(), wishes);
        }
    }

    pub(crate) fn on_presence(&mut self, presence: Presence, wishes: &mut Wishes<'_>) {
        let Some(from) = presence.from.clone().map(PeerAddress) else { return };
        let Some((room, _nick)) = from.0.split_once('/') else {
            // An error about the room as a whole comes from its bare address.
            if presence.kind == PresenceKind::Error && from.0 == self.jid.as_str() {
                self.on_refusal(&StanzaError::of(&presence.payloads), wishes);
            }
            return;
        };
        if room != self.jid.as_str() {
            return;
        }
        let notice = OccupantNotice::parse(&presence.payloads);
        let is_self = notice.has(status::SELF) || self.is_own(&from);
        match presence.kind {
            PresenceKind::Error => self.on_refusal(&StanzaError::of(&presence.payloads), wishes),
            PresenceKind::Available if is_self => self.on_inside(from, &notice, wishes),
            PresenceKind::Available => self.on_occupant(from, &presence, wishes),
            PresenceKind::Unavailable if is_self => self.on_outside(&notice, wishes),
            PresenceKind::Unavailable => self.on_left(&from, &notice, wishes),
            PresenceKind::Other => {}
        }
    }

    fn is_own(&self, from: &PeerAddress) -> bool {
        match &self.phase {
            Phase::Inside { address, .. } => address == from,
            _ => false,
        }
    }

    fn ask_to_enter(&mut self, wishes: &mut Wishes<'_>) {
        let Some(announcement) = self.announcement.clone() else {
            self.phase = Phase::Apart;
            return;
        };
        let nick = match self.nicks {
            0 => announcement.nickname(),
            taken => format!("{}-{}", announcement.nickname(), taken + 1),
        };
        let Ok(address) = self.jid.with_resource_str(&nick) else {
            let text = format!("{nick:?} cannot be a name in a room: change the node's name");
            return wishes.fatal(FatalCause::Configuration, text);
        };
        let address = PeerAddress(address.to_string());
        let join = room::emit_join(self.password.as_deref());
        let payloads = vec![join, self.node(announcement.clone()).emit()];
        wishes.send(Presence::to(address.0.clone(), PresenceKind::Available, payloads).emit());
        self.announced = Some(announcement);
        self.phase = Phase::Entering { address, deadline: wishes.now + ENTER_TIMEOUT };
        // Whoever comes at the same time finds the room locked until its maker has unlocked it, so
        // that travels along (an instant room, XEP-0045 section 10.1.2). To a room that is there
        // already it says nothing, or is refused. A password it would change, so that waits.
        if self.password.is_none() && !self.unlocks {
            self.unlock(wishes);
        }
    }

    fn unlock(&mut self, wishes: &mut Wishes<'_>) {
        self.unlocks = true;
        let query = room::emit_configuration(self.password.as_deref());
        wishes.set(self.jid.as_str(), query, Purpose::Unlock);
    }

    /// The answer to that.
    pub(crate) fn on_unlock_answer(&self, error: Option<&StanzaError>) {
        if let Some(error) = error.filter(|_| self.is_maker) {
            tracing::warn!(%error, "the room keeps its defaults");
        }
    }

    fn refresh_presence(&mut self, wishes: &mut Wishes<'_>) {
        let (Some(address), Some(announcement)) = (self.address(), &self.announcement) else {
            return;
        };
        if self.announced.as_ref() == Some(announcement) {
            return;
        }
        let payloads = vec![self.node(announcement.clone()).emit()];
        wishes.send(Presence::to(address.0.clone(), PresenceKind::Available, payloads).emit());
        self.announced = Some(announcement.clone());
    }

    fn node(&self, announcement: Announcement) -> Node {
        Node { announcement, instance: self.instance.clone() }
    }

    /// We are in: everybody else's presence came before ours.
    fn on_inside(
        &mut self,
        address: PeerAddress,
        notice: &OccupantNotice,
        wishes: &mut Wishes<'_>,
    ) {
        if !matches!(self.phase, Phase::Entering { .. } | Phase::Inside { .. }) {
            return;
        }
        if notice.has(status::CREATED) {
            self.is_maker = true;
            if !self.unlocks {
                self.unlock(wishes);
            }
        }
        let entered = !matches!(&self.phase, Phase::Inside { address: a, .. } if *a == address);
        if !entered {
            return;
        }
        self.members.remove(&address);
        let until = Some(wishes.now + RETURN_GRACE);
        for record in self.members.values_mut() {
            if record.presentness == Presentness::Missing(None) {
                record.presentness = Presentness::Missing(until);
            }
        }
        self.phase = Phase::Inside {
            address: address.clone(),
            since: wishes.now,
            self_ping: wishes.now + SELF_PING_PERIOD,
        };
        wishes.outputs.push_back(super::Output::Settled);
        self.told = Told::Online(address.clone());
        wishes.happen(Happening::Online { address });
        self.refresh_presence(wishes);
    }

    fn on_occupant(&mut self, from: PeerAddress, presence: &Presence, wishes: &mut Wishes<'_>) {
        let Some(node) = room::node_of(&presence.payloads) else {
            return self.report_left(&from, wishes);
        };
        let member = node.announcement.clone().at(from.clone());
        let Some(record) = self.members.get_mut(&from) else {
            if self.members.len() < MEMBERS_MAX {
                let record = Record { node, presentness: Presentness::Here };
                self.members.insert(from, record);
                wishes.happen(Happening::MemberAppeared(member));
            }
            return;
        };
        let stayed = record.is_same_run(&node);
        let changed = record.node.announcement != node.announcement;
        *record = Record { node, presentness: Presentness::Here };
        match (stayed, changed) {
            (true, false) => {}
            (true, true) => wishes.happen(Happening::MemberChanged(member)),
            (false, _) => {
                wishes.happen(Happening::MemberLeft(from));
                wishes.happen(Happening::MemberAppeared(member));
            }
        }
    }

    fn on_left(&mut self, from: &PeerAddress, notice: &OccupantNotice, wishes: &mut Wishes<'_>) {
        if notice.has(status::RENAMED) {
            return self.report_left(from, wishes);
        }
        let Some(record) = self.members.get_mut(from) else { return };
        record.presentness = if notice.has(status::SHUTDOWN) || notice.destroyed {
            Presentness::Missing(Some(wishes.now + RETURN_GRACE))
        } else {
            Presentness::Leaving(wishes.now + LEFT_HOLD)
        };
    }

    /// We are out, though the stream is there.
    fn on_outside(&mut self, notice: &OccupantNotice, wishes: &mut Wishes<'_>) {
        if notice.has(status::RENAMED) {
            return self.on_renamed(notice, wishes.now);
        }
        if !matches!(self.phase, Phase::Inside { .. } | Phase::Entering { .. }) {
            return;
        }
        self.step_out();
        let room = &self.jid;
        if notice.has(status::BANNED) {
            let text = format!("this account was banned from {room}: ask the room's owner");
            return wishes.fatal(FatalCause::Room, text);
        }
        if notice.has(status::AFFILIATION_LOST) || notice.has(status::MEMBERS_ONLY) {
            let text = format!("{room} is for members only: ask its owner to add the account");
            return wishes.fatal(FatalCause::Room, text);
        }
        let reason = match notice {
            _ if notice.has(status::SHUTDOWN) => "the room's service shuts down",
            _ if notice.has(status::KICKED) => "kicked out of the room",
            _ if notice.destroyed => "the room was destroyed",
            _ => "the room dropped us",
        };
        self.retry_later(reason.to_owned(), wishes);
    }

    /// The room gave us another nick; our presence under it follows.
    fn on_renamed(&mut self, notice: &OccupantNotice, now: Instant) {
        let address = notice.new_nick.as_ref().and_then(|n| self.jid.with_resource_str(n).ok());
        if let (Some(new), Phase::Inside { address, .. }) = (address, &self.phase) {
            tracing::info!(old = %address, %new, "the room changed our nick");
            let address = PeerAddress(new.to_string());
            self.phase = Phase::Entering { address, deadline: now + ENTER_TIMEOUT };
        }
    }

    /// The room does not let us in.
    fn on_refusal(&mut self, error: &StanzaError, wishes: &mut Wishes<'_>) {
        if !matches!(self.phase, Phase::Entering { .. }) {
            tracing::warn!(%error, "the room refused a presence");
            return;
        }
        let room = &self.jid;
        let text = match error.condition.as_str() {
            "conflict" if self.nicks + 1 < NICKS_MAX => {
                self.nicks += 1;
                return self.ask_to_enter(wishes);
            }
            "conflict" => format!("every nick that we know is taken in {room}: change the name"),
            "not-authorized" if self.password.is_some() => {
                format!("{room} refuses the configured room password: check it")
            }
            "not-authorized" => {
                format!("{room} wants a password: put the room password in the configuration")
            }
            "forbidden" | "not-allowed" => format!(
                "{room} does not let this account in, or it may not make the room ({error}): ask \
                 the room's owner, or choose another room"
            ),
            "registration-required" => {
                format!("{room} is for members only: ask its owner to add the account")
            }
            "not-acceptable" | "jid-malformed" => {
                format!("{room} does not accept our name ({error}): change the node's name")
            }
            _ => return self.retry_later(format!("{room} does not let us in: {error}"), wishes),
        };
        wishes.fatal(FatalCause::Room, text);
    }

    /// A room that somebody else is just making is locked for a moment, so the first pause is short
    /// and not worth a word.
    fn retry_later(&mut self, reason: String, wishes: &mut Wishes<'_>) {
        // Whoever is thrown out again and again waits longer each time.
        if matches!(self.phase, Phase::Inside { since, .. } if wishes.now >= since + STABLE) {
            self.backoff.reset();
        }
        self.phase = Phase::Waiting { until: wishes.now + self.backoff.pause(wishes.now) };
        if self.told != Told::Nothing || self.backoff.attempts() > QUIET_RETRIES {
            self.tell_offline(reason, wishes);
        }
    }

    fn step_out(&mut self) {
        self.announced = None;
        for record in self.members.values_mut() {
            record.presentness = Presentness::Missing(None);
        }
    }

    fn tell_offline(&mut self, reason: String, wishes: &mut Wishes<'_>) {
        let told = Told::Offline(reason.clone());
        if self.told != told {
            self.told = told;
            wishes.happen(Happening::Offline { reason });
        }
    }

    fn report_left(&mut self, address: &PeerAddress, wishes: &mut Wishes<'_>) {
        if self.members.remove(address).is_some() {
            wishes.happen(Happening::MemberLeft(address.clone()));
        }
    }
}

impl Record {
    /// Whether a node that is seen again is the run of it that was seen before. Without an instance
    /// only a member that said goodbye is known to have been away.
    fn is_same_run(&self, node: &Node) -> bool {
        let said_goodbye = matches!(self.presentness, Presentness::Leaving(_));
        self.node.announcement.fingerprint == node.announcement.fingerprint
            && self.node.instance == node.instance
            && !(said_goodbye && node.instance.is_empty())
    }

    fn departure(&self) -> Option<Instant> {
        match self.presentness {
            Presentness::Here => None,
            Presentness::Leaving(at) => Some(at),
            Presentness::Missing(at) => at,
        }
    }
}
