//! Lone frames of one flow that follow each other are written to the tap as one super-segment:
//! equal UDP datagrams, and TCP segments whose sequence numbers meet. Each run fills an output slot
//! until something does not fit, or the batch ends.
//!
//! Only a frame whose checksum is known to be good, or still to be completed, may join: the merged
//! frame's checksum is completed by whoever needs it, so a wrong one would be made right.

use std::ops::DerefMut;

use ipop_wire::geometry::GEOMETRY_LEN;
use ipop_wire::ipv4::{IPV4_LEN, Ipv4Header};
use ipop_wire::ipv6::IPV6_LEN;
use ipop_wire::layout::{IpVersion, Layout, Transport};
use ipop_wire::tcp::{self, TcpHeader};
use ipop_wire::udp::UdpHeader;
use ipop_wire::vnet::{CsumState, GsoType, VirtioNetHeader};
use zerocopy::FromBytes;

use crate::UDP_SEGMENTS_MAX;
use crate::counters::{Counters, Total};
use crate::ingress::frame;
use crate::links::LinkId;
use crate::patch;
use crate::sink::Sink;

/// Flows that are merged at once; one more, and the oldest is written.
const RUNS_MAX: usize = 8;

/// Most segments in one run: what every kernel takes.
const SEGMENTS_MAX: usize = UDP_SEGMENTS_MAX;

/// Flags with which a TCP segment may still join others.
const JOINABLE_FLAGS: u8 = tcp::ACK | tcp::PSH | tcp::ECE;

/// What was found out about a TCP or UDP frame.
pub(crate) struct Candidate {
    pub layout: Layout,
    /// Same for all frames of a flow; others may share it by chance.
    pub flow: u64,
    pub payload_len: usize,
    /// Whether it may be merged with others of its flow.
    pub can_merge: bool,
    csum: CsumState,
    /// 0 for UDP.
    tcp_flags: u8,
}

impl Candidate {
    /// Looks at a frame, of which at least the headers are in `frame`. `None`: not TCP or UDP.
    #[inline]
    pub fn of(
        link: LinkId,
        frame: &[u8],
        csum: CsumState,
        frame_len: usize,
        takes_uso: bool,
    ) -> Option<Candidate> {
        let layout = Layout::of(frame)?;
        let payload_len = frame_len.checked_sub(layout.header_len())?;
        let is_csum_good = match csum {
            CsumState::Unknown => false,
            CsumState::Valid => true,
            CsumState::Needed(csum) => csum == layout.csum(),
        };
        let plain_ip_len = match layout.version {
            IpVersion::V4 => IPV4_LEN,
            IpVersion::V6 => IPV6_LEN,
        };
        let tcp_flags = match layout.transport {
            Transport::Tcp => tcp_of(frame, &layout)?.flags,
            Transport::Udp => 0,
        };
        let is_transport_joinable = match layout.transport {
            Transport::Tcp => tcp_flags & !JOINABLE_FLAGS == 0 && tcp_flags & tcp::ACK != 0,
            // A zero says that there is no checksum; a merged frame would get one.
            Transport::Udp => {
                takes_uso && (csum != CsumState::Valid || has_udp_sum(frame, &layout))
            }
        };
        let can_merge = is_csum_good
            && is_transport_joinable
            && payload_len > 0
            && usize::from(layout.transport_start - layout.network_start) == plain_ip_len
            && layout.payload_len(frame) == Some(payload_len);
        let flow = flow_of(link, frame, &layout);
        Some(Candidate { layout, flow, payload_len, can_merge, csum, tcp_flags })
    }
}

fn tcp_of<'a>(frame: &'a [u8], layout: &Layout) -> Option<&'a TcpHeader> {
    let segment = frame.get(usize::from(layout.transport_start)..)?;
    Some(TcpHeader::ref_from_prefix(segment).ok()?.0)
}

fn has_udp_sum(frame: &[u8], layout: &Layout) -> bool {
    let datagram = frame.get(usize::from(layout.transport_start)..).unwrap_or_default();
    UdpHeader::ref_from_prefix(datagram).is_ok_and(|(udp, _)| udp.checksum.get() != 0)
}

/// A number for the flow: link, addresses and ports.
#[inline]
pub(crate) fn flow_of(link: LinkId, frame: &[u8], layout: &Layout) -> u64 {
    let network = usize::from(layout.network_start);
    let addresses = match layout.version {
        IpVersion::V4 => network + 12..network + 20,
        IpVersion::V6 => network + 8..network + 40,
    };
    let transport = usize::from(layout.transport_start);
    let mut flow = mix(link.number(), layout.transport as u64);
    if let Some(ports) = frame.get(transport..).and_then(|ports| ports.first_chunk::<4>()) {
        flow = mix(flow, u64::from(u32::from_ne_bytes(*ports)));
    }
    for lane in frame.get(addresses).unwrap_or_default().as_chunks::<8>().0 {
        flow = mix(flow, u64::from_ne_bytes(*lane));
    }
    flow
}

