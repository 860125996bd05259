//! Bytes of what is kept in a file or said to another controller: little endian, texts and lists
//! behind their lengths, nothing between. Reading is bounded by the bytes that are there.

use std::net::{IpAddr, SocketAddr};

use ipop_signal::{Candidate, CandidateKind, Fingerprint, IceCredentials, SessionId};

/// The bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are damaged, or of another version")]
pub struct Damaged;

#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn fingerprint(&mut self, fingerprint: &Fingerprint) {
        self.0.extend(fingerprint.0);
    }

    /// A text of at most 65535 bytes; none of ours comes near that.
    pub(crate) fn text(&mut self, text: &str) {
        self.u16(u16::try_from(text.len()).unwrap_or(0));
        if u16::try_from(text.len()).is_ok() {
            self.0.extend(text.as_bytes());
        }
    }

    pub(crate) fn ip(&mut self, address: &IpAddr) {
        match address {
            IpAddr::V4(v4) => {
                self.u8(4);
                self.0.extend(v4.octets());
            }
            IpAddr::V6(v6) => {
                self.u8(6);
                self.0.extend(v6.octets());
            }
        }
    }

    pub(crate) fn endpoint(&mut self, address: &SocketAddr) {
        self.ip(&address.ip());
        self.u16(address.port());
    }

    pub(crate) fn credentials(&mut self, credentials: &IceCredentials) {
        self.text(&credentials.ufrag);
        self.text(&credentials.pwd);
    }

    /// At most 255 candidates: kind, address and priority of each, which is what checks need.
    pub(crate) fn candidates(&mut self, candidates: &[Candidate]) {
        let candidates = &candidates[..candidates.len().min(255)];
        self.u8(candidates.len() as u8);
        for candidate in candidates {
            self.u8(match candidate.kind {
                CandidateKind::Host => 1,
                CandidateKind::ServerReflexive => 2,
                CandidateKind::PeerReflexive => 3,
                CandidateKind::Relayed => 4,
            });
            self.endpoint(&candidate.address);
            self.u32(candidate.priority);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Result<&[u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.take(N)?.try_into().map_err(|_| Damaged)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damaged> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Damaged> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Damaged> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damaged> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn fingerprint(&mut self) -> Result<Fingerprint, Damaged> {
        self.array().map(Fingerprint)
    }

    pub(crate) fn text(&mut self, len_max: usize) -> Result<String, Damaged> {
        let len = usize::from(self.u16()?);
        if len > len_max {
            return Err(Damaged);
        }
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| Damaged)?;
        Ok(text.to_owned())
    }

    pub(crate) fn session(&mut self) -> Result<SessionId, Damaged> {
        SessionId::new(&self.text(ipop_signal::SESSION_LEN_MAX)?).map_err(|_| Damaged)
    }

    pub(crate) fn ip(&mut self) -> Result<IpAddr, Damaged> {
        match self.u8()? {
            4 => Ok(self.array::<4>()?.into()),
            6 => Ok(self.array::<16>()?.into()),
            _ => Err(Damaged),
        }
    }

    pub(crate) fn endpoint(&mut self) -> Result<SocketAddr, Damaged> {
        Ok(SocketAddr::new(self.ip()?, self.u16()?))
    }

    pub(crate) fn credentials(&mut self) -> Result<IceCredentials, Damaged> {
        let (ufrag, pwd) = (self.text(32)?, self.text(64)?);
        IceCredentials::new(&ufrag, &pwd).map_err(|_| Damaged)
    }

    pub(crate) fn candidates(&mut self) -> Result<Vec<Candidate>, Damaged> {
        let count = self.u8()?;
        (0..count).map(|_| self.candidate()).collect()
    }

    fn candidate(&mut self) -> Result<Candidate, Damaged> {
        let kind = match self.u8()? {
            1 => CandidateKind::Host,
            2 => CandidateKind::ServerReflexive,
            3 => CandidateKind::PeerReflexive,
            4 => CandidateKind::Relayed,
            _ => return Err(Damaged),
        };
        Ok(candidate(kind, self.endpoint()?, self.u32()?))
    }

    /// Nothing follows.
    pub(crate) fn finish(self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}

/// A candidate of the first lane that says no more of itself than checks need.
pub(crate) fn candidate(kind: CandidateKind, address: SocketAddr, priority: u32) -> Candidate {
    let foundation = "known".to_owned();
    Candidate { component: 1, kind, address, related: None, priority, foundation }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_too_long_is_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Reader(&bytes).text(16);
            let _ = Reader(&bytes).candidates();
            let _ = Reader(&bytes).credentials();
            let _ = Reader(&bytes).session();
        }
    }
}
