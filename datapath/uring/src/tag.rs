//! What a completion is of, in the ring's `user_data`.

/// What a completion is of; in `user_data` as kind << 16 | slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// By queue.
    Tap(u16),
    V4,
    V6,
    Doorbell,
    Send(u16),
    Write(u16),
    /// By place.
    Attached(u16),
    /// The end of a receive that was asked to end.
    Cancel,
}

impl Tag {
    pub(crate) fn encode(self) -> u64 {
        let (kind, slot) = match self {
            Tag::Tap(queue) => (1, queue),
            Tag::V4 => (2, 0),
            Tag::V6 => (3, 0),
            Tag::Doorbell => (4, 0),
            Tag::Send(slot) => (5, slot),
            Tag::Write(slot) => (6, slot),
            Tag::Attached(place) => (7, place),
            Tag::Cancel => (8, 0),
        };
        kind << 16 | u64::from(slot)
    }

    pub(crate) fn decode(user_data: u64) -> Option<Tag> {
        let slot = (user_data & 0xffff) as u16;
        match user_data >> 16 {
            1 => Some(Tag::Tap(slot)),
            2 => Some(Tag::V4),
            3 => Some(Tag::V6),
            4 => Some(Tag::Doorbell),
            5 => Some(Tag::Send(slot)),
            6 => Some(Tag::Write(slot)),
            7 => Some(Tag::Attached(slot)),
            8 => Some(Tag::Cancel),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_ring() {
        let ends = [Tag::V4, Tag::V6, Tag::Doorbell, Tag::Cancel];
        let numbered = [Tag::Tap(3), Tag::Send(65_535), Tag::Write(0), Tag::Attached(7)];
        for tag in ends.into_iter().chain(numbered) {
            assert_eq!(Tag::decode(tag.encode()), Some(tag));
        }
        assert_eq!(Tag::decode(u64::MAX), None);
    }
}
