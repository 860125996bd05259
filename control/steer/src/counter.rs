//! The lists of counters. Each worker has one block of [`counter_slots`] counters: first the
//! totals in the order of [`Counter`], then the drops in the order of [`DropReason`].

/// Number of counters in one worker's block.
pub const fn counter_slots() -> usize {
    Counter::COUNT + DropReason::COUNT
}

macro_rules! counter_enum {
    (
        $(#[$enum_doc:meta])*
        $name:ident from $first:expr;
        $($variant:ident $label:literal $help:literal,)+
    ) => {
        $(#[$enum_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name {
            $(#[doc = $help] $variant,)+
        }

        impl $name {
            /// All of them, in the order of their slots.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Index of its counter in a worker's block.
            pub const fn slot(self) -> usize {
                $first + self as usize
            }

            /// Its name in status output and metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }

            /// One sentence for people.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => $help,)+
                }
            }
        }
    };
}

counter_enum! {
    /// What is counted when all goes well.
    Counter from 0;
    TapFramesIn "tap_frames_in" "Frames read from the interface (a super-segment is one).",
    TapBytesIn "tap_bytes_in" "Bytes of the frames read from the interface.",
    TapFramesOut "tap_frames_out" "Frames written to the interface (a super-segment is one).",
    TapBytesOut "tap_bytes_out" "Bytes of the frames written to the interface.",
    DatagramsIn "datagrams_in" "UDP datagrams received.",
    DatagramBytesIn "datagram_bytes_in" "Bytes of the UDP datagrams received.",
    DatagramsOut "datagrams_out" "UDP datagrams sent.",
    DatagramBytesOut "datagram_bytes_out" "Bytes of the UDP datagrams sent.",
    ReceiveBatches "receive_batches" "Receive completions (each holds one datagram or a GRO run).",
    SendBatches "send_batches" "Send calls (each holds one datagram or a GSO run).",
    RelayedDatagramsIn "relayed_datagrams_in" "Datagrams received through a TURN server.",
    RelayedDatagramsOut "relayed_datagrams_out" "Datagrams sent through a TURN server.",
    DatagramsRepeated "datagrams_repeated" "Datagrams sent again, unasked, on a lossy path.",
    SegmentsCut "segments_cut" "Super-segments and oversized frames cut into parts.",
    SegmentsJoined "segments_joined" "Super-segments and oversized frames joined with all parts.",
    SegmentsPatched "segments_patched" "Super-segments delivered although parts were missing.",
    FramesBundled "frames_bundled" "Small frames packed into a datagram with others.",
    FramesCoalesced "frames_coalesced" "Received frames merged into a super-segment by parsing.",
    NeighboursAnswered "neighbours_answered" "ARP and neighbour discovery requests answered here.",
    SendersTold "senders_told" "Senders told by ICMP how large packets a path carries.",
    FramesHandedOver "frames_handed_over" "Frames that took the first worker's lane.",
    AgentDatagrams "agent_datagrams" "STUN, handshake and control datagrams handed to the agent.",
    HandshakesCompleted "handshakes_completed" "TLS handshakes that led to keys.",
    Ratchets "ratchets" "Keys replaced by the next of their chain.",
    CommandsHandled "commands_handled" "Commands taken from the controller.",
    EventsPublished "events_published" "Events handed to the controller.",
    KernelEntries "kernel_entries" "System calls made by the worker's loop.",
    RelayConnections "relay_connections" "Connections made to TURN servers over TCP and TLS.",
    RelayConnectionsFailed "relay_connections_failed" "Such connections that could not be made.",
}

counter_enum! {
    /// Why a packet, or an event, was dropped: one counter each.
    DropReason from Counter::COUNT;
    MalformedFrame "malformed_frame" "A frame from the interface that cannot be parsed.",
    NoRoute "no_route" "A frame for an address that no route covers.",
    UnknownMac "unknown_mac" "A frame for a hardware address that no link has.",
    LinkNotUp "link_not_up" "A frame for a link without a path or keys.",
    TooBig "too_big" "A frame larger than the path carries, even when cut.",
    OutputFull "output_full" "No free output buffer: the kernel takes no more for now.",
    KeyExhausted "key_exhausted" "A key has sealed all it may and its successor is not there yet.",
    SendFailed "send_failed" "The kernel refused to send a datagram.",
    UnknownProtocol "unknown_protocol" "A datagram of no protocol that is spoken here.",
    Truncated "truncated" "A datagram shorter than its headers promise.",
    UnknownLink "unknown_link" "Frames for a link index that is not in use.",
    EarlyControl "early_control" "A message between agents ahead of its keys; it is repeated.",
    WrongLane "wrong_lane" "A datagram for a lane that the link or worker does not have.",
    UnknownEpoch "unknown_epoch" "A datagram sealed with a key neither kept nor next.",
    Expired "expired" "A datagram sealed with a key past its time.",
    Replayed "replayed" "A datagram seen before (lossy paths repeat), or too old to tell.",
    Forged "forged" "A datagram whose tag does not fit.",
    Stranger "stranger" "Handshake or control from an address that no check has authenticated.",
    MalformedPlaintext "malformed_plaintext" "An authentic datagram whose content is unreadable.",
    ForeignSource "foreign_source" "An authentic frame from an address that is not the peer's.",
    IncompleteSegment "incomplete_segment" "Parts of a segment that could not be delivered.",
    TapWriteFailed "tap_write_failed" "The kernel refused to take a frame.",
    BuffersExhausted "buffers_exhausted" "The kernel found no free receive buffer.",
    AgentQueueFull "agent_queue_full" "The agent takes no more datagrams for now.",
    RingFull "ring_full" "An event that the controller did not make room for.",
    HandoverFull "handover_full" "A frame for which the first worker had no room in its queue.",
    Overload "overload" "A TCP segment dropped early because queues were getting long.",
    RelayFull "relay_full" "A datagram that the connection to a TURN server had no room for.",
    InterfaceFull "interface_full" "A frame that the interface had no room for: workers are busy.",
    SocketFull "socket_full" "A datagram that its socket had no room for: workers are busy.",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn slots_are_dense_and_names_unique() {
        let slots = Counter::ALL.iter().map(|c| c.slot());
        let slots: Vec<_> = slots.chain(DropReason::ALL.iter().map(|d| d.slot())).collect();
        assert_eq!(slots, (0..counter_slots()).collect::<Vec<_>>());

        let names = Counter::ALL.iter().map(|c| c.name());
        let names: HashSet<_> = names.chain(DropReason::ALL.iter().map(|d| d.name())).collect();
        assert_eq!(names.len(), counter_slots());
    }
}
