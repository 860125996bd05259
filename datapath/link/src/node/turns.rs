//! Turns at opening and probing ports: one link of a node at a time, so that the node's NAT sees
//! the datagrams and mappings of one try, however many links look for luck.

use super::*;

/// Who has the turn, and who waits for it, by slot.
#[derive(Default)]
pub(super) struct Turns {
    holder: Option<usize>,
    waiting: VecDeque<usize>,
}

impl Node {
    pub(super) fn queue_for_turn(&mut self, now: Instant, at: usize) {
        self.turns.waiting.push_back(at);
        self.grant_turn(now);
    }

    /// The link in a slot needs no turn any more.
    pub(super) fn end_turn(&mut self, now: Instant, at: usize) {
        self.turns.waiting.retain(|waiting| *waiting != at);
        if self.turns.holder == Some(at) {
            self.turns.holder = None;
            self.outputs.push_back(Output::CloseIdle);
            self.grant_turn(now);
        }
    }

    fn grant_turn(&mut self, now: Instant) {
        while self.turns.holder.is_none()
            && let Some(at) = self.turns.waiting.pop_front()
        {
            if let Some(slot) = self.slots.touch(at) {
                self.turns.holder = Some(at);
                slot.link.grant_turn(now);
            }
        }
    }

    /// Whether a socket that was opened, see [`Output::Open`], is needed by a link.
    #[must_use]
    pub fn uses_local(&self, local: SocketAddr) -> bool {
        self.slots.iter().any(|slot| slot.link.uses_local(local))
    }
}
