//! Carries a handshake's messages over datagrams: pieces, acknowledgements, retransmission, two
//! levels. Knows nothing of TLS but the keys of the second level.
//!
//! Every datagram acknowledges both levels, so a flight is its own acknowledgement of the flight
//! before. A datagram without bytes goes out only when the peer shows, by repeating what we have,
//! that it does not know we have it, or when the handshake ends here.

use std::time::{Duration, Instant};

use ipop_wire::{Header, LinkIndex};
use rustls::quic::Keys;

use crate::fragment::{
    BYTES_LEN_MAX, BYTES_LEN_SAFE, BytesKind, Front, Guard, HandshakeId, RefusedInput,
};
use crate::stream::{Inserted, ReceiveStream, SendStream};
use crate::tls::{Level, Role};

/// Datagrams of the second level that may arrive before its keys do.
const EARLY_DATAGRAMS_MAX: usize = 8;

const RETRANSMIT_MIN: Duration = Duration::from_millis(100);
const RETRANSMIT_UNKNOWN_RTT: Duration = Duration::from_millis(250);
const RETRANSMIT_MAX: Duration = Duration::from_secs(1);

pub(crate) struct Carrier {
    id: HandshakeId,
    guard: Guard,
    send: [SendStream; 2],
    receive: [ReceiveStream; 2],
    early: Vec<Vec<u8>>,
    /// The peer's link index, 0 while unknown.
    receiver: LinkIndex,
    acknowledge_at: Option<Level>,
    /// Stream bytes in a datagram at most: less once something was lost, which may be the path's
    /// way to say that it was too large.
    piece_len: usize,
    retransmit_after: Duration,
    retransmit_at: Option<Instant>,
    out: Vec<Vec<u8>>,
}

/// What an authentic datagram brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Perhaps bytes to read or an acknowledgement.
    Stream,
    /// The peer gave up, with this alert code.
    Alert(u8),
    /// Kept until the keys are there.
    Early,
}

impl Carrier {
    pub(crate) fn new(
        role: Role,
        id: HandshakeId,
        path_secret: &[u8; 32],
        rtt: Option<Duration>,
    ) -> Self {
        let retransmit_after = rtt
            .map_or(RETRANSMIT_UNKNOWN_RTT, |rtt| (rtt * 2).clamp(RETRANSMIT_MIN, RETRANSMIT_MAX));
        Carrier {
            id,
            guard: Guard::new(role, path_secret),
            send: Default::default(),
            receive: Default::default(),
            early: Vec::new(),
            receiver: LinkIndex(0),
            acknowledge_at: None,
            piece_len: BYTES_LEN_MAX,
            retransmit_after,
            retransmit_at: None,
            out: Vec::new(),
        }
    }

    pub(crate) fn receive(&mut self, datagram: &[u8]) -> Result<Received, RefusedInput> {
        let (header, front) = Front::parse(datagram)?;
        if front.id != self.id {
            return Err(RefusedInput::OtherHandshake);
        }
        if front.level == Level::Handshake && !self.guard.has_keys() {
            if self.early.len() == EARLY_DATAGRAMS_MAX {
                return Err(RefusedInput::TooMuch);
            }
            self.early.push(datagram.to_vec());
            return Ok(Received::Early);
        }
        self.receive_authentic(&header, &front, datagram)
    }

    fn receive_authentic(
        &mut self,
        header: &Header,
        front: &Front,
        datagram: &[u8],
    ) -> Result<Received, RefusedInput> {
        let bytes = self.guard.unprotect(header, front, datagram)?;
        if front.kind == BytesKind::Alert {
            return match bytes[..] {
                [code] => Ok(Received::Alert(code)),
                _ => Err(RefusedInput::Malformed),
            };
        }
        for (stream, offset) in self.send.iter_mut().zip(front.acknowledged) {
            stream.acknowledge(offset);
        }
        if self.is_acknowledged() {
            self.retransmit_at = None;
        }
        if !bytes.is_empty() {
            match self.receive[front.level as usize].insert(front.offset, &bytes) {
                Inserted::New => {}
                Inserted::Known => self.acknowledge(front.level),
                Inserted::TooMuch => return Err(RefusedInput::TooMuch),
            }
        }
        Ok(Received::Stream)
    }

    /// The level whose bytes are due, and those that came since the last call. Once the second
    /// level has keys, nothing more is read from the first.
    pub(crate) fn read(&mut self) -> &[u8] {
        let level = if self.guard.has_keys() { Level::Handshake } else { Level::Initial };
        self.receive[level as usize].read()
    }

    pub(crate) fn push(&mut self, level: Level, bytes: &[u8]) {
        self.send[level as usize].push(bytes);
    }

    /// Installs the keys of the second level and returns the datagrams that waited for them.
    pub(crate) fn set_keys(&mut self, keys: Box<Keys>) -> Vec<Vec<u8>> {
        self.guard.set_keys(keys);
        std::mem::take(&mut self.early)
    }

    pub(crate) fn set_receiver(&mut self, receiver: LinkIndex) {
        self.receiver = receiver;
    }

    /// Asks for an acknowledgement at this level with the next `flush`.
    pub(crate) fn acknowledge(&mut self, level: Level) {
        self.acknowledge_at = Some(level);
    }

    /// Everything sent has been acknowledged.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.send.iter().all(SendStream::is_acknowledged)
    }

    /// Makes the datagrams that are due.
    pub(crate) fn flush(&mut self, now: Instant) {
        for level in [Level::Initial, Level::Handshake] {
            while let Some((offset, bytes)) = self.send[level as usize].next_piece(self.piece_len) {
                self.emit(level, BytesKind::Stream, offset, &bytes);
                if self.acknowledge_at == Some(level) {
                    self.acknowledge_at = None;
                }
                if self.retransmit_at.is_none() {
                    self.retransmit_at = Some(now + self.retransmit_after);
                }
            }
        }
        if let Some(level) = self.acknowledge_at.take() {
            self.emit(level, BytesKind::Stream, 0, &[]);
        }
    }

    /// Sends everything unacknowledged again, in datagrams that pass every path, and waits longer
    /// the next time.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.retransmit_at.is_none_or(|at| now < at) {
            return;
        }
        self.retransmit_at = None;
        self.piece_len = BYTES_LEN_SAFE;
        self.retransmit_after = (self.retransmit_after * 2).min(RETRANSMIT_MAX);
        self.send.iter_mut().for_each(SendStream::rewind);
        self.flush(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.retransmit_at
    }

    pub(crate) fn stop_retransmission(&mut self) {
        self.retransmit_at = None;
    }

    /// Tells the peer that this end gave up, at the highest level that has keys.
    pub(crate) fn alert(&mut self, code: u8) {
        let level = if self.guard.has_keys() { Level::Handshake } else { Level::Initial };
        self.emit(level, BytesKind::Alert, 0, &[code]);
    }

    pub(crate) fn take_datagrams(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.out)
    }

    fn emit(&mut self, level: Level, kind: BytesKind, offset: u32, bytes: &[u8]) {
        let acknowledged = [self.receive[0].received(), self.receive[1].received()];
        let front = Front { level, kind, id: self.id, acknowledged, offset };
        self.out.extend(self.guard.protect(&front, self.receiver, bytes));
    }
}