#[inline]
fn mix(flow: u64, lane: u64) -> u64 {
    (flow ^ lane).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// Frames of one flow, merged in a slot.
pub(crate) struct Run<S> {
    link: LinkId,
    flow: u64,
    pub slot: S,
    /// Where the first frame's headers begin.
    start: usize,
    /// Where the payload begins.
    payload_start: usize,
    /// Where the next payload goes.
    pub tail: usize,
    layout: Layout,
    /// What is known of the first frame's checksum.
    csum: CsumState,
    /// Payload bytes of the first frame.
    gso_size: usize,
    segments: usize,
    next_sequence: u32,
    /// A shorter or pushed frame came: no other may follow.
    is_closed: bool,
    is_pushed: bool,
}

impl<S: DerefMut<Target = [u8]>> Run<S> {
    /// Starts with a whole frame that stands in the slot from `start`.
    pub fn new(link: LinkId, slot: S, start: usize, candidate: &Candidate) -> Run<S> {
        let Candidate { layout, flow, payload_len, csum, .. } = *candidate;
        let payload_start = start + layout.header_len();
        let mut run = Run {
            link,
            flow,
            slot,
            start,
            payload_start,
            tail: payload_start,
            layout,
            csum,
            gso_size: payload_len,
            segments: 0,
            next_sequence: 0,
            is_closed: false,
            is_pushed: false,
        };
        let tcp = tcp_of(&run.slot[start..], &layout);
        run.next_sequence = tcp.map_or(0, |tcp| tcp.sequence.get());
        run.extend(candidate);
        run
    }

    /// Whether a frame with these headers continues the run.
    #[inline]
    pub fn accepts(&self, headers: &[u8], candidate: &Candidate) -> bool {
        let ip_len = candidate.layout.ip_headers_len() + self.tail - self.payload_start;
        candidate.can_merge
            && candidate.flow == self.flow
            && candidate.layout == self.layout
            && !self.is_closed
            && candidate.payload_len <= self.gso_size
            && self.segments < SEGMENTS_MAX
            && ip_len + candidate.payload_len <= usize::from(u16::MAX)
            && self.tail + candidate.payload_len <= self.slot.len()
            && self.is_next(&headers[..self.layout.header_len()])
    }

    /// Whether all that must be equal in the headers is, and all that must move on does.
    #[inline]
    fn is_next(&self, headers: &[u8]) -> bool {
        let own = &self.slot[self.start..self.payload_start];
        let network = usize::from(self.layout.network_start);
        let transport = usize::from(self.layout.transport_start);
        own[..network] == headers[..network]
            && self.is_next_ip(&own[network..transport], &headers[network..transport])
            && match self.layout.transport {
                Transport::Udp => own[transport..][..4] == headers[transport..][..4],
                Transport::Tcp => self.is_next_tcp(&own[transport..], &headers[transport..]),
            }
    }

    #[inline]
    fn is_next_ip(&self, own: &[u8], other: &[u8]) -> bool {
        if self.layout.version == IpVersion::V6 {
            const PAYLOAD_LEN: std::ops::Range<usize> = 4..6;
            return own[..PAYLOAD_LEN.start] == other[..PAYLOAD_LEN.start]
                && own[PAYLOAD_LEN.end..] == other[PAYLOAD_LEN.end..];
        }
        let headers = (Ipv4Header::ref_from_bytes(own), Ipv4Header::ref_from_bytes(other));
        let (Ok(own), Ok(other)) = headers else { return false };
        // The kernel numbers the packets of a super-segment one by one.
        let next_id = own.id.get().wrapping_add(self.segments as u16);
        let is_numbered = own.is_atomic() || other.id.get() == next_id;
        let fixed = |ip: &Ipv4Header| (ip.tos, ip.fragment, ip.ttl, ip.source, ip.destination);
        is_numbered && fixed(own) == fixed(other)
    }

    #[inline]
    fn is_next_tcp(&self, own: &[u8], other: &[u8]) -> bool {
        let headers = (TcpHeader::ref_from_prefix(own), TcpHeader::ref_from_prefix(other));
        let (Ok((a, a_options)), Ok((b, b_options))) = headers else { return false };
        let fixed = |tcp: &TcpHeader| {
            let ports = (tcp.source, tcp.destination);
            (ports, tcp.acknowledgement, tcp.flags & !tcp::PSH, tcp.window, tcp.urgent)
        };
        b.sequence.get() == self.next_sequence && fixed(a) == fixed(b) && a_options == b_options
    }

    /// Takes an accepted frame whose payload stands at `tail` already.
    #[inline]
    pub fn extend(&mut self, candidate: &Candidate) {
        let payload_len = candidate.payload_len;
        self.tail += payload_len;
        self.segments += 1;
        self.next_sequence = self.next_sequence.wrapping_add(payload_len as u32);
        self.is_pushed = candidate.tcp_flags & tcp::PSH != 0;
        self.is_closed = payload_len < self.gso_size || self.is_pushed;
    }

    /// Takes an accepted frame whose payload stands elsewhere.
    #[inline]
    pub fn extend_from(&mut self, payload: &[u8], candidate: &Candidate) {
        self.slot[self.tail..self.tail + payload.len()].copy_from_slice(payload);
        self.extend(candidate);
    }

    /// Writes the run to the tap; a run of one frame as it came.
    fn write<K: Sink<Slot = S>>(mut self, counters: &mut Counters, sink: &mut K) {
        let header_len = self.layout.payload_start;
        let mut vnet = VirtioNetHeader { csum: self.csum, header_len, ..Default::default() };
        if self.segments > 1 {
            counters.add(Total::FramesCoalesced, self.segments);
            self.merge_headers();
            vnet.csum = CsumState::Needed(self.layout.csum());
            vnet.gso_type = self.layout.gso_type();
            vnet.gso_size = self.gso_size as u16;
            debug_assert!(vnet.gso_type != GsoType::None);
        }
        frame::write(self.slot, self.start..self.tail, &vnet, counters, sink);
    }

    fn merge_headers(&mut self) {
        let payload_len = self.tail - self.payload_start;
        let headers = &mut self.slot[self.start..self.payload_start];
        patch::set_payload_len(headers, &self.layout, self.gso_size, payload_len, 0);
        if self.csum == CsumState::Valid {
            patch::set_pseudo_sum(headers, &self.layout, payload_len);
        }
        if self.is_pushed
            && let Some(tcp) = patch::tcp_header(headers, &self.layout)
        {
            tcp.flags |= tcp::PSH;
        }
    }
}

/// All runs that are open.
pub(crate) struct Runs<S> {
    open: Vec<Run<S>>,
    /// The flow of the last frame: the next one is most likely of it.
    last_flow: u64,
}

impl<S: DerefMut<Target = [u8]>> Runs<S> {
    pub fn new() -> Runs<S> {
        Runs { open: Vec::with_capacity(RUNS_MAX), last_flow: 0 }
    }

    /// The run that a part with `len` bytes of plaintext most likely continues, so that it may be
    /// decrypted straight to its tail.
    #[inline]
    pub fn predict(&mut self, link: LinkId, len: usize) -> Option<&mut Run<S>> {
        let at = self.find(self.last_flow)?;
        let run = &mut self.open[at];
        let expected = run.gso_size + run.layout.header_len() + GEOMETRY_LEN;
        let is_likely = run.link == link
            && !run.is_closed
            && run.segments < SEGMENTS_MAX
            && len <= expected
            && run.tail + len <= run.slot.len();
        is_likely.then_some(run)
    }

    /// The run of the last frame.
    pub fn last(&self) -> Option<&Run<S>> {
        self.open.get(self.find(self.last_flow)?)
    }

    /// The open run that a frame continues.
    #[inline]
    pub fn accepting(&mut self, headers: &[u8], candidate: &Candidate) -> Option<&mut Run<S>> {
        let at = self.find(candidate.flow)?;
        let run = &mut self.open[at];
        if !run.accepts(headers, candidate) {
            return None;
        }
        self.last_flow = candidate.flow;
        Some(run)
    }

    /// Adds a run; its flow must have none.
    pub fn start<K: Sink<Slot = S>>(&mut self, run: Run<S>, counters: &mut Counters, sink: &mut K) {
        if self.open.len() == RUNS_MAX {
            self.open.remove(0).write(counters, sink);
        }
        self.last_flow = run.flow;
        self.open.push(run);
    }

    /// Writes the run of a flow, so that nothing of the flow overtakes it.
    #[inline]
    pub fn flush_flow<K: Sink<Slot = S>>(
        &mut self,
        flow: u64,
        counters: &mut Counters,
        sink: &mut K,
    ) {
        if let Some(at) = self.find(flow) {
            self.open.remove(at).write(counters, sink);
        }
    }

    /// Writes all runs of a link.
    pub fn flush_link<K: Sink<Slot = S>>(
        &mut self,
        link: LinkId,
        counters: &mut Counters,
        sink: &mut K,
    ) {
        while let Some(at) = self.open.iter().position(|run| run.link == link) {
            self.open.remove(at).write(counters, sink);
        }
    }

    /// Writes all runs.
    pub fn flush<K: Sink<Slot = S>>(&mut self, counters: &mut Counters, sink: &mut K) {
        for run in self.open.drain(..) {
            run.write(counters, sink);
        }
    }

    #[inline]
    fn find(&self, flow: u64) -> Option<usize> {
        self.open.iter().rposition(|run| run.flow == flow)
    }
}
