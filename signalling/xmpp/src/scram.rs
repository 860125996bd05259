//! SCRAM, the client's side (RFC 5802, RFC 7677), with channel binding (RFC 9266).
//!
//! Both ends prove that they know the password and neither shows it; the server's proof is checked
//! by [`Scram::verify`], without which a login does not count.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipop_stream::scram::{Challenge, Hash, Malformed, SaltedPassword, escaped_name, text_of};
use std::num::NonZeroU32;

/// RFC 7677 section 4 asks for at least this many rounds.
const ROUNDS_MIN: u32 = 4096;
/// More would let a server keep us busy: this many take well below a second.
const ROUNDS_MAX: u32 = 1_000_000;

/// What the login is tied to, and what the server is told about it (the GS2 header).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    /// `n`: this connection has nothing to bind to that the server would take.
    Impossible,
    /// `y`: we would bind, the server offers no way. A server that did offer one learns from this
    /// that somebody between us took it out.
    NotOffered,
    /// `p`: key material exported from the TLS connection, 32 bytes.
    Exporter([u8; 32]),
}

/// Why the exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScramError {
    #[error("the user name or password holds characters that SASL does not allow")]
    Forbidden,
    #[error("the server's challenge is malformed")]
    Malformed,
    #[error("the server asks for {0} rounds of hashing, which is out of bounds")]
    Rounds(u32),
    #[error("the server could not prove that it knows the password")]
    ServerUnproven,
}

/// One exchange.
pub(crate) struct Scram {
    hash: Hash,
    password: String,
    binding: Binding,
    nonce: String,
    first_bare: String,
    server_signature: Option<Vec<u8>>,
}

impl Scram {
    /// Prepares an exchange. The nonce is of printable ASCII without commas and must not repeat.
    pub(crate) fn new(
        hash: Hash,
        username: &str,
        password: &str,
        binding: Binding,
        nonce: String,
    ) -> Result<Self, ScramError> {
        let prepared = |text| stringprep::saslprep(text).map_err(|_| ScramError::Forbidden);
        let username = escaped_name(&prepared(username)?);
        let password = prepared(password)?.into_owned();
        let first_bare = format!("n={username},r={nonce}");
        Ok(Self { hash, password, binding, nonce, first_bare, server_signature: None })
    }

    /// What the login is tied to.
    pub(crate) fn binding(&self) -> &Binding {
        &self.binding
    }

    /// The client's first message.
    pub(crate) fn first(&self) -> Vec<u8> {
        format!("{}{}", self.binding.header(), self.first_bare).into_bytes()
    }

    /// Answers the server's challenge with the client's proof.
    pub(crate) fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, ScramError> {
        let challenge = text_of(challenge)?;
        let Challenge { nonce, salt, rounds } = Challenge::parse(challenge)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Malformed);
        }
        let bounds = ROUNDS_MIN..=ROUNDS_MAX;
        let counted = NonZeroU32::new(rounds).filter(|rounds| bounds.contains(&rounds.get()));
        let rounds = counted.ok_or(ScramError::Rounds(rounds))?;
        let last_bare = format!("c={},r={nonce}", BASE64.encode(self.binding.bytes()));
        let exchange = format!("{},{challenge},{last_bare}", self.first_bare);
        let proof = self.prove(&salt, rounds, &exchange);
        Ok(format!("{last_bare},p={}", BASE64.encode(proof)).into_bytes())
    }

    /// Whether the challenge has been answered, so that the server's proof comes next.
    pub(crate) fn is_answered(&self) -> bool {
        self.server_signature.is_some()
    }

    /// Checks the server's last message.
    pub(crate) fn verify(&self, last: &[u8]) -> Result<(), ScramError> {
        let signature = text_of(last)?.split(',').next().and_then(|text| text.strip_prefix("v="));
        let signature = signature.and_then(|text| BASE64.decode(text).ok());
        match (signature, &self.server_signature) {
            (Some(signature), Some(expected)) => verify_slices_are_equal(&signature, expected)
                .map_err(|_| ScramError::ServerUnproven),
            _ => Err(ScramError::ServerUnproven),
        }
    }

    /// The client's proof; keeps what the server's has to look like.
    fn prove(&mut self, salt: &[u8], rounds: NonZeroU32, exchange: &str) -> Vec<u8> {
        let salted = SaltedPassword::new(self.hash, &self.password, salt, rounds);
        self.server_signature = Some(salted.server_keys().signature(exchange));
        salted.proof(exchange)
    }
}

