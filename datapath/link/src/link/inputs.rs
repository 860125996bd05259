//! What comes in: checks, handshakes, control frames.

use super::*;

impl Link {
    pub(super) fn on_stun(&mut self, now: Instant, input: Datagram<'_>) -> Result<(), Refused> {
        if self.failure.is_some() {
            return Err(Refused::Unexpected);
        }
        let packet = Packet { local: input.local, remote: input.remote, data: input.data };
        self.agent.handle_input(now, packet).map_err(|refused| match refused {
            ipop_ice::Refused::Malformed => Refused::Malformed,
            ipop_ice::Refused::Stranger => Refused::Stranger,
            ipop_ice::Refused::Unexpected | ipop_ice::Refused::Ended => Refused::Unexpected,
        })
    }

    pub(super) fn on_handshake(
        &mut self,
        now: Instant,
        input: Datagram<'_>,
    ) -> Result<(), Refused> {
        if !self.agent.validated(input.remote) {
            return Err(Refused::Stranger);
        }
        // A link that failed starts nothing, but still says why.
        let index = self.free_index().filter(|_| self.failure.is_none());
        let negotiation = self.negotiation.as_mut().ok_or(Refused::Stranger)?;
        let on = (input.local, input.remote);
        let was_running = negotiation.is_running();
        let result = negotiation.handle_input(now, on, input.data, index);
        if !was_running && negotiation.is_running() {
            self.recorder.record(now, Trace::HandshakeStarted);
        }
        result.map_err(|refused| match refused {
            RefusedInput::Malformed => Refused::Malformed,
            RefusedInput::Forged => Refused::Forged,
            RefusedInput::OtherHandshake | RefusedInput::TooMuch => Refused::Unexpected,
        })
    }

    pub(super) fn on_control(&mut self, now: Instant, index: LinkIndex, control: Control) {
        let is_current =
            [&self.active, &self.next].into_iter().flatten().any(|keys| keys.index == index);
        let is_retired = self.retired.iter().any(|(retired, _)| *retired == index);
        match control {
            Control::Ping(nonce) if is_current || is_retired => {
                let data = Control::Pong(nonce).emit();
                self.outputs.push_back(LinkOutput::SendControl { index, data });
                let next = self.next.as_mut().filter(|keys| keys.index == index);
                if next.is_some_and(Keys::on_ping) {
                    self.activate_next(now);
                }
            }
            Control::Pong(nonce) if is_current => self.on_pong(now, index, nonce),
            Control::Bye(reason) if is_current => {
                self.fail(format!("the peer closed the link: {reason}"));
            }
            Control::Rehandshake if is_current && self.config.controlling => {
                let newest = self.newest_keys();
                if newest.is_some_and(|newest| now >= newest + REHANDSHAKE_WISH_AFTER) {
                    self.timers.rehandshake = Some(now);
                }
            }
            Control::Lanes(theirs) if is_current => self.lanes.on_told(now, theirs),
            Control::Relays(theirs) if is_current => self.lanes.on_told_relays(now, theirs),
            Control::Words(words) if is_current || is_retired => self.on_words(now, words),
            _ => {}
        }
    }

    /// Words for the controller, unless they are too many: nobody may keep it busy.
    fn on_words(&mut self, now: Instant, words: Vec<u8>) {
        let earned = now.saturating_duration_since(self.words_at).as_secs_f64() * WORDS_RATE;
        let credit = (self.words_credit + earned).min(WORDS_BURST);
        self.words_at = now;
        self.words_credit = credit;
        if credit >= 1.0 {
            self.words_credit = credit - 1.0;
            self.outputs.push_back(LinkOutput::Words(words));
        }
    }

    fn on_pong(&mut self, now: Instant, index: LinkIndex, nonce: u64) {
        if self.path_mtu.as_mut().is_some_and(|path_mtu| path_mtu.on_pong(now, nonce)) {
            return;
        }
        if let Some(active) = self.active.as_mut().filter(|keys| keys.index == index) {
            active.on_pong(now, nonce);
        } else if let Some(next) = self.next.as_mut().filter(|keys| keys.index == index)
            && next.on_pong(now, nonce)
        {
            self.activate_next(now);
        }
    }
}
