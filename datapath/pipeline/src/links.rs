//! The links of one worker: per link the lane's keys, the path, and how to find it by our index (in
//! received headers) or by the peer's hardware address (in frames from the tap).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use ipop_crypto::{OpenError, Opener, SealError, Sealer};
use ipop_wire::channel::{CHANNEL_PREFIX_LEN, channel_prefix};
use ipop_wire::ethernet::Mac;
use ipop_wire::geometry::GEOMETRY_LEN;
use ipop_wire::{Header, Kind, LinkIndex, Part, SEAL_OVERHEAD};

use crate::counters::{Drop, LinkCounters};
use crate::repeat::Allowance;

/// A shorter path is not used: nothing useful would fit behind the headers.
pub const DATAGRAM_LEN_MIN: u16 = 512;

/// How a link's datagrams reach its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The relay's channel, whose number stands in front of every datagram; `None` when direct.
    pub channel: Option<u16>,
    /// Largest UDP payload that the path carries, in bytes; at least [`DATAGRAM_LEN_MIN`] counts.
    pub datagram_len: u16,
    /// Whether that is what the path carries for now, and not only what is proven so far: senders
    /// of larger packets are told.
    pub is_settled: bool,
    /// Whether it is known to lose much: what is sparse is sent more than once.
    pub is_lossy: bool,
}

/// What a worker is given of a link when its handshake is done.
#[derive(Debug)]
pub struct LinkEntry {
    /// Our own index: what the peer writes into its headers.
    pub index: LinkIndex,
    /// The peer's index: what we write into ours.
    pub peer_index: LinkIndex,
    /// The lane that this worker carries.
    pub lane: u8,
    /// Hardware address of the peer's tap.
    pub peer_mac: Mac,
    /// The lane's sending keys.
    pub sealer: Sealer,
    /// The lane's receiving keys.
    pub opener: Opener,
    /// Where to send; `None` while no path works.
    pub path: Option<Path>,
    /// Whether frames for the peer take this link from now on. A link that replaces another is
    /// installed without, until the peer is known to have its keys as well.
    pub is_sending: bool,
}

/// Place of a link in the table, never reused: what is kept about a removed link finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkId {
    place: u32,
    generation: u32,
}

impl LinkId {
    /// A number that differs between links, to mix into flow hashes.
    #[inline]
    pub fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.place)
    }
}

/// One link as the pipeline keeps it.
pub(crate) struct Link {
    pub entry: LinkEntry,
    pub counters: LinkCounters,
    /// When an authentic datagram came last.
    pub heard: Option<Instant>,
    /// The sending key's epoch as of the last count.
    counted_epoch: u64,
    /// The source address that was last found to be the peer's, and by which routes.
    pub admitted: Option<(IpAddr, u64)>,
    /// Of what is sent again on a lossy path.
    pub allowance: Allowance,
}

impl Link {
    /// Plaintext bytes that fit one datagram of the path; `None` without a path.
    #[inline]
    pub fn budget(&self) -> Option<usize> {
        let path = self.entry.path?;
        let datagram_len = usize::from(path.datagram_len.max(DATAGRAM_LEN_MIN));
        Some(datagram_len - self.overhead())
    }

    /// The largest IP packet that fits one datagram behind `ethernet_len` bytes of a header that
    /// travels; `None` while that is not settled.
    pub fn packet_len(&self, ethernet_len: usize) -> Option<u16> {
        let budget = self.budget().filter(|_| self.entry.path.is_some_and(|path| path.is_settled));
        u16::try_from(budget?.saturating_sub(GEOMETRY_LEN + ethernet_len)).ok()
    }

    /// Bytes that a datagram has on top of its plaintext.
    #[inline]
    pub fn overhead(&self) -> usize {
        SEAL_OVERHEAD + self.prefix_len()
    }

    #[inline]
    fn prefix_len(&self) -> usize {
        if self.is_relayed() { CHANNEL_PREFIX_LEN } else { 0 }
    }

    /// Whether datagrams take a relay's channel.
    #[inline]
    pub fn is_relayed(&self) -> bool {
        self.entry.path.is_some_and(|path| path.channel.is_some())
    }

    /// Replaces the sending key if its time is over; tells how often that was done since the last
    /// call, here or amid the parts of a frame.
    #[inline]
    pub fn ratchet_if_due(&mut self, now: Instant) -> usize {
        if self.entry.sealer.needs_ratchet(now) {
            self.entry.sealer.ratchet(now);
        }
        if self.entry.sealer.epoch() == self.counted_epoch { 0 } else { self.count_epochs() }
    }

    #[cold]
    fn count_epochs(&mut self) -> usize {
        let epoch = self.entry.sealer.epoch();
        (epoch - std::mem::replace(&mut self.counted_epoch, epoch)) as usize
    }

