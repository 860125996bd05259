//! AES-GCM (NIST SP 800-38D) for datagrams: nonces of 96 bits, tags of 128 bits, keys of 128 or
//! 256 bits, on x86-64 processors that have VAES and VPCLMULQDQ.
//!
//! Why our own: libraries are made for long messages. On a processor with VAES and without
//! AVX-512, aws-lc takes 170 ns for a datagram of 1400 bytes, of which half is the same for an
//! empty one, and a third of all that a busy node computes is this. Here the two instructions work
//! on 256 bits, a message is hashed while it is encrypted, and a datagram that is given in two
//! places (payload and headers) is one stream of blocks, with nothing begun twice. Where the
//! instructions are missing there is no [`Key`], and the caller takes a library.
//!
//! Safe by construction: AES and GHASH are instructions whose time does not depend on data; no
//! table, branch or address depends on a key, plaintext or tag but for the verdict itself. Keys are
//! wiped. The tests compare with aws-lc for all lengths, and with the vectors of the standard's
//! authors.
//!
//! Read first: `vaes/message.rs`, the way of a message. `vaes/aes.rs` makes the key stream,
//! `vaes/ghash.rs` the hash.
//!
//! What it leaves out: nonces, which the caller never repeats, and limits of a key's use.

#[cfg(target_arch = "x86_64")]
mod vaes;

#[cfg(not(target_arch = "x86_64"))]
mod other;
#[cfg(not(target_arch = "x86_64"))]
use other as vaes;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;

/// Bytes of a tag.
pub const TAG_LEN: usize = 16;

/// The longest message in bytes: counters of 32 bits must not come round, and no datagram is
/// longer.
pub const MESSAGE_LEN_MAX: usize = 1 << 24;

/// The message is not authentic, or longer than [`MESSAGE_LEN_MAX`], or `out` not as long as it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// An expanded key, wiped when it is dropped.
pub struct Key(Size);

/// Boxed: with powers of the hash key it is longer than a kilobyte.
enum Size {
    Aes128(Box<vaes::Key<10>>),
    Aes256(Box<vaes::Key<14>>),
}

impl Key {
    /// Expands a key of 16 or 32 bytes. `None` for another length, and where this processor lacks
    /// the instructions.
    #[must_use]
    pub fn new(key: &[u8]) -> Option<Key> {
        let size = match key.len() {
            16 => Size::Aes128(Box::new(vaes::Key::new(key)?)),
            32 => Size::Aes256(Box::new(vaes::Key::new(key)?)),
            _ => return None,
        };
        Some(Key(size))
    }

    /// Encrypts `payload` and then `extra` as one message to the front of `out`, and its tag
    /// behind it. `aad` is authenticated with it.
    ///
    /// # Errors
    /// [`Refused`] if the message is too long, or `out` is not as long as message and tag.
    // Not inlined into other crates: those may be compiled without optimisation, and vectors that
    // go by memory between any two instructions are a hundred times slower.
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        [payload, extra]: [&[u8]; 2],
        out: &mut [u8],
    ) -> Result<(), Refused> {
        let length = payload.len() + extra.len();
        if length > MESSAGE_LEN_MAX || out.len() != length + TAG_LEN {
            return Err(Refused);
        }
        match &self.0 {
            Size::Aes128(key) => key.seal(nonce, aad, [payload, extra], out),
            Size::Aes256(key) => key.seal(nonce, aad, [payload, extra], out),
        }
        Ok(())
    }

    /// Decrypts `sealed` to `out`, which is as long.
    ///
    /// # Errors
    /// [`Refused`] if the tag is another one, after which `out` holds zeros, or if a length is
    /// wrong.
    pub fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        sealed: &[u8],
        tag: &[u8],
        out: &mut [u8],
    ) -> Result<(), Refused> {
        let tag: &[u8; TAG_LEN] = tag.try_into().map_err(|_| Refused)?;
        if sealed.len() > MESSAGE_LEN_MAX || out.len() != sealed.len() {
            return Err(Refused);
        }
        let is_authentic = match &self.0 {
            Size::Aes128(key) => key.open(nonce, aad, sealed, tag, out),
            Size::Aes256(key) => key.open(nonce, aad, sealed, tag, out),
        };
        if is_authentic {
            Ok(())
        } else {
            out.fill(0);
            Err(Refused)
        }
    }
}
