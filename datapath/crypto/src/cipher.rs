//! The AEADs that lanes can use, and how two nodes agree on one.

use aws_lc_rs::aead;

/// An AEAD with a 128-bit tag. The discriminant is its id on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cipher {
    /// AES-128-GCM, id 1.
    Aes128Gcm = 1,
    /// AES-256-GCM, id 2.
    Aes256Gcm = 2,
    /// ChaCha20-Poly1305, id 3.
    ChaCha20Poly1305 = 3,
    /// None, id 4: frames are neither encrypted nor authenticated nor checked for replays, for
    /// fabrics that are trusted by policy. Agents' messages are sealed with AES-128-GCM as ever,
    /// so nobody can take a link down or over. Never chosen unless both ends list it.
    Plain = 4,
    /// AEGIS-128X4 (draft-irtf-cfrg-aegis-aead) with a 128-bit tag, id 5: less than half of the
    /// work of GCM where processors have VAES. Not a standard yet and in no list of approved
    /// ciphers, so it is never chosen unless both ends list it.
    Aegis128X4 = 5,
}

impl Cipher {
    /// Every cipher that this build can use, by ascending id.
    pub const ALL: [Cipher; 5] = [
        Cipher::Aes128Gcm,
        Cipher::Aes256Gcm,
        Cipher::ChaCha20Poly1305,
        Cipher::Plain,
        Cipher::Aegis128X4,
    ];

    /// The approved ones, by ascending id: what a node offers unless a policy says otherwise.
    pub const DEFAULT: [Cipher; 3] =
        [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];

    /// The id on the wire.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The cipher with this id, `None` for ids of a later version.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Cipher> {
        Cipher::ALL.into_iter().find(|cipher| cipher.id() == id)
    }

    /// The registered name, for tables and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cipher::Aes128Gcm => "AES-128-GCM",
            Cipher::Aes256Gcm => "AES-256-GCM",
            Cipher::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            Cipher::Plain => "PLAINTEXT",
            Cipher::Aegis128X4 => "AEGIS-128X4",
        }
    }

    /// The cipher with this name, in any case; `plain` is [`Cipher::Plain`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Cipher> {
        let is_plain = name.eq_ignore_ascii_case("plain");
        let named = |cipher: &Cipher| cipher.name().eq_ignore_ascii_case(name);
        is_plain.then_some(Cipher::Plain).or_else(|| Cipher::ALL.into_iter().find(named))
    }

    /// What seals agents' messages, and frames unless there is no cipher for them.
    pub(crate) fn library(self) -> Library {
        match self {
            Cipher::Aes128Gcm | Cipher::Plain => Library::Gcm(&aead::AES_128_GCM),
            Cipher::Aes256Gcm => Library::Gcm(&aead::AES_256_GCM),
            Cipher::ChaCha20Poly1305 => Library::AwsLc(&aead::CHACHA20_POLY1305),
            Cipher::Aegis128X4 => Library::Aegis,
        }
    }

    /// Bytes of a key.
    pub(crate) fn key_len(self) -> usize {
        match self.library() {
            Library::Gcm(algorithm) | Library::AwsLc(algorithm) => algorithm.key_len(),
            Library::Aegis => AEGIS_KEY_LEN,
        }
    }
}

/// Who implements a cipher.
#[derive(Clone, Copy)]
pub(crate) enum Library {
    /// AES-GCM: our own where the processor has the instructions for it, or this of aws-lc.
    Gcm(&'static aead::Algorithm),
    AwsLc(&'static aead::Algorithm),
    /// AEGIS-128X4 of libaegis.
    Aegis,
}

/// Bytes of a key of AEGIS-128X4.
pub(crate) const AEGIS_KEY_LEN: usize = 16;

/// Picks the cipher with the lowest sum of both nodes' costs (picoseconds per byte) among those
/// that both list; equal sums go to the lower id. The same answer comes out at both ends.
#[must_use]
pub fn choose(ours: &[(Cipher, u32)], theirs: &[(Cipher, u32)]) -> Option<Cipher> {
    let cost_of = |list: &[(Cipher, u32)], wanted: Cipher| {
        list.iter().filter(|(cipher, _)| *cipher == wanted).map(|(_, cost)| u64::from(*cost)).min()
    };
    Cipher::ALL
        .into_iter()
        .filter_map(|cipher| {
            let sum = cost_of(ours, cipher)? + cost_of(theirs, cipher)?;
            Some((sum, cipher))
        })
        .min()
        .map(|(_, cipher)| cipher)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Cipher::{Aes128Gcm, Aes256Gcm, ChaCha20Poly1305};
    use proptest::prelude::*;

    #[test]
    fn the_slower_end_counts_as_much_as_the_faster() {
        let with_aes_hardware = [(Aes256Gcm, 60), (ChaCha20Poly1305, 400)];
        let without = [(Aes256Gcm, 9000), (ChaCha20Poly1305, 1200)];
        assert_eq!(choose(&with_aes_hardware, &with_aes_hardware), Some(Aes256Gcm));
        assert_eq!(choose(&with_aes_hardware, &without), Some(ChaCha20Poly1305));
    }

    #[test]
    fn equal_costs_go_to_the_lower_id_and_nothing_common_is_none() {
        let equal = [(ChaCha20Poly1305, 5), (Aes256Gcm, 5), (Aes128Gcm, 5)];
        assert_eq!(choose(&equal, &equal), Some(Aes128Gcm));
        assert_eq!(choose(&[(Aes128Gcm, 1)], &[(Aes256Gcm, 1)]), None);
        assert_eq!(choose(&[], &equal), None);
    }

    #[test]
    fn no_cipher_is_used_unless_both_ends_want_that() {
        let (plain, secure) = ([(Cipher::Plain, 0)], [(Aes128Gcm, 50)]);
        assert_eq!(choose(&plain, &secure), None);
        assert_eq!(choose(&plain, &plain), Some(Cipher::Plain));
        assert!(!Cipher::DEFAULT.contains(&Cipher::Plain));
    }

    #[test]
    fn what_is_no_standard_is_nobodys_default() {
        let (both, usual) = ([(Cipher::Aegis128X4, 20), (Aes128Gcm, 90)], [(Aes128Gcm, 90)]);
        assert_eq!(choose(&both, &usual), Some(Aes128Gcm));
        assert_eq!(choose(&both, &both), Some(Cipher::Aegis128X4));
        assert!(!Cipher::DEFAULT.contains(&Cipher::Aegis128X4));
    }

    #[test]
    fn names_lead_back() {
        for cipher in Cipher::ALL {
            assert_eq!(Cipher::from_name(&cipher.name().to_lowercase()), Some(cipher));
        }
        assert_eq!(Cipher::from_name("plain"), Some(Cipher::Plain));
        assert_eq!(Cipher::from_name("null"), None);
    }

    fn costs() -> impl Strategy<Value = Vec<(Cipher, u32)>> {
        let one = (1u8..=5, any::<u32>())
            .prop_map(|(id, cost)| (Cipher::from_id(id).expect("ids 1 to 5 exist"), cost));
        proptest::collection::vec(one, 0..6)
    }

    proptest! {
        #[test]
        fn both_ends_choose_the_same(ours in costs(), theirs in costs()) {
            prop_assert_eq!(choose(&ours, &theirs), choose(&theirs, &ours));
        }
    }
}