    /// Seals one data datagram to the front of `out`, a relay's prefix included.
    #[inline]
    pub fn seal(
        &mut self,
        part: Part,
        payload: &[u8],
        extra: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Drop> {
        let path = self.entry.path.ok_or(Drop::LinkNotUp)?;
        self.seal_on(path.channel, Kind::Data, part, payload, extra, out)
    }

    /// Seals a datagram for a given channel, whatever the link's path.
    pub fn seal_on(
        &mut self,
        channel: Option<u16>,
        kind: Kind,
        part: Part,
        payload: &[u8],
        extra: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Drop> {
        let header = Header {
            kind,
            epoch: 0,
            lane: self.entry.lane,
            part,
            receiver: self.entry.peer_index,
            counter: 0,
        };
        let mut len = 0;
        if let Some(number) = channel {
            let sealed_len = SEAL_OVERHEAD + payload.len() + extra.len();
            let prefix = out.first_chunk_mut().ok_or(Drop::TooBig)?;
            *prefix = channel_prefix(number, sealed_len as u16);
            len = CHANNEL_PREFIX_LEN;
        }
        let sealed = self.entry.sealer.seal(header, payload, extra, &mut out[len..]);
        len += sealed.map_err(|error| match error {
            SealError::CounterExhausted => Drop::KeyExhausted,
            SealError::OutputTooSmall { .. } | SealError::MessageTooLong => Drop::TooBig,
        })?;
        self.counters.datagrams_out += 1;
        self.counters.bytes_out += len as u64;
        Ok(len)
    }

    /// Opens one datagram to the front of `out`.
    #[inline]
    pub fn open(
        &mut self,
        now: Instant,
        header: &Header,
        datagram: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Drop> {
        match self.entry.opener.open(now, header, datagram, out) {
            Ok(len) => {
                self.counters.datagrams_in += 1;
                self.counters.bytes_in += datagram.len() as u64;
                self.heard = Some(now);
                Ok(len)
            }
            Err(error) => {
                self.counters.drops += 1;
                Err(match error {
                    OpenError::Replayed => Drop::Replayed,
                    OpenError::Forged => Drop::Forged,
                    OpenError::UnknownEpoch => Drop::UnknownEpoch,
                    OpenError::Truncated => Drop::Truncated,
                    OpenError::Expired => Drop::Expired,
                })
            }
        }
    }
}

/// All links of a worker.
#[derive(Default)]
pub(crate) struct LinkTable {
    places: Vec<Place>,
    by_index: BTreeMap<LinkIndex, LinkId>,
    by_mac: BTreeMap<Mac, LinkId>,
    last_index: Option<(LinkIndex, LinkId)>,
    last_mac: Option<(Mac, LinkId)>,
}

struct Place {
    generation: u32,
    link: Option<Link>,
}

impl LinkTable {
    /// Adds a link; one with the same index is replaced and returned.
    pub fn install(&mut self, entry: LinkEntry) -> Option<LinkEntry> {
        let replaced = self.remove(entry.index);
        let (index, is_sending) = (entry.index, entry.is_sending);
        let link = Link {
            counted_epoch: entry.sealer.epoch(),
            entry,
            counters: LinkCounters::default(),
            heard: None,
            admitted: None,
            allowance: Allowance::default(),
        };
        let place = self.places.iter().position(|place| place.link.is_none());
        let place = place.unwrap_or_else(|| {
            self.places.push(Place { generation: 0, link: None });
            self.places.len() - 1
        });
        let slot = &mut self.places[place];
        slot.link = Some(link);
        let id = LinkId { place: place as u32, generation: slot.generation };
        self.by_index.insert(index, id);
        if is_sending {
            self.use_for_sending(index);
        }
        replaced
    }

    /// Takes a link out.
    pub fn remove(&mut self, index: LinkIndex) -> Option<LinkEntry> {
        let id = self.by_index.remove(&index)?;
        self.last_index = None;
        self.last_mac = None;
        let place = &mut self.places[id.place as usize];
        place.generation = place.generation.wrapping_add(1);
        let entry = place.link.take()?.entry;
        if self.by_mac.get(&entry.peer_mac) == Some(&id) {
            self.by_mac.remove(&entry.peer_mac);
        }
        Some(entry)
    }

    /// Lets frames for the link's peer take this link.
    pub fn use_for_sending(&mut self, index: LinkIndex) -> bool {
        let Some(id) = self.by_index.get(&index).copied() else { return false };
        self.last_mac = None;
        let Some(mac) = self.get(id).map(|link| link.entry.peer_mac) else { return false };
        self.by_mac.insert(mac, id);
        true
    }

    /// The link at a place, unless it was removed since.
    #[inline]
    pub fn get(&self, id: LinkId) -> Option<&Link> {
        let place = self.places.get(id.place as usize)?;
        if place.generation != id.generation {
            return None;
        }
        place.link.as_ref()
    }

    /// See [`get`](Self::get).
    #[inline]
    pub fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        let place = self.places.get_mut(id.place as usize)?;
        if place.generation != id.generation {
            return None;
        }
        place.link.as_mut()
    }

    /// Finds a link by our own index. A run of datagrams of one link looks it up once.
    #[inline]
    pub fn find_index(&mut self, index: LinkIndex) -> Option<LinkId> {
        if let Some((last, id)) = self.last_index
            && last == index
        {
            return Some(id);
        }
        let id = self.by_index.get(&index).copied()?;
        self.last_index = Some((index, id));
        Some(id)
    }

    /// Finds the link that sends to a peer. A run of frames to one peer looks it up once.
    #[inline]
    pub fn find_mac(&mut self, mac: &Mac) -> Option<LinkId> {
        if let Some((last, id)) = &self.last_mac
            && last == mac
        {
            return Some(*id);
        }
        let id = self.by_mac.get(mac).copied()?;
        self.last_mac = Some((*mac, id));
        Some(id)
    }

    /// How many places there are, links in them or not.
    pub fn place_count(&self) -> usize {
        self.places.len()
    }

    /// The link at a place, if it is the one that its peer's frames take.
    pub fn sender_at(&self, place: usize) -> Option<LinkId> {
        let slot = self.places.get(place)?;
        let id = LinkId { place: place as u32, generation: slot.generation };
        let mac = slot.link.as_ref()?.entry.peer_mac;
        (self.by_mac.get(&mac) == Some(&id)).then_some(id)
    }

    /// All links.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.places.iter_mut().filter_map(|place| place.link.as_mut())
    }

    /// All links.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.places.iter().filter_map(|place| place.link.as_ref())
    }
}
