//! Everything that is said on a stream once it is ours, as a machine without a clock or a socket.
//!
//! It outlives streams: members, sessions and the announcement stay while the network is away, so
//! that what changed meanwhile can be told from what did not.
//!
//! Its parts: [`room`] is the group, [`requests`] ties answers to what was asked, [`sessions`]
//! remembers whose ICE credentials a session has, [`services`] keeps the list of STUN and TURN
//! servers fresh, [`responder`] answers those who ask about us.

mod requests;
mod responder;
mod room;
mod services;
mod sessions;

use ipop_jingle::session::{Body, Message, Refusal};
use ipop_jingle::stanza::{Iq, IqBody, Presence, PresenceKind, StanzaError};
use ipop_jingle::{ns, stanza, vocabulary};
use ipop_signal::{Action, FatalCause, Happening, PeerAddress, SessionId};
use jid::BareJid;
use minidom::Element;
use requests::{Purpose, Requests};
use room::Room;
pub(crate) use services::Clock;
use services::Services;
use sessions::Sessions;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Silence after which the server is asked whether it is there. With [`requests::ANSWER_TIMEOUT`]
/// a dead server is noticed within 40 s.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long the answer to that may take where the network has moved: the connection is more likely
/// to be dead than the server to be slow.
const ANSWER_AFTER_MOVE: Duration = Duration::from_secs(5);

/// What a conversation has to know beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The account's domain: where the server itself is asked.
    pub(crate) domain: String,
    /// The account without a resource.
    pub(crate) account: String,
    /// The group.
    pub(crate) room: BareJid,
    /// What the room asks for.
    pub(crate) room_password: Option<String>,
    /// Tells this run from the node's other runs.
    pub(crate) instance: String,
    /// What time it is.
    pub(crate) clock: Clock,
    /// For jitter and for request ids; unpredictable.
    pub(crate) seed: u64,
}

/// What can reach a conversation.
#[derive(Debug)]
pub(crate) enum Input {
    /// A stream is there; nothing said before survives on it.
    Connected,
    /// The stream is gone, or did not come about.
    Disconnected {
        /// Why, for people.
        reason: String,
    },
    /// A stanza of the server.
    Stanza(Element),
    /// A wish of the controller.
    Action(Action),
    /// This machine has other addresses or routes.
    NetworkMoved,
}

/// What a conversation wants.
#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    /// Send this; without a stream it is to be dropped.
    Send(Element),
    /// The same, but it may wait a moment for something that it can travel with.
    SendAlong(Element),
    /// Tell the controller.
    Happen(Happening),
    /// We are in the room: the way here works.
    Settled,
    /// The server is silent: give the stream up.
    Dead,
    /// Going on is pointless.
    Fatal {
        /// What kind of thing is wrong.
        cause: FatalCause,
        /// What to do.
        text: String,
    },
}

/// What a conversation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The server has been silent and is to be asked whether it is there.
    Silence,
    /// The answer to a request is overdue.
    Answer,
    /// The room does not answer, or is to be entered once more, or asked whether we are in it.
    Room,
    /// A member that left, or did not come back, is to be reported.
    Departure,
    /// The credentials of the relays run out.
    Services,
}

/// See the module.
pub(crate) struct Conversation {
    settings: Settings,
    room: Room,
    requests: Requests,
    sessions: Sessions,
    services: Services,
    /// Whether there is a stream.
    connected: bool,
    heard: Instant,
    outputs: VecDeque<Output>,
}

/// Where the parts put what they want: ready outputs, and requests that still lack an id.
pub(crate) struct Wishes<'a> {
    now: Instant,
    requests: &'a mut Requests,
    outputs: &'a mut VecDeque<Output>,
}

impl Wishes<'_> {
    fn send(&mut self, element: Element) {
        self.outputs.push_back(Output::Send(element));
    }

    /// Servers may hold back what follows a small stanza until that is acknowledged.
    fn send_along(&mut self, element: Element) {
        self.outputs.push_back(Output::SendAlong(element));
    }

    fn happen(&mut self, happening: Happening) {
        self.outputs.push_back(Output::Happen(happening));
    }

    fn fatal(&mut self, cause: FatalCause, text: impl Into<String>) {
        self.outputs.push_back(Output::Fatal { cause, text: text.into() });
    }

    fn get(&mut self, to: &str, payload: Element, purpose: Purpose) {
        let id = self.requests.begin(self.now, to, purpose);
        self.send(Iq::get(to, id, payload).emit());
    }

    fn set(&mut self, to: &str, payload: Element, purpose: Purpose) {
        let id = self.requests.begin(self.now, to, purpose);
        self.send(Iq::set(to, id, payload).emit());
    }
}

impl Conversation {
    pub(crate) fn new(settings: Settings, now: Instant) -> Self {
        Self {
            room: Room::new(&settings),
            requests: Requests::new(settings.seed),
            sessions: Sessions::default(),
            services: Services::new(settings.domain.clone(), settings.clock),
            connected: false,
            heard: now,
            outputs: VecDeque::new(),
            settings,
        }
    }

