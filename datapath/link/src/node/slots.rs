//! Where links are kept: a table whose row number is part of a session's index.

use super::*;
use crate::link::INDICES_PER_LINK;

/// Sessions that a node has at a time at most, those that are being replaced among them.
pub const LINKS_MAX: usize = 4096;

/// Empty rows that are kept, so that a row rests before it is used again.
const RESTING_ROWS: usize = 16;

/// One session of one peer.
pub(super) struct Slot {
    pub peer: Fingerprint,
    pub session: u64,
    pub link: Link,
    /// What ICE selected, in candidates' terms: local, remote, kind.
    pub pair: Option<(SocketAddr, SocketAddr, PathKind)>,
    /// What the workers were told.
    pub path: Option<Path>,
    /// Both ends of the lanes besides the first, from lane 1 on.
    pub lane_pairs: Vec<Option<(SocketAddr, SocketAddr)>>,
    /// Sessions with lanes at the workers.
    pub installed: Vec<LinkIndex>,
    /// What the controller was told: state and path.
    pub reported: Option<(LinkState, Option<PathStatus>)>,
    /// It was replaced by a session that is up, and goes then.
    pub remove_at: Option<Instant>,
    /// Its link was given something since its outputs were taken last.
    is_touched: bool,
    /// What `Slots::timeouts` has of it.
    timeout: Option<Instant>,
}

impl Slot {
    pub fn new(peer: Fingerprint, session: u64, link: Link) -> Self {
        Slot {
            peer,
            session,
            link,
            pair: None,
            path: None,
            lane_pairs: Vec::new(),
            installed: Vec::new(),
            reported: None,
            remove_at: None,
            is_touched: false,
            timeout: None,
        }
    }

    /// Both ends of a lane besides the first.
    pub fn lane_pair(&self, lane: u8) -> Option<(SocketAddr, SocketAddr)> {
        self.lane_pairs.get(usize::from(lane).checked_sub(1)?).copied().flatten()
    }

    /// Everything there is to know of its link.
    pub fn status(&self) -> LinkStatus {
        let relay = |path: Path| path.channel.map(|channel| Relay { server: path.remote, channel });
        LinkStatus { relay: self.path.and_then(relay), ..self.link.status() }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.link.poll_timeout().into_iter().chain(self.remove_at).min()
    }
}

/// The table. Rows that became free are used again as late as possible, so that what is under way
/// to an old session rarely meets a new one (it would not open anything).
#[derive(Default)]
pub(super) struct Slots {
    rows: Vec<Option<Slot>>,
    free: VecDeque<usize>,
    by_ufrag: BTreeMap<String, usize>,
    /// Rows whose links were given something: only their outputs and timers can be new, so what
    /// one datagram costs does not grow with the number of links.
    touched: Vec<usize>,
    timeouts: BTreeSet<(Instant, usize)>,
}

impl Slots {
    /// A free row, still empty; [`fill`](Self::fill) has to follow.
    pub fn reserve(&mut self) -> Option<usize> {
        if self.rows.len() < LINKS_MAX && self.free.len() < RESTING_ROWS {
            self.rows.push(None);
            return Some(self.rows.len() - 1);
        }
        self.free.pop_front()
    }

    pub fn fill(&mut self, at: usize, slot: Slot) {
        self.by_ufrag.insert(slot.link.local_ufrag().to_owned(), at);
        self.rows[at] = Some(slot);
        self.touch(at);
    }

    pub fn clear(&mut self, at: usize) {
        if let Some(slot) = self.rows[at].take() {
            self.by_ufrag.remove(slot.link.local_ufrag());
            self.unschedule(at, slot.timeout);
            self.free.push_back(at);
        }
    }

    pub fn get(&self, at: usize) -> Option<&Slot> {
        self.rows.get(at)?.as_ref()
    }

    /// For what changes nothing in the link: see [`touch`](Self::touch).
    pub fn get_mut(&mut self, at: usize) -> Option<&mut Slot> {
        self.rows.get_mut(at)?.as_mut()
    }

    /// For giving the link something: its outputs are taken and its timer is set afterwards.
    pub fn touch(&mut self, at: usize) -> Option<&mut Slot> {
        let slot = self.rows.get_mut(at)?.as_mut()?;
        if !std::mem::replace(&mut slot.is_touched, true) {
            self.touched.push(at);
        }
        Some(slot)
    }

    /// A row that was touched, once.
    pub fn take_touched(&mut self) -> Option<usize> {
        let at = self.touched.pop()?;
        if let Some(slot) = self.get_mut(at) {
            slot.is_touched = false;
        }
        Some(at)
    }

    /// Notes when the link in this row is due.
    pub fn schedule(&mut self, at: usize) {
        let Some(slot) = self.get_mut(at) else { return };
        let timeout = slot.poll_timeout();
        let before = std::mem::replace(&mut slot.timeout, timeout);
        if before != timeout {
            self.unschedule(at, before);
            self.timeouts.extend(timeout.map(|due| (due, at)));
        }
    }

    fn unschedule(&mut self, at: usize, timeout: Option<Instant>) {
        if let Some(due) = timeout {
            self.timeouts.remove(&(due, at));
        }
    }

    /// When the first link is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timeouts.first().map(|(due, _)| *due)
    }

    /// The rows whose links are due.
    pub fn due(&self, now: Instant) -> Vec<usize> {
        self.timeouts.iter().take_while(|(due, _)| *due <= now).map(|(_, at)| *at).collect()
    }

    pub fn by_ufrag(&self, ufrag: &str) -> Option<usize> {
        self.by_ufrag.get(ufrag).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.rows.iter().flatten()
    }

    /// Row numbers, of empty rows too.
    pub fn range(&self) -> std::ops::Range<usize> {
        0..self.rows.len()
    }

    /// The indices of a row's sessions; 0 is none's: it means "not known yet" on the wire.
    pub fn indices(at: usize) -> [LinkIndex; INDICES_PER_LINK] {
        std::array::from_fn(|number| LinkIndex((at * INDICES_PER_LINK + number + 1) as u32))
    }

    /// The row of an index.
    pub fn of_index(index: LinkIndex) -> Option<usize> {
        let number = usize::try_from(index.0.checked_sub(1)?).ok()?;
        Some(number / INDICES_PER_LINK).filter(|at| *at < LINKS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_lead_back_to_their_row() {
        for at in [0, 1, 7, LINKS_MAX - 1] {
            for index in Slots::indices(at) {
                assert_ne!(index, LinkIndex(0));
                assert_eq!(Slots::of_index(index), Some(at));
            }
        }
        assert_eq!(Slots::of_index(LinkIndex(0)), None);
        assert_eq!(Slots::of_index(LinkIndex(u32::MAX)), None);
    }

    #[test]
    fn rows_rest_before_they_are_used_again_and_are_bounded() {
        let mut slots = Slots::default();
        let first = slots.reserve().expect("empty table");
        slots.free.push_back(first);
        assert_ne!(slots.reserve(), Some(first));
        let rows = std::iter::from_fn(|| slots.reserve()).count();
        assert_eq!(rows, LINKS_MAX - 1, "all but the one that is in use");
        assert_eq!(slots.rows.len(), LINKS_MAX);
    }
}
