//! One epoch's key: what seals and opens datagrams, by whichever library has the cipher.

use aegis::aegis128x4::Aegis128X4;
use aws_lc_rs::aead::{Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ipop_wire::TAG_LEN;
use zeroize::Zeroize;

use crate::cipher::{AEGIS_KEY_LEN, Cipher, Library};

/// Length of the longest nonce in bytes. Shorter ones are its front.
pub(crate) const IV_LEN: usize = 16;

/// An AEAD key and the IV that counters are xor-ed with. Both are wiped: the libraries do so with
/// their key schedules.
pub(crate) struct LaneKey {
    key: Key,
    iv: [u8; IV_LEN],
}

enum Key {
    AwsLc(LessSafeKey),
    Gcm(ipop_gcm::Key),
    Aegis([u8; AEGIS_KEY_LEN]),
}

impl LaneKey {
    /// `key` is as long as the cipher says.
    pub(crate) fn new(cipher: Cipher, key: &[u8], iv: [u8; IV_LEN]) -> LaneKey {
        let key = match cipher.library() {
            Library::Gcm(algorithm) => {
                ipop_gcm::Key::new(key).map_or_else(|| of_aws_lc(algorithm, key), Key::Gcm)
            }
            Library::AwsLc(algorithm) => of_aws_lc(algorithm, key),
            Library::Aegis => {
                Key::Aegis(key.try_into().expect("the key is as long as the algorithm's"))
            }
        };
        LaneKey { key, iv }
    }

    /// Seals `payload` then `extra` as one message to the front of `out`, the tag behind it; `out`
    /// is just as long.
    #[inline]
    pub(crate) fn seal(
        &self,
        counter: u64,
        aad: &[u8],
        payload: &[u8],
        extra: &[u8],
        out: &mut [u8],
    ) -> Result<(), ()> {
        match &self.key {
            Key::AwsLc(key) => {
                let (sealed, extra_and_tag) = out.split_at_mut(payload.len());
                let (nonce, aad) = (self.nonce(counter), Aad::from(aad));
                key.seal_out_of_place_scatter(nonce, aad, payload, sealed, extra, extra_and_tag)
                    .map_err(drop)
            }
            Key::Gcm(key) => {
                let nonce = with_counter(self.iv, counter);
                key.seal(&nonce, aad, [payload, extra], out).map_err(drop)
            }
            Key::Aegis(key) => {
                // In place behind a copy is twice as fast as from one place to another: the latter
                // goes by a state in memory that is wiped each time.
                let (message, tag) = out.split_at_mut(payload.len() + extra.len());
                let (front, back) = message.split_at_mut(payload.len());
                front.copy_from_slice(payload);
                back.copy_from_slice(extra);
                let made = self.aegis(key, counter).encrypt_in_place(message, aad);
                tag.copy_from_slice(&made);
                Ok(())
            }
        }
    }

    /// Opens into `out`, which is as long as `sealed`. After an error `out` holds garbage.
    #[inline]
    pub(crate) fn open(
        &self,
        counter: u64,
        aad: &[u8],
        sealed: &[u8],
        tag: &[u8],
        out: &mut [u8],
    ) -> Result<(), ()> {
        match &self.key {
            Key::AwsLc(key) => {
                let (nonce, aad) = (self.nonce(counter), Aad::from(aad));
                key.open_separate_gather(nonce, aad, sealed, tag, out).map_err(drop)
            }
            Key::Gcm(key) => {
                key.open(&with_counter(self.iv, counter), aad, sealed, tag, out).map_err(drop)
            }
            Key::Aegis(key) => {
                let tag: &[u8; TAG_LEN] = tag.try_into().map_err(drop)?;
                out.copy_from_slice(sealed);
                self.aegis(key, counter).decrypt_in_place(out, tag, aad).map_err(drop)
            }
        }
    }

    #[inline]
    fn nonce(&self, counter: u64) -> Nonce {
        Nonce::assume_unique_for_key(with_counter::<NONCE_LEN>(self.iv, counter))
    }

    #[inline]
    fn aegis(&self, key: &[u8; AEGIS_KEY_LEN], counter: u64) -> Aegis128X4<TAG_LEN> {
        Aegis128X4::new(key, &with_counter(self.iv, counter))
    }
}

fn of_aws_lc(algorithm: &'static Algorithm, key: &[u8]) -> Key {
    let key = UnboundKey::new(algorithm, key).expect("the key is as long as the algorithm's");
    Key::AwsLc(LessSafeKey::new(key))
}

/// The nonce of a datagram: the front of `iv`, its last eight bytes xor-ed with the counter (RFC
/// 8446, section 5.3).
#[inline]
fn with_counter<const LEN: usize>(iv: [u8; IV_LEN], counter: u64) -> [u8; LEN] {
    const { assert!(LEN <= IV_LEN && LEN >= size_of::<u64>()) };
    let mut nonce = [0; LEN];
    nonce.copy_from_slice(&iv[..LEN]);
    for (byte, count) in nonce[LEN - size_of::<u64>()..].iter_mut().zip(counter.to_be_bytes()) {
        *byte ^= count;
    }
    nonce
}

impl Drop for LaneKey {
    fn drop(&mut self) {
        self.iv.zeroize();
        if let Key::Aegis(key) = &mut self.key {
            key.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second test vector for AEGIS-128X4 of draft-irtf-cfrg-aegis-aead, its appendix A.
    #[test]
    fn aegis_is_that_of_the_specification() {
        let key: [u8; AEGIS_KEY_LEN] = core::array::from_fn(|at| at as u8);
        let iv: [u8; IV_LEN] = core::array::from_fn(|at| 0x10 + at as u8);
        let key = LaneKey::new(Cipher::Aegis128X4, &key, iv);
        let aad = [1, 2, 3, 4, 1, 2, 3, 4];
        let message = [4, 5, 6, 7].repeat(30);
        let sealed = "e836118562f4479c9d35c17356a833114c21f9aa39e4dda5e5c87f4152a00fce\
                      9a7c38f832eafe8b1c12f8a7cf12a81a1ad8a9c24ba9dedfbdaa586ffea67ddc\
                      801ea97d9ab4a872f42d0e352e2713dacd609f9442c17517c5a29daf3e2a3fac\
                      4ff6b1380c4e46df7b086af6ce6bc1ed594b8dd64aed2a7e\
                      0e56ab94e2e85db80f9d54010caabfb4";
        let mut out = [0; 120 + TAG_LEN];
        key.seal(0, &aad, &message[..100], &message[100..], &mut out).expect("it fits");
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, sealed);

        let (sealed, tag) = out.split_at(120);
        let mut opened = [0; 120];
        key.open(0, &aad, sealed, tag, &mut opened).expect("it is authentic");
        assert_eq!(opened[..], message);
        assert!(key.open(1, &aad, sealed, tag, &mut opened).is_err(), "another counter");
        assert!(key.open(0, &aad, sealed, &tag[1..], &mut opened).is_err(), "a short tag");
    }

    #[test]
    fn the_counter_changes_the_last_eight_bytes() {
        let iv: [u8; IV_LEN] = core::array::from_fn(|at| at as u8);
        let nonce: [u8; NONCE_LEN] = with_counter(iv, 0x0102_0304_0506_0708);
        assert_eq!(nonce, [0, 1, 2, 3, 4 ^ 1, 5 ^ 2, 6 ^ 3, 7 ^ 4, 8 ^ 5, 9 ^ 6, 10 ^ 7, 11 ^ 8]);
    }
}