    pub(crate) fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Connected => self.on_connected(now),
            Input::Disconnected { reason } => self.on_disconnected(now, &reason),
            Input::Stanza(element) => self.on_stanza(now, &element),
            Input::Action(Action::Announce(announcement)) => {
                let (room, mut wishes) = self.room_and_wishes(now);
                room.announce(announcement, &mut wishes);
            }
            Input::Action(action) => self.on_session_action(now, action),
            Input::NetworkMoved => self.on_network_moved(now),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for purpose in self.requests.overdue(now) {
            self.on_silence_about(now, purpose);
        }
        let (room, mut wishes) = self.room_and_wishes(now);
        room.handle_timeout(&mut wishes);
        if !self.connected {
            return;
        }
        if now >= self.heard + SILENCE_MAX && !self.requests.is_pinging() {
            let to = self.settings.domain.clone();
            self.wishes(now).get(&to, stanza::emit_ping(), Purpose::Ping);
        }
        let (services, mut wishes) = self.services_and_wishes(now);
        services.handle_timeout(&mut wishes);
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is to be called, and why.
    pub(crate) fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let silence = (self.connected && !self.requests.is_pinging())
            .then_some((self.heard + SILENCE_MAX, Timer::Silence));
        let answer = self.requests.deadline().map(|at| (at, Timer::Answer));
        let services = self.services.deadline().filter(|_| self.connected);
        let timers = [
            silence,
            answer,
            self.room.deadline().map(|at| (at, Timer::Room)),
            self.room.departure().map(|at| (at, Timer::Departure)),
            services.map(|at| (at, Timer::Services)),
        ];
        timers.into_iter().flatten().min()
    }

    /// The stanzas of a polite departure.
    pub(crate) fn farewell(&mut self, now: Instant) {
        let (room, mut wishes) = self.room_and_wishes(now);
        room.leave(&mut wishes);
    }

    fn on_connected(&mut self, now: Instant) {
        self.connected = true;
        self.heard = now;
        // Below zero the server keeps messages to the bare account away from us.
        let priority = Element::builder("priority", ns::JABBER_CLIENT).append("-1").build();
        let presence = Presence {
            from: None,
            to: None,
            id: None,
            kind: PresenceKind::Available,
            payloads: vec![priority],
        };
        self.wishes(now).send(presence.emit());
        let (room, mut wishes) = self.room_and_wishes(now);
        room.enter(&mut wishes);
        let (services, mut wishes) = self.services_and_wishes(now);
        services.query(&mut wishes);
    }

    fn on_disconnected(&mut self, now: Instant, reason: &str) {
        self.connected = false;
        self.services.disconnected();
        for purpose in self.requests.abandon() {
            if let Purpose::Delivery { to, session } = purpose {
                self.delivery_failed(to, session, reason);
            }
        }
        let (room, mut wishes) = self.room_and_wishes(now);
        room.disconnected(reason, &mut wishes);
    }

    /// Who has moved may have left the connection behind: the server is asked whether it is there.
    fn on_network_moved(&mut self, now: Instant) {
        if !self.connected {
            return;
        }
        let to = self.settings.domain.clone();
        let id = self.requests.begin_within(now, &to, Purpose::Ping, ANSWER_AFTER_MOVE);
        self.wishes(now).send(Iq::get(&to, id, stanza::emit_ping()).emit());
    }

    fn on_stanza(&mut self, now: Instant, element: &Element) {
        self.heard = now;
        if element.is("presence", ns::JABBER_CLIENT) {
            let Some(presence) = Presence::parse(element) else { return };
            let (room, mut wishes) = self.room_and_wishes(now);
            room.on_presence(presence, &mut wishes);
        } else if element.is("iq", ns::JABBER_CLIENT) {
            let Some(iq) = Iq::parse(element) else { return };
            self.on_iq(now, iq);
        }
        // Messages have no use here: nobody is there to read them.
    }

    fn on_iq(&mut self, now: Instant, iq: Iq) {
        match &iq.body {
            IqBody::Result(payload) => self.on_answer(now, &iq, Ok(payload.as_ref())),
            IqBody::Error(error) => self.on_answer(now, &iq, Err(error)),
            IqBody::Set(payload) if payload.is("jingle", ns::JINGLE) => {
                self.on_jingle(now, &iq, payload);
            }
            IqBody::Set(payload) if payload.is("services", ns::EXT_DISCO) => {
                self.on_services_pushed(now, &iq);
            }
            IqBody::Get(_) | IqBody::Set(_) => {
                let known = self.is_entitled(iq.from.as_deref());
                let answer = responder::answer(&iq, known);
                self.wishes(now).send(answer.emit());
            }
        }
    }

    fn on_answer(&mut self, now: Instant, iq: &Iq, answer: Result<Option<&Element>, &StanzaError>) {
        let Some(purpose) = self.requests.end(&iq.id, iq.from.as_deref()) else { return };
        match purpose {
            Purpose::Delivery { to, session } => {
                if let Err(error) = answer {
                    self.delivery_failed(to, session, &error.to_string());
                }
            }
            Purpose::Services | Purpose::Credentials(_) => {
                let (services, mut wishes) = self.services_and_wishes(now);
                services.on_answer(&purpose, answer.ok().flatten(), &mut wishes);
            }
            Purpose::Unlock => self.room.on_unlock_answer(answer.err()),
            Purpose::SelfPing => {
                let (room, mut wishes) = self.room_and_wishes(now);
                room.on_self_ping(answer.err(), &mut wishes);
            }
            Purpose::Ping | Purpose::Courtesy => {}
        }
    }

    /// An answer did not come in time.
    fn on_silence_about(&mut self, now: Instant, purpose: Purpose) {
        match purpose {
            Purpose::Delivery { to, session } => self.delivery_failed(to, session, "no answer"),
            Purpose::Ping => self.outputs.push_back(Output::Dead),
            Purpose::Services | Purpose::Credentials(_) => {
                let (services, mut wishes) = self.services_and_wishes(now);
                services.on_answer(&purpose, None, &mut wishes);
            }
            // The room may be slow; the server's own silence is noticed by its own ping.
            Purpose::Unlock | Purpose::SelfPing | Purpose::Courtesy => {}
        }
    }

    fn on_session_action(&mut self, now: Instant, action: Action) {
        self.sessions.note_outgoing(&action);
        let Some(outgoing) = vocabulary::outgoing(action) else { return };
        let vocabulary::Outgoing { to, mut message } = outgoing;
        if let Body::Info { credentials, .. } = &mut message.body {
            *credentials = self.sessions.credentials(&to, &message.session).cloned();
        }
        let Some(own) = self.room.address().cloned() else {
            return self.delivery_failed(to, message.session, "not online");
        };
        if !self.room.has_member(&to) {
            return self.delivery_failed(to, message.session, "no such member");
        }
        let payload = message.emit(&own.0);
        let purpose = Purpose::Delivery { to: to.clone(), session: message.session };
        self.wishes(now).set(&to.0, payload, purpose);
    }

    /// Acknowledges first and acts then, as XEP-0166 section 6.3.1 has it.
    fn on_jingle(&mut self, now: Instant, iq: &Iq, payload: &Element) {
        let from = PeerAddress(iq.from.clone().unwrap_or_default());
        if !self.room.has_member(&from) {
            let error = StanzaError::new("cancel", "service-unavailable");
            let answer = iq.answer(IqBody::Error(error)).emit();
            return self.wishes(now).send(answer);
        }
        let (body, message) = match Message::parse(payload) {
            Ok(message) => (IqBody::Result(None), Some(message)),
            Err(Refusal::NotOurs { session, reason }) => {
                let terminate = Message::emit_not_ours(&session, reason);
                self.wishes(now).send(iq.answer(IqBody::Result(None)).emit());
                let purpose = Purpose::Courtesy;
                return self.wishes(now).set(&from.0, terminate, purpose);
            }
            Err(refusal) => (IqBody::Error(responder::refusal(&refusal)), None),
        };
        let answer = iq.answer(body).emit();
        match &message {
            // The answer to the offer is about to follow.
            Some(Message { body: Body::Initiate(_), .. }) => {
                self.wishes(now).send_along(answer);
            }
            _ => self.wishes(now).send(answer),
        }
        let Some(message) = message else { return };
        if matches!(message.body, Body::Terminate(_)) {
            self.sessions.forget(&from, &message.session);
        }
        for happening in vocabulary::happenings(from, message) {
            self.wishes(now).happen(happening);
        }
    }

    /// The server's list changed (XEP-0215 section 3.4); the push may be partial, so ask anew.
    fn on_services_pushed(&mut self, now: Instant, iq: &Iq) {
        if iq.from.as_deref().is_some_and(|from| from != self.settings.domain) {
            return;
        }
        self.wishes(now).send(iq.answer(IqBody::Result(None)).emit());
        let (services, mut wishes) = self.services_and_wishes(now);
        services.query(&mut wishes);
    }

    /// Strangers do not learn whether we are here.
    fn is_entitled(&self, from: Option<&str>) -> bool {
        let Some(from) = from else { return true };
        let bare = from.split('/').next().unwrap_or_default();
        from == self.settings.domain
            || bare == self.settings.account
            || bare == self.settings.room.as_str()
    }

    fn delivery_failed(&mut self, to: PeerAddress, session: SessionId, text: &str) {
        let text = text.to_owned();
        self.outputs.push_back(Output::Happen(Happening::DeliveryFailed { to, session, text }));
    }

    fn wishes(&mut self, now: Instant) -> Wishes<'_> {
        Wishes { now, requests: &mut self.requests, outputs: &mut self.outputs }
    }

    fn room_and_wishes(&mut self, now: Instant) -> (&mut Room, Wishes<'_>) {
        let wishes = Wishes { now, requests: &mut self.requests, outputs: &mut self.outputs };
        (&mut self.room, wishes)
    }

    fn services_and_wishes(&mut self, now: Instant) -> (&mut Services, Wishes<'_>) {
        let wishes = Wishes { now, requests: &mut self.requests, outputs: &mut self.outputs };
        (&mut self.services, wishes)
    }
}

#[cfg(test)]
mod tests;
