//! What controllers say to each other over links: words of sessions for a third member, carried
//! by one that both are linked with, one hop and no further.
//!
//! Who said it is proven by the link's keys to whoever carries it, and not to the one it is for:
//! that one pins the fingerprint it knew before, so a carrier can lie, and only costs time by it.

use std::net::SocketAddr;

use ipop_signal::{Candidate, Fingerprint, IceCredentials, SessionId};

use crate::bytes::{Damaged, Reader, Writer};

/// Candidates in one word, so that it fits into [`ipop_steer::limits::WORDS_LEN_MAX`] as well
/// when it is carried on.
pub(crate) const CANDIDATES_PER_WORD: usize = 8;

const VERSION: u8 = 1;

/// From one controller to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// Carry this to `to`. Kind 1.
    Carry { to: Fingerprint, word: Word },
    /// `from` says this, and the carrier sees it at `seen_at`. Kind 2.
    Carried { from: Fingerprint, seen_at: Option<SocketAddr>, word: Word },
}

/// What one member says to another about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Open a session. Kind 1.
    Offer { session: SessionId, credentials: IceCredentials, candidates: Vec<Candidate> },
    /// It is opened. Kind 2.
    Answer { session: SessionId, credentials: IceCredentials, candidates: Vec<Candidate> },
    /// Further candidates. Kind 3.
    Candidates { session: SessionId, candidates: Vec<Candidate> },
}

impl Words {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.u8(VERSION);
        match self {
            Self::Carry { to: addressee, word } => {
                to.u8(1);
                to.fingerprint(addressee);
                word.put(&mut to);
            }
            Self::Carried { from, seen_at, word } => {
                to.u8(2);
                to.fingerprint(from);
                to.u8(seen_at.is_some().into());
                if let Some(address) = seen_at {
                    to.endpoint(address);
                }
                word.put(&mut to);
            }
        }
        to.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut from = Reader(bytes);
        if from.u8()? != VERSION {
            return Err(Damaged);
        }
        let words = match from.u8()? {
            1 => Self::Carry { to: from.fingerprint()?, word: Word::take(&mut from)? },
            2 => {
                let of = from.fingerprint()?;
                let seen_at = (from.u8()? != 0).then(|| from.endpoint()).transpose()?;
                Self::Carried { from: of, seen_at, word: Word::take(&mut from)? }
            }
            _ => return Err(Damaged),
        };
        from.finish()?;
        Ok(words)
    }
}

impl Word {
    fn put(&self, to: &mut Writer) {
        let (kind, session, credentials, candidates) = match self {
            Self::Offer { session, credentials, candidates } => {
                (1, session, Some(credentials), candidates)
            }
            Self::Answer { session, credentials, candidates } => {
                (2, session, Some(credentials), candidates)
            }
            Self::Candidates { session, candidates } => (3, session, None, candidates),
        };
        to.u8(kind);
        to.text(session.as_str());
        credentials.into_iter().for_each(|credentials| to.credentials(credentials));
        to.candidates(&candidates[..candidates.len().min(CANDIDATES_PER_WORD)]);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let kind = from.u8()?;
        let session = from.session()?;
        match kind {
            1 | 2 => {
                let credentials = from.credentials()?;
                let candidates = take_candidates(from)?;
                Ok(match kind {
                    1 => Self::Offer { session, credentials, candidates },
                    _ => Self::Answer { session, credentials, candidates },
                })
            }
            3 => Ok(Self::Candidates { session, candidates: take_candidates(from)? }),
            _ => Err(Damaged),
        }
    }
}

fn take_candidates(from: &mut Reader<'_>) -> Result<Vec<Candidate>, Damaged> {
    let candidates = from.candidates()?;
    if candidates.len() > CANDIDATES_PER_WORD { Err(Damaged) } else { Ok(candidates) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::candidate;
    use ipop_signal::CandidateKind;
    use ipop_steer::limits::WORDS_LEN_MAX;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::net::IpAddr;

    prop_compose! {
        fn word()(
            kind in 1..=3u8, session in "[!-~]{1,64}", ufrag in "[a-z]{4,32}",
            pwd in "[a-z]{22,64}",
            places in vec(any::<(IpAddr, u16, u32)>(), 0..=CANDIDATES_PER_WORD),
        ) -> Word {
            let session = SessionId::new(&session).unwrap();
            let credentials = IceCredentials { ufrag, pwd };
            let kind_of = CandidateKind::PeerReflexive;
            let place = |(ip, port, priority)| {
                candidate(kind_of, SocketAddr::new(ip, port), priority)
            };
            let candidates = places.into_iter().map(place).collect();
            match kind {
                1 => Word::Offer { session, credentials, candidates },
                2 => Word::Answer { session, credentials, candidates },
                _ => Word::Candidates { session, candidates },
            }
        }
    }

    fn words() -> impl Strategy<Value = Words> {
        let seen = proptest::option::of(any::<(IpAddr, u16)>());
        (any::<[u8; 32]>(), any::<bool>(), seen, word()).prop_map(|(of, is_request, seen, word)| {
            let seen_at = seen.map(|(ip, port)| SocketAddr::new(ip, port));
            match is_request {
                true => Words::Carry { to: Fingerprint(of), word },
                false => Words::Carried { from: Fingerprint(of), seen_at, word },
            }
        })
    }

    proptest! {
        #[test]
        fn words_come_back_and_fit(words in words()) {
            let bytes = words.encode();
            prop_assert!(bytes.len() <= WORDS_LEN_MAX, "{} bytes", bytes.len());
            prop_assert_eq!(Words::decode(&bytes), Ok(words));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..WORDS_LEN_MAX)) {
            if let Ok(words) = Words::decode(&bytes) {
                prop_assert!(Words::decode(&words.encode()).is_ok());
            }
        }
    }
}
