//! Packets that the kernel dropped because its queues in front of the workers were full: the
//! interface's, which frames wait in, and the sockets', which datagrams wait in. Nobody else sees
//! them go, so they are asked for.

/// What was told so far. The kernel counts from when the queues were made.
#[derive(Default)]
pub(crate) struct Overflows {
    frames: u64,
    datagrams: u64,
}

impl Overflows {
    /// How many frames and datagrams more there are than last time.
    pub(crate) fn more(&mut self, frames: Option<u64>, datagrams: u64) -> (u64, u64) {
        let frames = frames.unwrap_or(self.frames);
        let before = std::mem::replace(self, Self { frames, datagrams });
        (frames.saturating_sub(before.frames), datagrams.saturating_sub(before.datagrams))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told() {
        let mut overflows = Overflows::default();
        assert_eq!(overflows.more(Some(5), 7), (5, 7));
        assert_eq!(overflows.more(Some(6), 7), (1, 0));
        assert_eq!(overflows.more(None, 9), (0, 2), "the kernel does not say");
        assert_eq!(overflows.more(Some(8), 2), (2, 0), "a socket is gone");
    }
}