impl Binding {
    fn header(&self) -> &'static str {
        match self {
            Self::Impossible => "n,,",
            Self::NotOffered => "y,,",
            Self::Exporter(_) => "p=tls-exporter,,",
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let header = self.header().as_bytes().to_vec();
        match self {
            Self::Exporter(material) => [header, material.to_vec()].concat(),
            Self::Impossible | Self::NotOffered => header,
        }
    }
}

impl From<Malformed> for ScramError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scram(hash: Hash, nonce: &str) -> Scram {
        Scram::new(hash, "user", "pencil", Binding::Impossible, nonce.to_owned()).unwrap()
    }

    /// The exchange printed in RFC 5802 section 5.
    #[test]
    fn sha1_speaks_as_the_rfc() {
        let mut scram = scram(Hash::Sha1, "fyko+d2lbbFgONRv9qkxdawL");
        assert_eq!(scram.first(), b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
        let challenge = b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096";
        let expected = "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,\
                        p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=";
        assert_eq!(scram.respond(challenge).unwrap(), expected.as_bytes());
        assert_eq!(scram.verify(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="), Ok(()));
        assert_eq!(
            scram.verify(b"v=rmF9pqV8S7suAoZWja4dJRkFsKR="),
            Err(ScramError::ServerUnproven)
        );
        assert_eq!(scram.verify(b""), Err(ScramError::ServerUnproven));
    }

    /// The exchange printed in RFC 7677 section 3.
    #[test]
    fn sha256_speaks_as_the_rfc() {
        let mut scram = scram(Hash::Sha256, "rOprNGfwEbeRWgbNEkqO");
        let challenge = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                          s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(scram.respond(challenge).unwrap(), expected.as_bytes());
        assert_eq!(scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
    }

    #[test]
    fn success_before_the_challenge_proves_nothing() {
        let scram = scram(Hash::Sha256, "n");
        assert_eq!(scram.verify(b"v="), Err(ScramError::ServerUnproven));
    }

    #[test]
    fn a_challenge_out_of_bounds_is_refused() {
        let respond =
            |challenge: &str| scram(Hash::Sha256, "abc").respond(challenge.as_bytes()).unwrap_err();
        assert_eq!(respond("r=abcd,s=QQ==,i=1"), ScramError::Rounds(1));
        assert_eq!(respond("r=abcd,s=QQ==,i=4000000000"), ScramError::Rounds(4_000_000_000));
        assert_eq!(respond("r=abc,s=QQ==,i=4096"), ScramError::Malformed);
        assert_eq!(respond("r=xyz,s=QQ==,i=4096"), ScramError::Malformed);
        assert_eq!(respond("m=x,r=abcd,s=QQ==,i=4096"), ScramError::Malformed);
    }

    #[test]
    fn the_header_says_what_is_bound() {
        let first = |binding| {
            let scram = Scram::new(Hash::Sha1, "a=b,c", "p", binding, "n".to_owned()).unwrap();
            String::from_utf8(scram.first()).unwrap()
        };
        assert_eq!(first(Binding::NotOffered), "y,,n=a=3Db=2Cc,r=n");
        assert_eq!(first(Binding::Exporter([0; 32])), "p=tls-exporter,,n=a=3Db=2Cc,r=n");
    }

    proptest! {
        #[test]
        fn arbitrary_challenges_never_panic(
            challenge in any::<Vec<u8>>(),
            text in "[rsiv=,a-z0-9]{0,80}",
        ) {
            let mut scram = scram(Hash::Sha1, "a");
            let _ = scram.respond(&challenge);
            let _ = scram.respond(text.as_bytes());
            let _ = scram.verify(&challenge);
        }
    }
}
