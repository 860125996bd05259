//! Sealing and opening alone, with the very datagrams that the pipeline makes of a case.

use std::hint::black_box;
use std::time::Instant;

use ipop_crypto::{ChainSecret, Cipher, Opener, Sealer};
use ipop_wire::geometry::PartView;
use ipop_wire::{HEADER_LEN, Header, Part, SEAL_OVERHEAD};

use crate::Work;
use crate::cases::Case;
use crate::packets::Egress;

/// What one datagram is made of.
struct Plain {
    header: Header,
    /// Payload and what follows it, in two pieces as the pipeline hands them over.
    payload: Vec<u8>,
    extra: Vec<u8>,
}

/// Opens what egress makes of the case, to see what it sealed.
fn plain_datagrams(case: Case, cipher: Cipher) -> Vec<Plain> {
    let mut egress = Egress::new(case, cipher);
    egress.work();
    let mut opener = Opener::new(cipher, &ChainSecret::new([7; 32]));
    let mut datagrams = Vec::new();
    for (slot, run) in &egress.slots.sent {
        for datagram in slot[..run.len].chunks(run.segment_size) {
            let header = Header::parse(datagram).expect("our own header");
            let mut out = vec![0; datagram.len()];
            let opened = opener.open(Instant::now(), &header, datagram, &mut out);
            out.truncate(opened.expect("our own datagram"));
            let payload_len = match header.part {
                Part::BUNDLE => out.len(),
                _ => PartView::parse(&out).expect("our own part").payload.len(),
            };
            let extra = out.split_off(payload_len);
            datagrams.push(Plain { header, payload: out, extra });
        }
    }
    datagrams
}

/// Seals a batch of datagrams into one buffer.
pub(crate) struct Seal {
    sealer: Sealer,
    datagrams: Vec<Plain>,
    out: Vec<u8>,
}

impl Seal {
    pub(crate) fn new(case: Case, cipher: Cipher) -> Self {
        let datagrams = plain_datagrams(case, cipher);
        let len = datagrams.iter().map(|d| SEAL_OVERHEAD + d.payload.len() + d.extra.len()).sum();
        let sealer = Sealer::new(cipher, &ChainSecret::new([7; 32]), Instant::now());
        Self { sealer, datagrams, out: vec![0; len] }
    }
}

impl Work for Seal {
    fn prepare(&mut self) {}

    fn work(&mut self) {
        let mut at = 0;
        for Plain { header, payload, extra } in &self.datagrams {
            let sealed = self.sealer.seal(*header, payload, extra, &mut self.out[at..]);
            at += sealed.expect("the buffer is as long as all datagrams");
        }
        black_box(&self.out);
    }

    fn verify(&self) {
        assert!(self.sealer.counter() > 0, "datagrams are sealed");
    }
}

/// Opens a batch of datagrams, each to the front of one buffer.
pub(crate) struct Open {
    seal: Seal,
    opener: Opener,
    now: Instant,
    /// One datagram after the other, with its header parsed.
    lens: Vec<usize>,
    headers: Vec<Header>,
    out: Vec<u8>,
}

impl Open {
    pub(crate) fn new(case: Case, cipher: Cipher) -> Self {
        let seal = Seal::new(case, cipher);
        let len = |d: &Plain| SEAL_OVERHEAD + d.payload.len() + d.extra.len();
        let lens: Vec<usize> = seal.datagrams.iter().map(len).collect();
        Self {
            opener: Opener::new(cipher, &ChainSecret::new([7; 32])),
            now: Instant::now(),
            headers: Vec::with_capacity(lens.len()),
            out: vec![0; seal.out.len()],
            lens,
            seal,
        }
    }
}

impl Work for Open {
    fn prepare(&mut self) {
        self.seal.work();
        self.headers.clear();
        let mut at = 0;
        for len in &self.lens {
            let front = &self.seal.out[at..at + HEADER_LEN];
            self.headers.push(Header::parse(front).expect("our own header"));
            at += len;
        }
    }

    fn work(&mut self) {
        let (mut at, mut out) = (0, 0);
        for (header, len) in self.headers.iter().zip(&self.lens) {
            let datagram = &self.seal.out[at..at + len];
            let opened = self.opener.open(self.now, header, datagram, &mut self.out[out..]);
            at += len;
            out += opened.expect("our own datagram");
        }
        black_box(&self.out);
    }

    fn verify(&self) {
        assert_eq!(self.opener.counter_end(), self.seal.sealer.counter(), "datagrams are opened");
    }
}
