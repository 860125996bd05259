//! Which link or client an incoming datagram is for.

use super::*;
use crate::gatherer::Gathered;
use ipop_stun::{Class, Message, TransactionId};
use ipop_wire::Protocol;

/// Questions of links that are remembered at a time. At a hundred checks a second and link, a
/// hundred links that start together are given three seconds for an answer.
const QUESTIONS_MAX: usize = 32 * 1024;

/// Who asked what: an answer carries nothing but the transaction id of its question.
#[derive(Default)]
pub(super) struct Questions {
    by_id: BTreeMap<[u8; 12], usize>,
    /// The same ids by age.
    order: VecDeque<[u8; 12]>,
}

impl Questions {
    /// Notes a datagram that the link in row `at` sends, if it is a STUN request.
    pub fn note(&mut self, at: usize, data: &[u8]) {
        let Some((&[high, low], rest)) = data.split_first_chunk::<2>() else { return };
        // The class bits of the message type (RFC 8489 section 5).
        let is_request = Protocol::of(high) == Protocol::Stun && (high & 1, low & 0x10) == (0, 0);
        let Some(id) = rest.get(6..18).and_then(|id| id.try_into().ok()) else { return };
        if !is_request || self.by_id.insert(id, at).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > QUESTIONS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }

    fn asked_by(&self, id: TransactionId) -> Option<usize> {
        self.by_id.get(&id.0).copied()
    }
}

impl Node {
    pub(super) fn dispatch(&mut self, now: Instant, input: Datagram<'_>) -> Result<(), Refused> {
        if !self.gatherer.is_server(input.remote) {
            return self.dispatch_to_links(now, input);
        }
        match self.gatherer.handle_input(now, input)? {
            Gathered::Nothing => Ok(()),
            Gathered::Relayed { local, remote, range } => {
                let data = input.data.get(range).ok_or(Refused::Malformed)?;
                if let Some(lane) = self.gatherer.lane_at(local) {
                    return self.heed_lane_hint(now, lane, (local, remote), data);
                }
                self.want_channel(now, local, remote, data);
                self.dispatch_to_links(now, Datagram { local, remote, data })
            }
        }
    }

    /// A sealed datagram that comes here came through a relay without a channel: the peer uses a
    /// pair that we do not. From the next one on it shall come in a channel, which workers read.
    fn want_channel(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, data: &[u8]) {
        let Ok(header) = Header::parse(data) else { return };
        let slot = Slots::of_index(header.receiver).and_then(|at| self.slots.touch(at));
        let slot = slot.filter(|slot| slot.link.is_validated(remote));
        let Some(slot) = slot.filter(|_| header.kind != Kind::Handshake) else { return };
        slot.link.suspect_path(now);
        if self.gatherer.relay_path(local, remote).is_none()
            && self.gatherer.bind(now, local, remote).is_ok()
        {
            self.gatherer.release(now, local, remote);
        }
    }

    fn dispatch_to_links(&mut self, now: Instant, input: Datagram<'_>) -> Result<(), Refused> {
        let first = *input.data.first().ok_or(Refused::Malformed)?;
        match Protocol::of(first) {
            Protocol::Stun => {
                let at = self.party(input.data)?;
                let slot = self.slots.touch(at).ok_or(Refused::Unexpected)?;
                slot.link.handle_input(now, input)
            }
            Protocol::Ipop => self.dispatch_handshake(now, input),
            Protocol::TurnChannel => Err(Refused::Stranger),
            Protocol::Unknown => Err(Refused::Malformed),
        }
    }

    /// The row of the link that a STUN message asks or answers.
    fn party(&self, data: &[u8]) -> Result<usize, Refused> {
        let message = Message::parse(data).map_err(|_| Refused::Malformed)?;
        match message.class() {
            Class::Request | Class::Indication => {
                let name = message.username().ok_or(Refused::Stranger)?;
                let (ours, _) = name.split_once(':').ok_or(Refused::Stranger)?;
                self.slots.by_ufrag(ours).ok_or(Refused::Stranger)
            }
            Class::Success | Class::Error => {
                self.questions.asked_by(message.transaction()).ok_or(Refused::Unexpected)
            }
        }
    }

    fn dispatch_handshake(&mut self, now: Instant, input: Datagram<'_>) -> Result<(), Refused> {
        let header = Header::parse(input.data).map_err(|_| Refused::Malformed)?;
        if header.kind != Kind::Handshake {
            // Sealed datagrams are the workers'.
            return Err(Refused::Unexpected);
        }
        if header.receiver != LinkIndex(0) {
            let at = Slots::of_index(header.receiver).ok_or(Refused::Unexpected)?;
            let slot = self.slots.touch(at).ok_or(Refused::Unexpected)?;
            return slot.link.handle_input(now, input);
        }
        // The first datagrams of a client, which cannot know our index yet.
        let mut refused = Refused::Stranger;
        for at in self.slots.range() {
            if !self.slots.get(at).is_some_and(|slot| slot.link.is_validated(input.remote)) {
                continue;
            }
            let Some(slot) = self.slots.touch(at) else { continue };
            match slot.link.handle_input(now, input) {
                Ok(()) => return Ok(()),
                Err(error) => refused = refused.max(error),
            }
        }
        Err(refused)
    }
}
