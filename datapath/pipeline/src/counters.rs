//! What is counted: totals when all goes well, and one counter per reason for a drop. Plain
//! numbers, owned by one worker; it copies them to where others read them.

macro_rules! counted {
    (
        $(#[$enum_doc:meta])*
        $name:ident;
        $($(#[doc = $help:literal])+ $variant:ident $label:literal,)+
    ) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[doc = $help])+ $variant,)+
        }

        impl $name {
            /// All of them, in the order of their counters.
            pub const ALL: [$name; $name::COUNT] = [$($name::$variant,)+];

            /// How many there are.
            pub const COUNT: usize = [$($label,)+].len();

            /// The name that status output and metrics use.
            pub const fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $label,)+
                }
            }
        }
    };
}

counted! {
    /// Why a frame or a datagram went no further.
    Drop;
    /// A frame from the tap that cannot be parsed, or whose offload metadata contradicts it.
    MalformedFrame "malformed_frame",
    /// A frame for an address that no peer has.
    NoRoute "no_route",
    /// A frame for a hardware address that is neither ours, a peer's, nor a group's.
    UnknownMac "unknown_mac",
    /// A frame for a peer whose link has no keys or no path.
    LinkNotUp "link_not_up",
    /// A frame larger than the path carries, even when cut.
    TooBig "too_big",
    /// No free output slot: the kernel takes no more for now.
    OutputFull "output_full",
    /// The lane's counter is used up.
    KeyExhausted "key_exhausted",
    /// A datagram of no protocol that is spoken here.
    UnknownProtocol "unknown_protocol",
    /// A datagram shorter than its headers promise, or with impossible ones.
    Truncated "truncated",
    /// Frames for a link index that is not in use.
    UnknownLink "unknown_link",
    /// A message between agents for a link index that is not in use: mostly the first ones of a
    /// session, ahead of its keys. They are repeated.
    EarlyControl "early_control",
    /// A datagram for a lane that is not the link's lane here.
    WrongLane "wrong_lane",
    /// A datagram sealed with a key neither kept nor next.
    UnknownEpoch "unknown_epoch",
    /// A datagram sealed with a key past its time.
    Expired "expired",
    /// A datagram seen before, or too old to tell.
    Replayed "replayed",
    /// A datagram whose tag does not fit.
    Forged "forged",
    /// An authentic datagram whose content is unreadable.
    MalformedPlaintext "malformed_plaintext",
    /// A frame from an address that is not its sender's: not the tap's on the way out, not the
    /// peer's on the way in (spoofed source).
    ForeignSource "foreign_source",
    /// A cut frame of which needed parts never came.
    IncompleteSegment "incomplete_segment",
    /// A segment of a TCP stream, so that its sender slows down: packets have waited too long.
    Overload "overload",
}

counted! {
    /// What is counted when all goes well.
    Total;
    /// Frames read from the tap (a super-segment is one).
    TapFramesIn "tap_frames_in",
    /// Bytes of the frames read from the tap.
    TapBytesIn "tap_bytes_in",
    /// Frames written to the tap (a super-segment is one).
    TapFramesOut "tap_frames_out",
    /// Bytes of the frames written to the tap.
    TapBytesOut "tap_bytes_out",
    /// Datagrams received.
    DatagramsIn "datagrams_in",
    /// Bytes of the datagrams received.
    DatagramBytesIn "datagram_bytes_in",
    /// Datagrams sealed for sending.
    DatagramsOut "datagrams_out",
    /// Bytes of the datagrams sealed for sending.
    DatagramBytesOut "datagram_bytes_out",
    /// Receives (each holds one datagram or a GRO run).
    ReceiveBatches "receive_batches",
    /// Sends (each holds one datagram or a GSO run).
    SendBatches "send_batches",
    /// Datagrams received through a relay's channel.
    RelayedDatagramsIn "relayed_datagrams_in",
    /// Datagrams sealed for a relay's channel.
    RelayedDatagramsOut "relayed_datagrams_out",
    /// Datagrams sent again on a lossy path; not among those sent.
    DatagramsRepeated "datagrams_repeated",
    /// Super-segments and oversized frames cut into parts.
    SegmentsCut "segments_cut",
    /// Super-segments and oversized frames joined with all parts.
    SegmentsJoined "segments_joined",
    /// Super-segments delivered in pieces, because parts were missing or came out of order.
    SegmentsPatched "segments_patched",
    /// Small frames packed into a datagram with others.
    FramesBundled "frames_bundled",
    /// Received frames merged into a super-segment by parsing.
    FramesCoalesced "frames_coalesced",
    /// ARP and neighbour discovery requests answered here.
    NeighboursAnswered "neighbours_answered",
    /// Senders told that a packet of theirs is larger than one datagram of its path (ICMP).
    SendersTold "senders_told",
    /// Probes for the node's own addresses, which nobody may answer.
    OwnProbes "own_probes",
    /// Frames given to the first worker, because this one has no lane for them.
    FramesHandedOver "frames_handed_over",
    /// STUN, relay, handshake and control datagrams handed to the agent.
    AgentDatagrams "agent_datagrams",
    /// Keys replaced by the next of their chain.
    Ratchets "ratchets",
}

/// All counters of one pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Indexed by [`Drop`].
    pub drops: [u64; Drop::COUNT],
    /// Indexed by [`Total`].
    pub totals: [u64; Total::COUNT],
}

impl Default for Counters {
    fn default() -> Counters {
        Counters { drops: [0; Drop::COUNT], totals: [0; Total::COUNT] }
    }
}

impl Counters {
    /// How often this was the reason for a drop.
    pub fn drops_by(&self, reason: Drop) -> u64 {
        self.drops[reason as usize]
    }

    /// The value of one total.
    pub fn total(&self, total: Total) -> u64 {
        self.totals[total as usize]
    }

    #[inline]
    pub(crate) fn drop(&mut self, reason: Drop) {
        self.drops[reason as usize] += 1;
    }

    #[inline]
    pub(crate) fn add(&mut self, total: Total, amount: usize) {
        self.totals[total as usize] += amount as u64;
    }
}

/// What one link has carried. Frames are as the tap sees them: a super-segment is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Datagrams sealed.
    pub datagrams_out: u64,
    /// Those of them that were for the peer's link agent.
    pub control_out: u64,
    /// Bytes of the datagrams sealed.
    pub bytes_out: u64,
    /// Datagrams opened.
    pub datagrams_in: u64,
    /// Those of them that were for our link agent.
    pub control_in: u64,
    /// Bytes of the datagrams opened.
    pub bytes_in: u64,
    /// Frames or datagrams of this link that were dropped after it was known to be theirs.
    pub drops: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_name() {
        for (at, reason) in Drop::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        for (at, total) in Total::ALL.into_iter().enumerate() {
            assert_eq!(total as usize, at);
        }
        let mut names: Vec<_> = Drop::ALL.map(Drop::name).into();
        names.extend(Total::ALL.map(Total::name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
