//! What a node remembers of the members that it was linked with, so that it finds them again
//! while nobody carries words: who they are, the last session's credentials, where they were.
//!
//! Whoever reads it can answer checks in the members' name and learns where they were; a handshake
//! still needs their keys. The file holds a magic number, a version, the members, and a checksum
//! that tells damage, not forgery: it is its owner's to protect.

use std::collections::BTreeMap;

use ipop_signal::{
    ADDRESSES_MAX, Announcement, Candidate, Fingerprint, IceCredentials, Member, Origin,
    OverlayAddress, PeerAddress, SessionId,
};

use crate::bytes::{Damaged, Reader, Writer};

/// Members that are remembered at most; who was seen longest ago is forgotten first.
pub const MEMBERS_MAX: usize = 1024;
/// Candidates that are remembered of each.
pub(crate) const CANDIDATES_MAX: usize = 8;
/// How long a member is remembered that was not seen, seconds.
pub(crate) const REMEMBERED_S: u64 = 30 * 24 * 3600;
/// Longest address in a room, bytes: three parts of 1023 bytes each (RFC 7622 section 3.1).
const ADDRESS_LEN_MAX: usize = 3 * 1023 + 2;

const MAGIC: u64 = u64::from_le_bytes(*b"IPOPPEER");
const VERSION: u16 = 1;

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it announced last.
    pub member: Member,
    /// When it was linked last, seconds since 1970.
    pub seen: u64,
    /// The last session that was up.
    pub session: KnownSession,
}

/// A session that both ends remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSession {
    /// Its name in signalling.
    pub id: SessionId,
    /// Its number at the datapath.
    pub number: u64,
    /// Whether this node offered it: it is the controlling end then.
    pub offered_by_us: bool,
    /// Our credentials.
    pub local: IceCredentials,
    /// The member's.
    pub remote: IceCredentials,
    /// Where it was, the path that was used last first.
    pub candidates: Vec<Candidate>,
}

/// All members that are remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    members: BTreeMap<Fingerprint, Known>,
}

impl Memory {
    /// Remembers a member, in the place of what was known of it before.
    pub fn insert(&mut self, mut known: Known) {
        known.session.candidates.truncate(CANDIDATES_MAX);
        self.members.insert(known.member.fingerprint, known);
        if self.members.len() > MEMBERS_MAX {
            let oldest = self.members.iter().min_by_key(|(_, known)| known.seen);
            if let Some(oldest) = oldest.map(|(fingerprint, _)| *fingerprint) {
                self.members.remove(&oldest);
            }
        }
    }

    /// What is known of a member.
    pub fn get(&self, fingerprint: &Fingerprint) -> Option<&Known> {
        self.members.get(fingerprint)
    }

    pub(crate) fn get_mut(&mut self, fingerprint: &Fingerprint) -> Option<&mut Known> {
        self.members.get_mut(fingerprint)
    }

    /// All that are known.
    pub fn members(&self) -> impl Iterator<Item = &Known> {
        self.members.values()
    }

    /// Forgets whoever does not fit; true if there was somebody.
    pub(crate) fn retain(&mut self, fits: impl Fn(&Known) -> bool) -> bool {
        let before = self.members.len();
        self.members.retain(|_, known| fits(known));
        self.members.len() != before
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.u64(MAGIC);
        to.u16(VERSION);
        to.u16(self.members.len() as u16);
        self.members.values().for_each(|known| put(&mut to, known));
        let sum = checksum(&to.0);
        to.u64(sum);
        to.0
    }

    /// Reads them back.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let (content, sum) = bytes.split_last_chunk::<8>().ok_or(Damaged)?;
        if checksum(content) != u64::from_le_bytes(*sum) {
            return Err(Damaged);
        }
        let mut from = Reader(content);
        if from.u64()? != MAGIC || from.u16()? != VERSION {
            return Err(Damaged);
        }
        let count = from.u16()?;
        let mut memory = Self::default();
        for _ in 0..count {
            memory.insert(take(&mut from)?);
        }
        from.finish()?;
        Ok(memory)
    }
}

fn put(to: &mut Writer, known: &Known) {
    let Known { member, seen, session } = known;
    to.fingerprint(&member.fingerprint);
    to.text(&member.name);
    to.text(&member.address.0);
    let addresses = &member.addresses[..member.addresses.len().min(ADDRESSES_MAX)];
    to.u8(addresses.len() as u8);
    for address in addresses {
        to.ip(&address.address);
        to.u8(address.prefix);
        to.u8((address.origin == Origin::Fixed).into());
        to.u32(address.attempt);
    }
    to.u64(*seen);
    to.text(session.id.as_str());
    to.u64(session.number);
    to.u8(session.offered_by_us.into());
    to.credentials(&session.local);
    to.credentials(&session.remote);
    to.candidates(&session.candidates);
}

