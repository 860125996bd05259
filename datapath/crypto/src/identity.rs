//! Who a node is: an Ed25519 key, and the fingerprint that others know it by.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// What stands in front of the 32-byte key in an Ed25519 SubjectPublicKeyInfo (RFC 8410 section 4).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What stands in front of the 32-byte seed in an Ed25519 PKCS #8 v1 key (RFC 8410 section 7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

const KEY_LEN: usize = 32;
const UID_LEN: usize = 20;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// SHA-256 of a node's SubjectPublicKeyInfo: what signalling carries and a handshake pins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a public key in SubjectPublicKeyInfo DER.
    #[must_use]
    pub fn of_spki(spki: &[u8]) -> Self {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, spki).as_ref());
        Fingerprint(fingerprint)
    }

    /// The UID: the first 160 bits in lower-case hexadecimal, 40 characters.
    #[must_use]
    pub fn uid_hex(&self) -> String {
        hex(&self.0[..UID_LEN])
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Why a key file is not usable. The user's to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// There is no PEM block with the label PRIVATE KEY.
    #[error("no PEM block PRIVATE KEY found")]
    NotPem,
    /// It is a key of another kind, or damaged.
    #[error("the private key is not an Ed25519 key in PKCS #8")]
    NotEd25519,
}

/// A node's own key pair. The private half never leaves it except as PEM for the key file.
pub struct Identity {
    pkcs8: Zeroizing<[u8; PKCS8_PREFIX.len() + KEY_LEN]>,
    fingerprint: Fingerprint,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// The key pair that belongs to this secret seed. The caller draws it from the system's
    /// generator and wipes it.
    #[must_use]
    pub fn generate(seed: &[u8; KEY_LEN]) -> Self {
        let mut pkcs8 = Zeroizing::new([0; PKCS8_PREFIX.len() + KEY_LEN]);
        let (prefix, secret) = pkcs8.split_at_mut(PKCS8_PREFIX.len());
        prefix.copy_from_slice(&PKCS8_PREFIX);
        secret.copy_from_slice(seed);

        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .expect("every 32-byte seed is an Ed25519 private key");
        let spki = [&SPKI_PREFIX[..], pair.public_key().as_ref()].concat();
        let fingerprint = Fingerprint::of_spki(&spki);
        let signer = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(
            pkcs8.as_slice(),
        ))
        .expect("the prefix and a seed are a valid PKCS #8 key");
        // RFC 7250: the "certificate" of a raw public key is its SubjectPublicKeyInfo.
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer));
        Identity { pkcs8, fingerprint, certified }
    }

    /// Reads a key file: PEM with an Ed25519 key in PKCS #8, version 1 or 2 (as `openssl genpkey
    /// -algorithm ed25519` and [`to_pkcs8_pem`](Self::to_pkcs8_pem) write it).
    ///
    /// # Errors
    /// [`IdentityError`], when it is something else.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, IdentityError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| IdentityError::NotPem)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
            .map_err(|_| IdentityError::NotEd25519)?;
        let secret = pair.seed().map_err(|_| IdentityError::NotEd25519)?;
        let secret = secret.as_be_bytes().map_err(|_| IdentityError::NotEd25519)?;
        let mut seed = Zeroizing::new([0; KEY_LEN]);
        seed.copy_from_slice(secret.as_ref());
        Ok(Self::generate(&seed))
    }

    /// The key as PEM (PKCS #8 version 1), for a file that only its owner may read.
    #[must_use]
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        let mut body = BASE64.encode(self.pkcs8.as_slice());
        let pem = Zeroizing::new(format!("{PEM_BEGIN}\n{body}\n{PEM_END}\n"));
        body.zeroize();
        pem
    }

    /// What others know this node by.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The UID, see [`Fingerprint::uid_hex`].
    #[must_use]
    pub fn uid_hex(&self) -> String {
        self.fingerprint.uid_hex()
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint)
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 8410 section 10.3, the example key.
    const RFC8410_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    /// RFC 8410 section 10.1, its public key.
    const RFC8410_SPKI: &str = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";

    #[test]
    fn the_example_of_rfc_8410() {
        let identity = Identity::from_pkcs8_pem(RFC8410_KEY).expect("valid");
        let spki = BASE64.decode(RFC8410_SPKI).expect("base64");
        assert_eq!(identity.fingerprint(), Fingerprint::of_spki(&spki));
        assert_eq!(identity.certified.cert[0].as_ref(), &spki[..]);
        assert_eq!(identity.to_pkcs8_pem().as_str(), RFC8410_KEY);
        assert_eq!(identity.uid_hex(), identity.fingerprint().to_string()[..40]);
    }

    #[test]
    fn a_version_2_key_is_read_too() {
        let pair = Ed25519KeyPair::generate().expect("generates");
        let document = pair.to_pkcs8().expect("encodes");
        let pem = format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", BASE64.encode(document.as_ref()));
        let spki = [&SPKI_PREFIX[..], pair.public_key().as_ref()].concat();
        let identity = Identity::from_pkcs8_pem(&pem).expect("valid");
        assert_eq!(identity.fingerprint(), Fingerprint::of_spki(&spki));
    }

    #[test]
    fn what_is_no_key_says_so() {
        let error = |pem: &str| Identity::from_pkcs8_pem(pem).expect_err("refused");
        assert_eq!(error(""), IdentityError::NotPem);
        assert_eq!(error(&RFC8410_KEY.replace("PRIVATE", "PUBLIC")), IdentityError::NotPem);
        assert_eq!(error(&RFC8410_KEY.replace("MC4C", "MC4D")), IdentityError::NotEd25519);
    }

    #[test]
    fn nothing_secret_is_shown_by_debug() {
        let identity = Identity::generate(&[9; 32]);
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.fingerprint()));
    }

    proptest! {
        #[test]
        fn a_written_key_is_read_as_the_same_node(seed in any::<[u8; 32]>()) {
            let identity = Identity::generate(&seed);
            let again = Identity::from_pkcs8_pem(&identity.to_pkcs8_pem()).expect("written by us");
            prop_assert_eq!(again.fingerprint(), identity.fingerprint());
        }

        #[test]
        fn no_text_panics(text in ".{0,300}") {
            let _ = Identity::from_pkcs8_pem(&text);
        }
    }
}