fn take(from: &mut Reader<'_>) -> Result<Known, Damaged> {
    let fingerprint = from.fingerprint()?;
    let name = from.text(ipop_signal::NAME_LEN_MAX)?;
    if !Announcement::is_valid_name(&name) {
        return Err(Damaged);
    }
    let address = PeerAddress(from.text(ADDRESS_LEN_MAX)?);
    let count = from.u8()?;
    if usize::from(count) > ADDRESSES_MAX {
        return Err(Damaged);
    }
    let addresses = (0..count).map(|_| take_address(from)).collect::<Result<_, _>>()?;
    let member = Member { address, fingerprint, name, addresses, invitation: None };
    let seen = from.u64()?;
    let session = KnownSession {
        id: from.session()?,
        number: from.u64()?,
        offered_by_us: from.u8()? != 0,
        local: from.credentials()?,
        remote: from.credentials()?,
        candidates: from.candidates()?,
    };
    Ok(Known { member, seen, session })
}

fn take_address(from: &mut Reader<'_>) -> Result<OverlayAddress, Damaged> {
    let (address, prefix) = (from.ip()?, from.u8()?);
    let origin = if from.u8()? != 0 { Origin::Fixed } else { Origin::Derived };
    let address = OverlayAddress { address, prefix, origin, attempt: from.u32()? };
    if address.is_valid() { Ok(address) } else { Err(Damaged) }
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::candidate;
    use ipop_signal::CandidateKind;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::net::{IpAddr, SocketAddr};

    prop_compose! {
        fn address()(
            address: IpAddr, prefix in 0..=32u8, is_fixed: bool, attempt: u32,
        ) -> OverlayAddress {
            let origin = if is_fixed { Origin::Fixed } else { Origin::Derived };
            OverlayAddress { address, prefix, origin, attempt }
        }
    }

    prop_compose! {
        fn credentials()(ufrag in "[a-zA-Z0-9+/]{4,32}", pwd in "[a-zA-Z0-9+/]{22,64}")
        -> IceCredentials {
            IceCredentials { ufrag, pwd }
        }
    }

    fn place() -> impl Strategy<Value = Candidate> {
        let kinds = [
            CandidateKind::Host,
            CandidateKind::ServerReflexive,
            CandidateKind::PeerReflexive,
            CandidateKind::Relayed,
        ];
        (0..4usize, any::<(IpAddr, u16, u32)>()).prop_map(move |(kind, (ip, port, priority))| {
            candidate(kinds[kind], SocketAddr::new(ip, port), priority)
        })
    }

    prop_compose! {
        fn known()(
            fingerprint: [u8; 32], name in "[a-z]{1,64}", room in ".{0,80}",
            addresses in vec(address(), 0..=ADDRESSES_MAX), seen: u64,
            (number, offered_by_us) in any::<(u64, bool)>(), id in "[!-~]{1,64}",
            (local, remote) in (credentials(), credentials()),
            candidates in vec(place(), 0..=CANDIDATES_MAX),
        ) -> Known {
            let address = PeerAddress(room);
            let fingerprint = Fingerprint(fingerprint);
            let member = Member { address, fingerprint, name, addresses, invitation: None };
            let id = SessionId::new(&id).unwrap();
            let session =
                KnownSession { id, number, offered_by_us, local, remote, candidates };
            Known { member, seen, session }
        }
    }

    fn memory(members: Vec<Known>) -> Memory {
        let mut memory = Memory::default();
        members.into_iter().for_each(|known| memory.insert(known));
        memory
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read_again(members in vec(known(), 0..8)) {
            let memory = memory(members);
            prop_assert_eq!(Memory::decode(&memory.encode()), Ok(memory));
        }

        #[test]
        fn damage_is_noticed(members in vec(known(), 1..3), at: prop::sample::Index, bit in 0..8) {
            let mut bytes = memory(members).encode();
            let at = at.index(bytes.len());
            prop_assert_eq!(Memory::decode(&bytes[..at]), Err(Damaged));
            bytes[at] ^= 1u8 << bit;
            prop_assert_eq!(Memory::decode(&bytes), Err(Damaged));
        }

        #[test]
        fn arbitrary_content_never_panics(bytes in vec(any::<u8>(), 0..600)) {
            let _ = Memory::decode(&bytes);
            let mut sealed = Writer::default();
            sealed.u64(MAGIC);
            sealed.u16(VERSION);
            sealed.0.extend(bytes);
            let sum = checksum(&sealed.0);
            sealed.u64(sum);
            let _ = Memory::decode(&sealed.0);
        }
    }

    #[test]
    fn the_bound_holds_and_the_oldest_goes() {
        let mut memory = Memory::default();
        for number in 0..MEMBERS_MAX as u64 + 10 {
            let mut fingerprint = [0; 32];
            fingerprint[..8].copy_from_slice(&number.to_le_bytes());
            let fingerprint = Fingerprint(fingerprint);
            let name = "n".to_owned();
            let address = PeerAddress(String::new());
            let addresses = Vec::new();
            let member = Member { address, fingerprint, name, addresses, invitation: None };
            let credentials =
                IceCredentials { ufrag: "ufra".into(), pwd: "0123456789abcdefABCDEF".into() };
            let session = KnownSession {
                id: SessionId::new("s").unwrap(),
                number,
                offered_by_us: true,
                local: credentials.clone(),
                remote: credentials,
                candidates: vec![],
            };
            memory.insert(Known { member, seen: number, session });
        }
        assert_eq!(memory.members().count(), MEMBERS_MAX);
        assert!(memory.members().all(|known| known.seen >= 10));
    }
}
